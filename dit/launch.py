"""The processes that share one piece of work: how many, which one this is, and how they meet.

``torchrun`` and ``srun`` start processes and say so in the environment; a plain ``python`` is alone, or starts its
siblings itself (``in_processes``). Imports torch only where processes meet.
"""

import ctypes
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import get_context, resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn

from dit import signals
from dit.errors import InputError

# Longer than any rank may be ahead of another: one writes a big checkpoint, or measures samples.
PATIENCE = timedelta(hours=2)
_PR_SET_PDEATHSIG = 1


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
            defaults = {"LOCAL_RANK": environment["RANK"], "LOCAL_WORLD_SIZE": environment["WORLD_SIZE"]}
            return cls(*(int(environment.get(name, defaults.get(name, ""))) for name in names))
        if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
            size = int(environment["SLURM_STEP_NUM_TASKS"])
            nodes = int(environment.get("SLURM_STEP_NUM_NODES", 1))
            if size % nodes:
                raise InputError(
                    "srun --ntasks",
                    size,
                    f"the same number on each of {nodes} nodes",
                    "Use --ntasks-per-node.",
                )
            return cls(
                int(environment["SLURM_PROCID"]), size, int(environment["SLURM_LOCALID"]), size // nodes
            )
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
        torch.distributed.init_process_group(
            backend, f"tcp://{host}:{port}", rank=self.rank, world_size=self.size, timeout=PATIENCE
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
    passed_on: set[int] = set()
    while any(child.is_alive() for child in children):
        for child in children:
            child.join(0.1)
        if any(child.exitcode not in (None, 0, 75) for child in children):
            for child in children:  # the others would wait for the dead one
                child.kill()
        for number in signals.received():
            if number not in passed_on:
                passed_on.add(number)
                for child in children:
                    if child.is_alive() and child.pid:
                        os.kill(child.pid, signal.SIGTERM if number == signal.SIGINT else number)
    codes = [child.exitcode or 0 for child in children]
    failures = [code for code in codes if code > 0]
    return max(failures) if failures else (1 if any(codes) else 0)


def die_with_parent() -> None:
    """Has the kernel kill this process when its parent ends, however it ends (Linux): no orphan goes on writing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _rank(environment: dict[str, str], work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    die_with_parent()
    signals.listen()
    # Ctrl-C reaches the whole foreground group; the parent passes it on as SIGTERM, and once is enough
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.STOP_SIGNALS)
    os.environ.update(environment)
    work(*arguments)


def _rendezvous(environment: Mapping[str, str]) -> tuple[str, int]:
    """Host and port of rank 0: what the launcher says; in a SLURM step its first node, and a port of its own."""
    if "MASTER_ADDR" in environment and "MASTER_PORT" in environment:
        return environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
    nodes = environment["SLURM_STEP_NODELIST"]
    # Steps and restarts of one job may overlap on a node, so each has a port of its own.
    numbers = (environment[name] for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    job, step = (int(number) for number in numbers)
    restart = int(environment.get("SLURM_RESTART_COUNT", 0))
    return _first_node(nodes), 15000 + (job * 131 + step * 17 + restart * 7) % 17000


def _first_node(nodes: str) -> str:
    """The first of a SLURM node list: ``n1`` of ``n1,n3``, ``a07`` of ``a[07-09,12],b1``."""
    match = re.match(r"([^,\[]+)(?:\[([^\]]+)\])?(.*)", nodes)
    assert match, nodes
    prefix, ranges, _ = match.groups()
    return prefix + (re.split(r"[-,]", ranges)[0] if ranges else "")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
