"""The processes that share one piece of work: how many, which one this is, and how they meet.

``torchrun`` and ``srun`` start processes and say so in the environment; a plain ``python`` is alone, or starts its
siblings itself (``in_processes``). Imports torch only where processes meet.
"""

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn

from dit import signals
from dit.errors import EXIT_RESUMABLE, InputError, RunError

# Longer than any rank may be ahead of another: one writes a big checkpoint, or measures samples.
PATIENCE = timedelta(hours=2)
LAST_SECONDS = 5.0  # that processes have to end after a second Ctrl-C, before they are killed


@dataclass(frozen=True)
class World:
    """One process among those that share the work.

    Attributes:
        rank: this process, from 0.
        size: how many there are.
        local_rank: this process among those of its node.
        local_size: how many the node has.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @classmethod
    def of_launcher(cls, environment: Mapping[str, str] = os.environ) -> "World":
        """What torchrun or srun says; a world of one where neither started this process.

        The batch script of a SLURM job is alone, however many tasks the job has: only a step's processes are ranks.
        """
        if "RANK" in environment and "WORLD_SIZE" in environment:
            names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
            given = {"LOCAL_RANK": environment["RANK"], "LOCAL_WORLD_SIZE": environment["WORLD_SIZE"]}
            return cls(*(_number(name, {**given, **environment}) for name in names))
        if "SLURM_STEP_NUM_TASKS" in environment and _number("SLURM_STEP_NUM_TASKS", environment) > 1:
            size = _number("SLURM_STEP_NUM_TASKS", environment)
            nodes = _number("SLURM_STEP_NUM_NODES", {"SLURM_STEP_NUM_NODES": "1", **environment})
            if size % nodes:
                raise InputError(
                    "srun --ntasks",
                    size,
                    f"the same number on each of {nodes} nodes",
                    "Use --ntasks-per-node.",
                )
            rank, local_rank = (_number(name, environment) for name in ("SLURM_PROCID", "SLURM_LOCALID"))
            return cls(rank, size, local_rank, size // nodes)
        return cls()

    def meet(self, device_type: str, environment: Mapping[str, str] = os.environ) -> None:
        """Joins the others in torch's default process group: gloo on CPUs, NCCL beside it on GPUs."""
        import torch

        if torch.distributed.is_initialized():
            return
        if device_type == "cuda":
            torch.cuda.set_device(self.local_rank)
        backend = "cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo"
        host, port = ("127.0.0.1", _free_port()) if self.size == 1 else _rendezvous(environment)
        if self.size > 1 and environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            _check_agent(host, port)
        url = f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
        torch.distributed.init_process_group(
            backend, url, rank=self.rank, world_size=self.size, timeout=PATIENCE
        )


