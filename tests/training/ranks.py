"""Runs of several processes on this machine, forked from a server that has imported torch and Lightning, once.

The server computes nothing: torch's threads, which tests may have started in their own process, survive no fork.
"""

import itertools
import multiprocessing
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import cloudpickle

from tests.conftest import TINY

RUN = ["duration.images=1536", "evaluation=none", "checkpoint_every_images=192", "log_every_images=96"]
DEADLINE = 120  # seconds; a run takes about two
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["dit.training.engine", "dit.verbs.train"])


def _child(arguments: list[str], cwd: Path, environment: dict[str, str], patch: bytes) -> None:
    from hydra.core.global_hydra import GlobalHydra

    from dit import cli, rundir

    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for number, name in ((1, "stdout.txt"), (2, "stderr.txt")):
        os.dup2(os.open(cwd / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))  # pytest has its own
    GlobalHydra.instance().clear()
    # a commit made while the tests run is no difference between two runs
    rundir.git_commit = lambda: "0" * 40
    try:
        cloudpickle.loads(patch)(int(environment.get("RANK", 0)))
    except BaseException:
        traceback.print_exc()
        raise
    cli.main(arguments)


def start(
    arguments: list[str],
    cwd: Path,
    world: int = 1,
    per_node: int | None = None,
    patch: Callable[[int], None] = lambda rank: None,
) -> list:
    """``dit ...`` as each of ``world`` ranks, as torchrun would start them.

    Args:
        arguments: after ``dit``.
        cwd: where; stderr.txt gathers what they say.
        world: how many.
        per_node: ranks of one pretended node; None is all.
        patch: rank -> changes to make in that process before it begins.
    """
    per_node = per_node or world
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = []
    for rank in range(world):
        environment = {
            "RANK": str(rank),
            "WORLD_SIZE": str(world),
            "LOCAL_RANK": str(rank % per_node),
            "LOCAL_WORLD_SIZE": str(per_node),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        inherited = {**os.environ, **(environment if world > 1 else {})}
        process = SERVER.Process(target=_child, args=(arguments, cwd, inherited, cloudpickle.dumps(patch)))
        process.start()
        processes.append(process)
    return processes


def end(processes: list) -> list[int | None]:
    """The exit codes, once all have ended; what hangs is killed and has None."""
    deadline = time.monotonic() + DEADLINE
    codes = []
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        codes.append(process.exitcode)
    for process in processes:
        if process.is_alive():
            process.kill()
            process.join()
    return codes


def run(arguments: list[str], cwd: Path, world: int = 1, code: int = 0, **settings) -> None:
    """``start`` and ``end``, all with the exit code expected."""
    codes = end(start(arguments, cwd, world, **settings))
    assert codes == [code] * world, f"{codes}\n{(cwd / 'stderr.txt').read_text()}"


def command(latents: Path, name: str, *more: str) -> list[str]:
    """``train`` of a tiny run into the folder ``name``."""
    return ["train", *TINY, *RUN, f"data.directory={latents}", f"run_dir={name}", "run_name=run", *more]


def killed_at(step: int):
    """A patch that kills the process at a step."""

    def patch(rank: int) -> None:
        from dit.training.module import DiffusionModule

        original, calls = DiffusionModule.clip_and_step, itertools.count(1)

        def dying(*arguments):
            if next(calls) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments)

        DiffusionModule.clip_and_step = dying  # pyright: ignore[reportAttributeAccessIssue]

    return patch


def files(directory: Path) -> dict[str, bytes]:
    """What must be equal: the records, and every checkpoint that is kept, file by file."""
    kept = [directory / "records.jsonl", *sorted((directory / "checkpoints").rglob("*.safetensors"))]
    return {str(path.relative_to(directory)): path.read_bytes() for path in kept}


def wait_for(path: Path) -> None:
    """Returns once a file is there."""
    deadline = time.monotonic() + DEADLINE
    while not path.exists():
        assert time.monotonic() < deadline, f"no {path}"
        time.sleep(0.005)
