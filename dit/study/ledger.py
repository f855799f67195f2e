"""Where the runs of a study stand, decided from files and SLURM's queue, never from a living driver.

Each run writes its own ``status.json`` (SLURM calls a job that raised COMPLETED), and each driver notes what it hands
to a launcher before it does so. Every file has one writer and is replaced whole. Imports no torch.

    planned   nothing has begun
    queued    it waits in SLURM's queue, for the first time or again, or for a worker of a living driver
    running   it said so within STALE_SECONDS
    stale     it said so longer ago, or its process is gone: killed, or hangs
    stopped   on request, with a checkpoint; or at an end that the plan has moved since
    failed    it raised; its message says what
    done      at its planned end
    unreadable  its status.json is damaged; it is taken up from its newest checkpoint
"""

import logging
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dit.errors import InputError
from dit.locks import is_held
from dit.rundir import LOCK
from dit.study.files import read_plan, run_status
from dit.study.launches import Launch, Launches, SlurmQueue, is_alive, slurm_queue

log = logging.getLogger("dit")

STALE_SECONDS = 300  # without a heartbeat: the process is gone or hangs
STATES = ("planned", "queued", "running", "stale", "stopped", "failed", "done", "unreadable")


@dataclass(frozen=True)
class Entry:
    """One planned run and how far it is.

    Attributes:
        name: of the run.
        state: one of STATES.
        held: whether a launcher or a process still has it, so that launching it again would run it twice.
        plan: its entry in plan.json.
        status: its status.json, empty before it began.
    """

    name: str
    state: str
    held: bool
    plan: dict[str, Any]
    status: dict[str, Any]

    @property
    def images_seen(self) -> int:
        return int(self.status.get("images_seen", 0))

    @property
    def total_images(self) -> int:
        return int(self.plan["readings"][-1]["images"])

    @property
    def flops(self) -> float:
        return float(self.plan["flops"])

    @property
    def reason(self) -> str:
        """Why it is not done, in words."""
        if self.state in ("failed", "unreadable"):
            return str(self.status.get("message", "it raised"))
        if self.state == "planned" and self.plan.get("branch_of"):
            return f"{self.plan['branch_of']}, which it begins from, is not done"
        reasons = {
            "planned": "it ended before it wrote anything; see the launcher's log",
            "stale": "its process was killed, or hangs",
            "stopped": "it was stopped on request",
        }
        return reasons.get(self.state, self.state)


class Ledger:
    """The runs of one study directory.

    Args:
        directory: of the study.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.launches = Launches(directory)

    def run_directory(self, name: str) -> Path:
        """Where a run of this study lies."""
        return self.directory / "runs" / name

    def entries(self) -> list[Entry]:
        """Every planned run with its state; without a plan, the runs that lie in the directory itself.

        Raises:
            InputError: there is neither.
        """
        return self._entries(read_plan(self.directory) or self._found("*"))

    def shown(self) -> list[Entry]:
        """The same, to be looked at: of a damaged plan it says that, and gives the runs that have begun."""
        try:
            return self.entries()
        except InputError as error:
            if not any(self.directory.glob("runs/*/status.json")):
                raise
            log.warning("%s; these are the runs that have begun", error)
            return self._entries(self._found("runs/*"))

    def _entries(self, plan: dict[str, Any]) -> list[Entry]:
        launches = self.launches.all()
        statuses = {
            run["name"]: run.get("status") or run_status(self.run_directory(run["name"]))
            for run in plan["runs"]
        }
        queue = self._queue(launches, statuses.values())
        waiting = _Waiting(launches, queue, self.launches.driver_lives())
        return [self._entry(run, statuses[run["name"]], waiting) for run in plan["runs"]]

    def _found(self, folders: str) -> dict[str, Any]:
        """As a plan: the runs of an ordinary sweep, as far as they have begun."""
        runs = []
        for file in sorted(self.directory.glob(f"{folders}/status.json")):
            status = run_status(file.parent)
            readings = [{"images": max(1, status.get("total_images", 1)), "budget_flops": None}]
            found = {"name": file.parent.name, "directory": file.parent, "status": status}
            runs.append({**found, "flops": 0, "readings": readings})
        if not runs:
            raise InputError(
                "study.directory",
                str(self.directory),
                "a study's directory (plan.json in it), or a folder of runs",
                "Run dit study first.",
            )
        return {"runs": runs}

    def forget_dead_launches(self) -> None:
        """Drops the launches of drivers that are gone, but those whose jobs SLURM still has; for the only driver."""
        launches = self.launches.all()
        queue = self._queue(launches, [])
        for launch in launches:
            if not (launch.slurm and launch.waiting(queue, None)):
                self.launches.end(launch)

    def _queue(self, launches: list[Launch], statuses: Iterable[dict[str, Any]]) -> SlurmQueue | None:
        """SLURM's queue, where somebody is or may be in it."""
        begun = any(
            status.get("state") in ("running", "stopped") and status.get("job") for status in statuses
        )
        if begun or any(launch.slurm for launch in launches):
            return slurm_queue(self.directory.stat().st_uid)
        return None

    def _entry(self, run: dict[str, Any], status: dict[str, Any], waiting: "_Waiting") -> Entry:
        directory = run.get("directory") or self.run_directory(run["name"])
        # in another state, the lock says nothing new
        locked = status.get("state") == "running" and is_held(directory / LOCK)
        return _entry(run, status, waiting, locked)