def part() -> None:
    """Leaves the process group, once every rank is here: nobody's last message is lost."""
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def leave(code: int) -> NoReturn:
    """Ends a rank at once with its output flushed: in the interpreter's own way out, gloo's threads sometimes abort."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def same_everywhere(world: World, make: Callable[[], Any]) -> Any:
    """What ``make`` returns, unless it fails on any rank: then every rank raises that error instead of waiting.

    Raises:
        Exception: this rank's own, or the first other rank's.
    """
    if world.size == 1:
        return make()
    import torch

    value, error = None, None
    try:
        value = make()
    except Exception as found:
        error = found
    errors: list[Any] = [None] * world.size
    torch.distributed.all_gather_object(errors, error)
    for found in errors:
        if found is not None:
            raise error if error is not None else found
    return value


def of_rank_0(world: World, value: Any) -> Any:
    """What rank 0 has, on every rank."""
    if world.size == 1:
        return value
    import torch

    values = [value]
    torch.distributed.broadcast_object_list(values, src=0)
    return values[0]


def in_processes(count: int, work: Callable[..., None], *arguments: Any) -> int:
    """Runs ``work(*arguments)`` in processes of this machine that meet as a world of ``count``; the largest exit code.

    Stop signals that reach this process are passed on to all of them. ``work`` and its arguments must be picklable.
    """
    port = _free_port()
    context = get_context("spawn")
    children: list[BaseProcess] = []
    for rank in range(count):
        shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        children.append(context.Process(target=_rank, args=({**shared, **own, **meeting}, work, arguments)))
    # They must not die of a signal before they listen: it waits until then. The tracker's start would undo that.
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals.STOP_SIGNALS)
    for child in children:
        child.start()
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        _wait(children)
    except signals.Interrupted:
        _end_now(children)
        raise
    codes = [child.exitcode or 0 for child in children]
    failures = [code for code in codes if code > 0]
    return max(failures) if failures else (1 if any(codes) else 0)


def _wait(children: list[BaseProcess]) -> None:
    """Returns when all have ended; passes on what this process is told meanwhile."""
    passed_on: set[int] = set()
    while any(child.is_alive() for child in children):
        for child in children:
            child.join(0.1)
        if any(child.exitcode not in (None, 0, EXIT_RESUMABLE) for child in children):
            for child in children:  # the others would wait for the dead one
                child.kill()
        for number in signals.received():
            if number not in passed_on:
                passed_on.add(number)
                tell(children, signal.SIGTERM if number == signal.SIGINT else number)


def in_child(command: Sequence[str]) -> int:
    """The exit code of a command that ends with this process, and is asked to when this one is."""
    parent = os.getpid()
    child = subprocess.Popen(command, preexec_fn=lambda: signals.die_with(parent))
    while child.poll() is None:
        if signals.stop_requested():
            child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(0.2)
    return child.returncode


def tell(children: Iterable[BaseProcess], number: int) -> None:
    """Sends a signal to those of our processes that live."""
    for child in children:
        if child.is_alive() and child.pid:
            os.kill(child.pid, number)


def _end_now(children: list[BaseProcess]) -> None:
    tell(children, signals.NOW)
    deadline = time.monotonic() + LAST_SECONDS
    for child in children:
        child.join(max(0.0, deadline - time.monotonic()))
        child.kill()


def begin_child() -> None:
    """In a process that multiprocessing has spawned for this one: it dies with its parent."""
    parent = parent_process()
    assert parent is not None and parent.pid is not None, "spawned"
    signals.die_with(parent.pid)


def _rank(environment: dict[str, str], work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    begin_child()
    signals.listen()
    # Ctrl-C reaches the whole foreground group; the parent passes it on as SIGTERM, and once is enough
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.STOP_SIGNALS)
    os.environ.update(environment)
    work(*arguments)


def _rendezvous(environment: Mapping[str, str]) -> tuple[str, int]:
    """Host and port of rank 0: what the launcher says; in a SLURM step its first node, and a port of its own."""
    if {"MASTER_ADDR", "MASTER_PORT"} <= set(environment) or "SLURM_STEP_NODELIST" not in environment:
        if not environment.get("MASTER_ADDR"):
            remedy = "A launcher sets it: torchrun, srun."
            raise InputError("MASTER_ADDR", "(nothing)", "the host of rank 0", remedy)
        return environment["MASTER_ADDR"].strip("[]"), _number("MASTER_PORT", environment)
    # Steps and restarts of one job may overlap on a node, so each has a port of its own.
    job, step = (_number(name, environment) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    restart = _number("SLURM_RESTART_COUNT", {"SLURM_RESTART_COUNT": "0", **environment})
    return _first_node(environment["SLURM_STEP_NODELIST"]), 15000 + (
        job * 131 + step * 17 + restart * 7
    ) % 17000


def _number(name: str, environment: Mapping[str, str]) -> int:
    """A whole number that a launcher has put into the environment."""
    text = environment.get(name)
    if text is None or not re.fullmatch(r"\d+", text):
        raise InputError(name, text or "(nothing)", "a whole number", "A launcher sets it: torchrun, srun.")
    return int(text)


def _first_node(nodes: str) -> str:
    """The first of a SLURM node list in any of its forms: ``a07`` of ``a[07-09,12],b1``, ``r1n2`` of ``r[1-3]n[2,4]``.

    SLURM's own command knows; where a container has none, the first number of each bracket is the first node's.
    """
    with suppress(OSError, subprocess.SubprocessError):
        command = ["scontrol", "show", "hostnames", nodes]
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
        if found:
            return found[0]
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])+", nodes)
    assert first, nodes
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first[0])


def _check_agent(host: str, port: int) -> None:
    """Without the agent of torchrun, which keeps the store where ranks meet, they would wait for ``PATIENCE``."""
    try:
        socket.create_connection((host, port), timeout=60).close()
    except OSError as error:
        raise RunError(f"torchrun is not there any more ({host}, port {port}: {error})") from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
