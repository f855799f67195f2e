"""Every named objective trains on real digits: 50 steps through the real trainer, a finite and falling loss."""

import json
import math
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from dit.config.instantiation import config_dir
from dit.data.autoencoder import Identity
from dit.data.encode import encode_dataset
from dit.data.images import DigitTokens
from dit.data.split import Stratified
from dit.verbs import train
from tests.conftest import TINY

ROWS = sorted(path.stem for path in (Path(config_dir()) / "objective").glob("[!_]*.yaml"))


@pytest.mark.parametrize("row", ROWS)
def test_trains_fifty_steps_with_a_falling_loss(row, tmp_path, tiny_latents):
    settings = [*TINY, f"objective={row}", f"data.directory={tiny_latents}", f"run_dir={tmp_path / 'run'}"]
    if row == "masked":
        tokens = tmp_path / "tokens"
        encode_dataset(
            tokens, DigitTokens(), Identity(), Stratified(297), name="digit_tokens", normalise="none"
        )
        settings = [word for word in settings if not word.startswith("data.")]
        settings += ["data=digit_tokens", f"data.directory={tokens}", "network.patch_size=1"]
    length = ["duration.images=null", "duration.steps=50", "log_every_images=32", "optimizer.lr=0.005"]
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("train", overrides=[*settings, *length, "evaluation=none"])
    train.task(cfg)
    rows = [json.loads(line) for line in (tmp_path / "run/records.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in rows if record["kind"] == "train"]
    assert len(losses) == 50 and all(map(math.isfinite, losses))
    assert sum(losses[-10:]) < 0.97 * sum(losses[:10]), losses
    validation = [record for record in rows if record["kind"] == "validation"]
    assert {record["weights"] for record in validation} == {"raw", "ema"}
    assert all(
        math.isfinite(value) for record in validation for value in [record["loss"], *record["loss_bins"]]
    )
    assert all(len(record["loss_bins"]) >= 8 for record in validation)
