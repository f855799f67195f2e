"""A run killed at any moment ends as the undisturbed run does, byte for byte."""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import TINY

RUN = ["duration.images=1536", "evaluation=none", "checkpoint_every_images=192", "log_every_images=96"]


def _child(arguments, cwd):
    from hydra.core.global_hydra import GlobalHydra

    from dit import cli

    os.chdir(cwd)
    os.dup2(os.open(cwd / "stderr.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    GlobalHydra.instance().clear()
    cli.main(arguments)


def start(arguments, cwd):
    """``dit ...`` in a forked process: torch and Lightning are imported once, here."""
    import dit.training.engine  # noqa: F401

    process = multiprocessing.get_context("fork").Process(target=_child, args=(arguments, cwd))
    process.start()
    return process


def command(tiny_latents, name, flops):
    return [
        "train",
        *TINY,
        *RUN,
        f"data.directory={tiny_latents}",
        f"read_at_flops=[{flops}]",
        f"run_dir={name}",
        "run_name=run",
    ]


def files(run: Path) -> dict[str, bytes]:
    """What must be equal: the records, and every checkpoint that is kept, file by file."""
    kept = [run / "records.jsonl", *sorted((run / "checkpoints").rglob("*.safetensors"))]
    return {str(path.relative_to(run)): path.read_bytes() for path in kept}


@pytest.fixture(scope="module")
def flops():
    """A budget in the middle of the run: 768 images of the tiny network."""
    from dit.network.counting import count
    from dit.network.presets import ladder

    per_image = count(ladder(16, aspect=16, head_dim=16), (3, 8, 8), 10).train_flops_per_image
    return float(768 * per_image)


def _kill_and_compare(tmp_path, tiny_latents, flops, kills):
    undisturbed = start(command(tiny_latents, "undisturbed", flops), tmp_path)
    begun = time.monotonic()
    undisturbed.join()
    assert undisturbed.exitcode == 0, (tmp_path / "stderr.txt").read_text()
    length = time.monotonic() - begun
    rng = random.Random(0)
    killed = 0
    while True:
        process = start(command(tiny_latents, "killed", flops), tmp_path)
        if killed < kills:
            process.join(rng.uniform(0.3, 0.9) * length)
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
                killed += 1
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL, (tmp_path / "stderr.txt").read_text()
    assert files(tmp_path / "killed") == files(tmp_path / "undisturbed")
    return killed


def test_a_killed_run_ends_as_the_undisturbed_one(tmp_path, tiny_latents, flops):
    assert _kill_and_compare(tmp_path, tiny_latents, flops, kills=3) >= 1


@pytest.mark.slow
def test_killed_twenty_times(tmp_path, tiny_latents, flops):
    total = 0
    for attempt in range(10):
        (folder := tmp_path / str(attempt)).mkdir()
        total += _kill_and_compare(folder, tiny_latents, flops, kills=4)
    assert total >= 20


def test_a_stop_signal_ends_in_a_checkpoint_and_exit_75(tmp_path, tiny_latents, flops):
    for number in (signal.SIGTERM, signal.SIGUSR1):
        name = f"stopped-{number}"
        process = start(command(tiny_latents, name, flops), tmp_path)
        deadline = time.monotonic() + 60
        while not (tmp_path / name / "checkpoints").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(process.pid, number)
        process.join(60)
        assert process.exitcode == 75, (tmp_path / "stderr.txt").read_text()
        resumed = start(command(tiny_latents, name, flops), tmp_path)
        resumed.join()
        assert resumed.exitcode == 0
    undisturbed = start(command(tiny_latents, "undisturbed", flops), tmp_path)
    undisturbed.join()
    for number in (signal.SIGTERM, signal.SIGUSR1):
        one, other = tmp_path / f"stopped-{number}", tmp_path / "undisturbed"
        assert (one / "records.jsonl").read_bytes() == (other / "records.jsonl").read_bytes()


def test_a_run_in_use_is_refused(tmp_path, tiny_latents, flops):
    from dit.errors import InputError
    from dit.rundir import RunDirectory

    held = RunDirectory(tmp_path / "run", "hash", "")
    with pytest.raises(InputError, match="run_dir"):
        RunDirectory(tmp_path / "run", "hash", "")
    held.close()
    RunDirectory(tmp_path / "run", "hash", "").close()
