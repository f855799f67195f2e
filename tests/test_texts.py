"""Pictures told by captions through every verb: encoded, trained, killed, shared, counted, drawn from a prompt."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dit.config.files import read_yaml
from dit.config.parts import Parts
from dit.data.latents import LatentSet
from dit.data.manifest import domain_of
from tests.test_arrays import RUN
from tests.training import ranks
from tests.training.test_distributed import comparable

DATA = [
    "data=digits",
    "autoencoder=identity",
    "data.image_size=8",
    "condition=bytes",
    "condition.spec.text.length=12",
]
TRAIN = ["train", *DATA, "network=ladder_text", "network.patch_size=4", "network.rope=true", *RUN]
LATENTS = Path("latents/digits-identity-bytes")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Latents of the digits and their captions, and a run of 50 steps."""
    folder = tmp_path_factory.mktemp("texts")
    ranks.run(["encode", *DATA], folder)
    ranks.run([*TRAIN, "run_dir=run"], folder)
    return folder


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in rows(run) if row["kind"] == "train"]


def test_the_loss_falls_and_a_killed_run_ends_as_the_undisturbed_one(folder):
    assert len(losses(folder / "run")) == 50
    assert np.mean(losses(folder / "run")[-10:]) < 0.85 * np.mean(losses(folder / "run")[:10])
    ranks.run([*TRAIN, "run_dir=killed"], folder, code=-signal.SIGKILL, patch=ranks.killed_at(40))
    ranks.run([*TRAIN, "run_dir=killed"], folder)
    whole, killed = (ranks.files(folder / name) for name in ("run", "killed"))
    assert killed.pop("records.jsonl").replace(b'"killed"', b'"run"') == whole.pop("records.jsonl")
    assert killed == whole


def test_two_processes_share_the_run_of_one(folder):
    from dit.training.saving import CheckpointManager

    ranks.run([*TRAIN, "run_dir=shared", "strategy=fsdp"], folder, 2)
    assert losses(folder / "shared") == pytest.approx(losses(folder / "run"), rel=1e-5)
    one, two = (
        CheckpointManager(folder / name / "checkpoints").latest().read() for name in ("run", "shared")
    )
    one, two = comparable(one), comparable(two)
    assert any("text_embedder" in name for name in one) and one.keys() == two.keys()
    for name, value in one.items():
        if not name.endswith(
            ("kv.bias", "null")
        ):  # keys' biases and what few samples are told: rounding, times Adam
            assert (two[name] - value).abs().max() < 1e-5, name


def test_its_flops_are_those_of_torch(folder):
    """Of one sample with a text, keys and values of its tokens included."""
    held_out, row = LatentSet(folder / LATENTS, "validation"), rows(folder / "run")[0]
    config, domain = Parts(read_yaml(folder / "run" / "config.yaml")).network, domain_of(held_out.manifest)
    network = config.build(domain, held_out.kind)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, *domain.shape), torch.zeros(1), held_out.condition(torch.tensor([0])))
    assert counter.get_total_flops() == 2 * row["macs_per_image"]
    assert row["n_params_total"] == sum(parameter.numel() for parameter in network.parameters())


def drawn(folder: Path, *more: str) -> np.ndarray:
    sampling = ["n=4", "grid.n_steps=4", "save=npz", "weights=raw", "out=drawn"]
    ranks.run(["sample", "run=run", *sampling, *more], folder)
    return np.load(folder / "drawn" / "samples.npz")["arr_0"].astype(int)


def test_samples_follow_their_prompt(folder):
    """Without one, the captions of the held-out images; the empty text is the null condition, where nothing guides.
    Commas and digits are text.
    """
    held_out = LatentSet(folder / LATENTS, "validation")
    assert len(held_out.drawn("balanced", 0, 4)["text"].unique(dim=0)) > 1
    three, other = (drawn(folder, f"prompt={text}", "guidance.scale=3") for text in ("a three", "a 3, or"))
    assert (three != other).any() and (three != drawn(folder, "guidance.scale=3")).any()
    plain, guided = (drawn(folder, "prompt=", f"guidance.scale={scale}") for scale in (1, 4))
    assert np.abs(plain - guided).max() <= 1
    away = drawn(folder, "prompt=a three", "guidance.scale=3", "negative=an eight")
    none = drawn(folder, "prompt=a three", "guidance.scale=3", "negative=")
    assert (away != three).any() and np.abs(none - three).max() <= 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prompt=[1]"], "prompt: got [1]; allowed: one value, or null."),
        (["prompt=7"], None),
        (["negative=x", "guidance=none"], "negative: got 'x'; allowed: a text with guidance=classifier_free"),
        (
            ["negative=x", "guidance.scale=1"],
            "negative: got 'x'; allowed: a text with guidance=classifier_free",
        ),
    ],
    ids=str,
)
def test_prompts_that_say_nothing_are_refused(folder, words, message):
    (folder / "stderr.txt").unlink(missing_ok=True)
    ranks.run(["sample", "run=run", "n=1", "grid.n_steps=1", *words], folder, code=2 if message else 0)
    assert message is None or message in (folder / "stderr.txt").read_text().splitlines()[-1]


def test_a_run_on_labels_takes_no_prompt(folder):
    ranks.run(["encode", *DATA[:3]], folder)
    ranks.run(["train", *DATA[:3], *RUN, "duration.images=32", "run_dir=labels"], folder)
    ranks.run(["sample", "run=labels", "n=1", "prompt=a three"], folder, code=2)
    told = (folder / "stderr.txt").read_text().splitlines()[-1]
    assert (
        "prompt: got (a run on latents/digits-identity, which holds no texts); allowed: a run told texts"
        in told
    )
    ranks.run([*TRAIN[:1], *DATA[:3], "network=ladder_text", *RUN, "run_dir=x"], folder)
    ranks.run(["train", *DATA, *RUN, "run_dir=y"], folder, code=2)
    told = (folder / "stderr.txt").read_text().splitlines()[-1]
    assert "network.conditioning: got 'adaln_zero'; allowed: cross_attention or" in told