class _Waiting:
    """Which runs the launches still have."""

    def __init__(self, launches: list[Launch], queue: SlurmQueue | None, driver_lives: bool | None) -> None:
        self.queue = queue
        self.in_slurm: set[str] = set()
        self.with_driver: dict[str, float] = {}  # run -> when it was handed over
        for launch in launches:
            if launch.slurm:
                self.in_slurm |= launch.waiting(queue, driver_lives)
            else:
                self.with_driver |= dict.fromkeys(launch.waiting(queue, driver_lives), launch.begun)

    def has(self, name: str, status: dict[str, Any]) -> bool:
        """Whether a launch will begin this run, or has and is not through with it; or its job will begin again."""
        begun = self.with_driver.get(name)
        ended = status.get("state") != "running" and (status.get("heartbeat") or 0) > (begun or 0)
        return name in self.in_slurm or self._comes_back(status) or (begun is not None and not ended)

    def _comes_back(self, status: dict[str, Any]) -> bool:
        """Whether SLURM has put a run's job back into the queue, whoever submitted it."""
        over = status.get("state") in ("done", "failed")
        return self.queue is not None and status.get("job") in self.queue.pending and not over

    def lives(self, status: dict[str, Any], locked: bool | None) -> bool:
        """Whether the process that wrote a status may be alive.

        Its lock says so. Where locks stay on their host, or are not known at all, the heartbeat of a clock that is near
        ours, or the process id, has to do.
        """
        if locked or (locked is False and _is_here(status)):
            return locked
        if status.get("job") and self.queue is not None:
            return status["job"] in self.queue.begun
        if not _is_here(status):
            return abs(_age(status)) < STALE_SECONDS
        return "pid" in status and is_alive(status["host"], status["pid"])


def _is_here(status: dict[str, Any]) -> bool:
    return status.get("host") == socket.gethostname()


def _age(status: dict[str, Any]) -> float:
    return time.time() - (status.get("heartbeat") or 0)


def _entry(run: dict[str, Any], status: dict[str, Any], waiting: _Waiting, locked: bool | None) -> Entry:
    name, state = run["name"], status.get("state", "planned")
    held = waiting.has(name, status)
    if state == "running":
        lives = waiting.lives(status, locked)
        if _age(status) < STALE_SECONDS and lives:
            return Entry(name, "running", True, run, status)
        state = "stale" if not held or lives else "queued"
        held = held or bool(locked) or (lives and _is_here(status))  # hangs, or is busy: but there it is
    elif state == "done":
        if status.get("images_seen", 0) >= run["readings"][-1]["images"]:
            return Entry(name, "done", False, run, status)
        state = "queued" if held else "stopped"
    elif held:
        state = "queued"
    return Entry(name, state, held, run, status)
