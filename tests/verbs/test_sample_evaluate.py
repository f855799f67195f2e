"""Images from a finished run: the same seeds give the same images, and bad requests are one message."""

import numpy as np
import pytest

from tests.conftest import TINY, dit


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_latents):
    folder = tmp_path_factory.mktemp("run")
    settings = [f"data.directory={tiny_latents}", "run_dir=run", "duration.images=640", "evaluation=none"]
    dit("train", *TINY, *settings, cwd=folder, check=0)
    return folder / "run"


def sample(run, *settings):
    dit("sample", "run=run", "n=12", "grid.n_steps=4", "save=npz", *settings, cwd=run.parent, check=0)


def test_samples_depend_on_the_seed_and_not_on_the_batch(run):
    sample(run, "out=a", "batch_size=12")
    sample(run, "out=b", "batch_size=5")
    sample(run, "out=c", "seed=1")
    a, b, c = (np.load(run.parent / name / "samples.npz")["arr_0"] for name in "abc")
    assert a.shape == (12, 8, 8, 3) and a.dtype == np.uint8
    assert np.abs(a.astype(int) - b).max() <= 1  # float32 sums in another order, at a rounding edge
    assert np.abs(a.astype(int) - c).mean() > 5


@pytest.mark.parametrize(
    ("asked", "labels"),
    [("labels=[3,7]", [3, 7] * 6), ("labels=5", [5] * 12), ("labels=['9','0','1']", [9, 0, 1] * 4)],
)
def test_classes_are_those_asked_for(run, asked, labels):
    sample(run, "out=asked", asked)
    assert np.load(run.parent / "asked/samples.npz")["arr_1"].tolist() == labels


@pytest.mark.parametrize("task", ["interpolate", "image_to_image", "inpaint"])
def test_other_tasks_draw_a_grid(run, task):
    sample(run, f"task={task}", f"out={task}")
    assert (run.parent / task / "grid.png").read_bytes().startswith(b"\x89PNG")


def test_inpainting_keeps_what_is_given(run, tiny_latents):
    import torch

    from dit.data.codec import Codec
    from dit.data.latents import LatentSet

    sample(run, "task=inpaint", "out=kept", "weights=raw")
    held_out = LatentSet(tiny_latents, "validation")
    given = Codec.open(tiny_latents).decode(held_out.draw(torch.arange(12))).permute(0, 2, 3, 1).numpy()
    drawn = np.load(run.parent / "kept/samples.npz")["arr_0"]
    assert np.abs(drawn[:, :, :4].astype(int) - given[:, :, :4]).max() <= 1


@pytest.mark.parametrize(
    "settings, named",
    [
        (["sample", "run=run", "weights=best"], "weights"),
        (["sample", "run=run", "weights=null"], "weights: nothing was given"),
        (["sample", "run=run", "precision=half"], "precision: got 'half'"),
        (["sample", "run=run", "images_seen=7"], "images_seen"),
        (["sample", "run=run", "task=dream"], "task"),
        (
            ["sample", "run=run", "labels=[3,10]"],
            "labels: got 10; allowed: balanced or random, or classes by number (0 to 9)",
        ),
        (["sample", "run=run", "labels=[]"], "labels: got []"),
        (["sample", "run=run", "labels=[three]"], "labels: got 'three'"),
        (["sample", "run=run", "labels=[3]", "task=inpaint"], "labels"),
        (["sample", "run=run", "guidance=classifier"], "guidance"),
        (["evaluate"], "run"),
        (["evaluate", "run=run", "evaluation=none"], "evaluation"),
    ],
)
def test_bad_requests_are_one_message(run, settings, named):
    found = dit(*settings, cwd=run.parent, check=2)
    assert named in found.stderr and "Traceback" not in found.stderr
    assert not (run / "drawn").exists()


def test_a_run_that_is_not_there_leaves_no_folder(tmp_path):
    dit("sample", "run=runs/none", cwd=tmp_path, check=2)
    assert not list(tmp_path.iterdir())
