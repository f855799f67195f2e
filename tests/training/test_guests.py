"""Masked tokens and consistency training through the verbs: trained, killed and resumed, on two processes, sampled."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from dit.data.autoencoder import Identity
from dit.data.encode import encode_dataset
from dit.data.images import DigitTokens
from dit.data.split import Stratified
from tests.conftest import TINY
from tests.training import ranks
from tests.training.test_distributed import comparable, losses, weights

OBJECTIVES = {
    "masked": ["data=digit_tokens", "objective=masked", "network.patch_size=1"],
    "consistency": ["method=consistency", "objective=edm_unit_variance", "method.doubling_examples=512"],
}
SAMPLED = {
    "masked": ["solver=unmask", "grid.n_steps=4", "guidance.scale=2"],
    "consistency": [
        "solver=consistency",
        "grid=karras",
        "grid.n_steps=2",
        "grid.sigma_min=0.8",
        "guidance=none",
    ],
}


@pytest.fixture(scope="module")
def digit_tokens(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("tokens") / "latents"
    encode_dataset(
        directory, DigitTokens(), Identity(), Stratified(297), name="digit_tokens", normalise="none"
    )
    return directory


@pytest.fixture(params=OBJECTIVES, scope="module")
def guest(request, tiny_latents, digit_tokens, tmp_path_factory) -> tuple[str, list[str], Path]:
    """Name, command and folder; the undisturbed run is in the folder."""
    tokens = request.param == "masked"
    kept = [word for word in TINY if not (tokens and word.startswith("data."))]
    place = f"data.directory={digit_tokens if tokens else tiny_latents}"
    length = ["duration.images=1536", "evaluation=none", "checkpoint_every_images=192", "log_every_images=32"]
    words = ["train", *kept, *OBJECTIVES[request.param], *length, place, "run_name=run", "optimizer.lr=0.005"]
    folder = tmp_path_factory.mktemp(request.param)
    ranks.run([*words, "run_dir=run"], folder)
    return request.param, words, folder


def test_its_loss_falls_and_its_records_say_what_it_is(guest):
    name, _, folder = guest
    rows = [json.loads(line) for line in (folder / "run" / "records.jsonl").read_text().splitlines()]
    found = [row["loss"] for row in rows if row["kind"] == "train"]
    assert len(found) == 48 and np.mean(found[-10:]) < 0.9 * np.mean(found[:10])
    units = {row["unit"] for row in rows if row["kind"] == "validation"}
    passes = 6 if name == "masked" else 8
    assert units == {"nats per token" if name == "masked" else "squared velocity error per dimension"}
    assert rows[0]["train_flops_per_image"] == passes * rows[0]["macs_per_image"]
    assert rows[-1]["train_flops"] == 1536 * rows[0]["train_flops_per_image"]


def test_a_killed_run_ends_as_the_undisturbed_one(guest, tmp_path):
    _, words, folder = guest
    ranks.run([*words, "run_dir=run"], tmp_path, code=-signal.SIGKILL, patch=ranks.killed_at(20))
    ranks.run([*words, "run_dir=run"], tmp_path)
    assert ranks.files(tmp_path / "run") == ranks.files(folder / "run")


def test_two_processes_that_share_the_network_are_one(guest, tmp_path):
    _, words, folder = guest
    ranks.run([*words, "run_dir=run", "strategy=fsdp"], tmp_path, world=2)
    for clock, loss in losses(folder / "run").items():
        assert losses(tmp_path / "run")[clock] == pytest.approx(loss, rel=1e-4), clock
    found, expected = (comparable(weights(place / "run")) for place in (tmp_path, folder))
    for name, value in expected.items():
        assert (found[name] - value).abs().max() < 1e-4, name


def test_it_is_sampled_and_other_solvers_are_refused(guest):
    name, _, folder = guest
    words = ["sample", "run=run", "n=4", "batch_size=3", *SAMPLED[name]]
    ranks.run([*words, "save=npz"], folder)
    pictures = np.load(folder / "run" / "drawn" / "samples.npz")
    assert (pictures["arr_0"].shape, pictures["arr_0"].dtype) == ((4, 8, 8, 3), np.uint8)
    assert (folder / "run" / "drawn" / "grid.png").exists()
    if name == "masked":
        levels = np.rint(np.arange(17) * 255 / 16)
        assert np.isin(pictures["arr_0"], levels).all() and len(np.unique(pictures["arr_0"])) > 4
        ranks.run(["sample", "run=run", "n=4"], folder, code=2)
        assert "solver=unmask" in (folder / "stderr.txt").read_text().splitlines()[-1]
