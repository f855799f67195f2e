"""Fifty SIGKILLs of whoever started the processes of a run: nobody goes on, at whatever moment it comes."""

import os
import random
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from tests.conftest import TINY

PATIENCE = 30.0
ENDLESS = [*TINY, "evaluation=none", "duration.images=10000000", "hardware.workers=1", "run_dir=run"]
STUDY = [
    "study.directory=.",
    "study.widths=[16,32]",
    "study.force=true",
    "study.budgets_flops=[1.5e12,4.74e12]",
    "hydra.launcher.jobs=2",
]
STARTERS = {
    "agent": [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "-m",
        "dit",
        "train",
        *ENDLESS,
    ],
    "launcher": ["-m", "dit", "train", *ENDLESS, "hardware.processes=2"],
    "driver": ["-m", "dit", "study", "experiment=digits", *TINY, "evaluation=none", *STUDY],
}


def living(mark: str) -> list[int]:
    """The processes that inherited an entry of the environment, and are no zombies."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z" and mark.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:  # it has just ended, or is another user's
            continue
    return found


def kill_once(who: str, latents: Path, folder: Path, rng: random.Random) -> tuple[int, float]:
    """How many processes a killed starter had, and the seconds until all were gone."""
    mark = f"DIT_TEST_MARK={uuid.uuid4()}"
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, *STARTERS[who], f"data.directory={latents}"],
        cwd=folder,
        env={**os.environ, **dict([mark.split("=")])},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + rng.choice([rng.uniform(0, 20), 120])  # while it starts, or once it trains
    try:
        while time.monotonic() < deadline and not list(folder.rglob("status.json")):
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 2))
        begun = len(living(mark))
        process.kill()
        process.wait()
        killed = time.monotonic()
        while (left := living(mark)) and time.monotonic() - killed < PATIENCE:
            time.sleep(0.05)
        assert not left, f"{len(left)} of {begun} processes of a killed {who} live on"
    finally:  # these runs have no end of their own
        for pid in living(mark):
            os.kill(pid, 9)
    return begun, time.monotonic() - killed


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("who", "times"), [("agent", 17), ("launcher", 17), ("driver", 16)])
def test_nobody_is_left_after_a_kill(who, times, tmp_path, tiny_latents):
    rng = random.Random(who)
    found = [kill_once(who, tiny_latents, tmp_path / str(index), rng) for index in range(times)]
    print(
        f"{who}: {times} kills, up to {max(n for n, _ in found)} processes, {max(s for _, s in found):.2f} s"
    )
    assert max(n for n, _ in found) >= 3
