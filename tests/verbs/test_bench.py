"""``dit bench``: its figures hang together, and are those of the steps that training makes."""

import json
import os
import subprocess
import sys

import hydra
import pytest

from dit.config.instantiation import config_dir
from dit.errors import InputError
from dit.network.dit import DiT
from dit.training.averaging import Averages
from dit.verbs import bench
from tests.conftest import SYNTHETIC, TINY

SMALL = [*TINY, "steps=2", "warm_up=1", "format=json"]


def run(*overrides):
    with hydra.initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = hydra.compose("bench", [*SMALL, *overrides])
    bench.task(cfg)


def figures(capsys, *overrides):
    run(*overrides)
    return json.loads(capsys.readouterr().out)


def check(found, batch_size=32):
    assert found["images_per_second"] * found["step_seconds"] == pytest.approx(batch_size)
    assert set(found["part_seconds"]) == {"data", "forward", "backward", "optimizer", "ema", "rest"}
    assert sum(found["share"].values()) == pytest.approx(1)
    own = ("forward", "backward", "optimizer")
    assert found["outside_network_share"] == pytest.approx(1 - sum(found["share"][part] for part in own))
    assert found["mfu"] is None and found["peak_memory_bytes"] > 2**27


def test_train_figures_hang_together(capsys):
    found = figures(capsys, *SYNTHETIC, "averages=post_hoc", "optimizer=muon")
    check(found)
    # 6 x multiply-adds per image of the closed form, which tests/network checks against published counts
    rate = found["train_flops_per_second"] / found["images_per_second"]
    macs = (
        1 * (12 * 16**2 * 16 + 2 * 16**2 * 16 + 6 * 16**2) + 2 * (12 * 16 * 16) + 2 * 16**2 + 256 * 16 + 16**2
    )
    assert rate == pytest.approx(6 * macs)
    assert (found["strategy"], found["averages"], found["latents"]) == ("single", 2, "synthetic")


def test_real_latents_and_the_loader_alone(capsys, tiny_latents):
    check(figures(capsys, f"data.directory={tiny_latents}", "latents=data", "activation_checkpointing=full"))
    found = figures(capsys, f"data.directory={tiny_latents}", "what=data")
    assert found["images_per_second"] * found["step_seconds"] == pytest.approx(32)


def test_sampling_counts_the_calls_of_the_solver(capsys):
    found = figures(capsys, *SYNTHETIC, "what=sample", "grid.n_steps=3", "batch_size=4")
    assert found["nfe"] == 6  # Euler, with and without the label
    assert found["images_per_second"] > 0


def test_each_part_is_timed_as_itself(capsys, monkeypatch):
    """On a clock that only two parts move, the others take no time."""
    clock = 0.0

    def slowed(function, seconds):
        def wrapper(*args, **kwargs):
            nonlocal clock
            clock += seconds
            return function(*args, **kwargs)

        return wrapper

    monkeypatch.setattr("time.perf_counter", lambda: clock)
    monkeypatch.setattr(DiT, "forward", slowed(DiT.forward, 5.0))
    monkeypatch.setattr(Averages, "update", slowed(Averages.update, 3.0))
    found = figures(capsys, *SYNTHETIC, "accumulation=2")
    parts = {"data": 0, "forward": 10, "backward": 0, "optimizer": 0, "ema": 3, "rest": 0}
    assert found["part_seconds"] == pytest.approx(parts)
    assert found["step_seconds"] == pytest.approx(13)
    assert found["outside_network_share"] == pytest.approx(3 / 13)


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["what=dinner"], "what"),
        (["latents=fresh"], "latents"),
        (["latent_shape=[3,8,8]"], "latent_shape"),
        (["latent_shape=[3]", "num_classes=10"], "latent_shape"),  # no axis
        ([*SYNTHETIC, "latents=data"], "latent_shape"),
        ([*SYNTHETIC, "steps=0"], "steps"),
        ([*SYNTHETIC, "strategy=ring"], "strategy"),
        ([*SYNTHETIC, "accumulation=3"], "batch_size"),
    ],
)
def test_what_cannot_be_measured_is_refused(overrides, key):
    with pytest.raises(InputError, match=key):
        run(*overrides)


def test_two_processes_share_a_step_and_one_reports(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [
        "-m",
        "dit",
        "bench",
        "train",
        "steps=2",
        "warm_up=1",
        "format=json",
        *SYNTHETIC,
        "strategy=fsdp",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    check(found)
    assert (found["processes"], found["strategy"]) == (2, "fsdp")
