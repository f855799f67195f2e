"""``dit export``: what is written is what the run's checkpoint holds, and names the denoiser it belongs to."""

import pytest
import torch

from dit.condition import labelled
from tests.conftest import dit
from tests.training import ranks


@pytest.fixture(scope="module")
def run(tiny_latents, tmp_path_factory):
    """A run with two averages and a snapshot of them every 192 images."""
    folder = tmp_path_factory.mktemp("run")
    more = ["averages=post_hoc", "averages.ema.sigma_rel=0.15", "keep_every_images=192"]
    ranks.run(ranks.command(tiny_latents, "run", *more), folder)
    return folder / "run"


def test_the_file_is_the_checkpoints_denoiser(run, tmp_path):
    from dit.config.run import load_run
    from dit.verbs.export import load_exported

    dit("export", f"run={run}", f"out={tmp_path / 'a.safetensors'}", cwd=tmp_path, check=0)
    found = load_exported(tmp_path / "a.safetensors")
    expected = load_run(run, "ema", None, torch.device("cpu")).denoiser
    assert (found.path, found.target) == (expected.path, expected.target)
    x, t = torch.randn(3, 3, 8, 8), torch.rand(3)
    told = labelled(torch.arange(3))
    assert torch.equal(found(x, t, told).x0, expected(x, t, told).x0)
    again = dit("export", f"run={run}", f"out={tmp_path / 'a.safetensors'}", cwd=tmp_path, check=2)
    assert "out" in again.stderr and "a.safetensors" in again.stderr


def test_an_average_of_a_width_that_was_not_followed(run, tiny_latents, tmp_path):
    """Made from two stored widths, against a run of the same seed that follows it: within 1 % of how far they moved."""
    from dit.config.run import load_run

    ranks.run(ranks.command(tiny_latents, "direct", "averages.ema.sigma_rel=0.1"), tmp_path)
    made, direct, raw = (
        dict(load_run(path, weights, None, torch.device("cpu")).denoiser.network.named_parameters())
        for path, weights in ((run, "power:0.1"), (tmp_path / "direct", "ema"), (run, "raw"))
    )
    error = sum(float((made[name] - direct[name]).square().sum()) for name in direct)
    moved = sum(float((raw[name] - direct[name]).square().sum()) for name in direct)
    assert error**0.5 < 0.01 * sum(float(v.square().sum()) for v in direct.values()) ** 0.5
    assert error < 0.1 * moved


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["out=x"], "run"),
        (["run=RUN"], "out"),
        (["run=RUN", "out=nowhere/x"], "out"),
        (["run=RUN", "out=x", "format=onnx"], "format"),
        (["run=RUN", "out=x", "format=diffusers"], "autoencoder_directory"),
        (["run=RUN", "out=x", "weights=power:2"], "sigma_rel"),
        (["run=RUN", "out=x", "weights=power:wide"], "weights"),
        (["run=RUN", "out=x", "weights=best"], "weights"),
    ],
)
def test_mistakes_are_one_message(run, tmp_path, arguments, key):
    asked = [argument.replace("RUN", str(run)) for argument in arguments]
    found = dit("export", *asked, cwd=tmp_path, check=2)
    assert key in found.stderr and "Traceback" not in found.stderr and not (tmp_path / "x").exists()
