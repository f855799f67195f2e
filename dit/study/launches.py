"""What drivers handed to launchers and may still begin: ``launches/<name>.json`` in a study's directory.

A launcher that hands runs to SLURM gives its jobs the launch's name, so that any later process, with nothing but this
file and ``squeue``, knows which runs wait in the queue. Standard library only.
"""

import logging
import os
import re
import secrets
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dit.errors import InputError, check_choice
from dit.files import write_json
from dit.locks import is_held
from dit.trust import INTEGER, LIST, NUMBER, TEXT, read_json

log = logging.getLogger("dit")

DRIVER_LOCK = ".driver.lock"  # the file in a study's directory that its driver holds


@dataclass(frozen=True)
class SlurmQueue:
    """The jobs of one user that SLURM has not finished with.

    Attributes:
        begun: those that are not pending, as ``scontrol`` takes them: ``12``, or ``12_3`` in an array.
        pending: the others.
        places: (job name, place in the array) of each.
    """

    begun: frozenset[str]
    pending: frozenset[str]
    places: frozenset[tuple[str, int]]


def slurm_queue(user: int) -> SlurmQueue | None:
    """The queue of a user (a numeric id); None where SLURM does not answer, so that nothing follows from it."""
    command = ["squeue", "--noheader", "--array", f"--user={user}", "--format=%i|%t|%j"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split(
            "\n"
        )
    except (OSError, subprocess.SubprocessError):
        return None
    jobs = [line.split("|", 2) for line in lines if line]
    places = ((name, int(job_id.partition("_")[2] or 0)) for job_id, _, name in jobs)
    pending = frozenset(job_id for job_id, state, _ in jobs if state == "PD")
    begun = frozenset(job_id for job_id, _, _ in jobs) - pending
    return SlurmQueue(begun, pending, frozenset(places))


@dataclass(frozen=True)
class Launch:
    """Runs that one driver handed to a launcher at once.

    Attributes:
        name: of the launch, and of its SLURM jobs.
        runs: in the order of the jobs.
        slurm: whether SLURM has them; else they are known to the driver's process alone.
        begun: seconds since the epoch.
        host, pid: of the driver.
    """

    name: str
    runs: tuple[str, ...]
    slurm: bool
    begun: float
    host: str
    pid: int

    def waiting(self, queue: SlurmQueue | None, driver_lives: bool | None) -> set[str]:
        """The runs that this launch may still begin or is running, as far as it can tell.

        Args:
            queue: SLURM's; None where it does not answer.
            driver_lives: whether the study has a driver, which forgets the launches of the one before; None where
                locks say nothing.
        """
        if self.slurm:
            if queue is None:
                return set(self.runs)
            return {run for place, run in enumerate(self.runs) if (self.name, place) in queue.places}
        lives = is_alive(self.host, self.pid) if driver_lives is None else driver_lives
        return set(self.runs) if lives else set()


class Launches:
    """The launches of a study that are not over.

    Args:
        study: the study's directory.
    """

    def __init__(self, study: Path) -> None:
        self.directory = study / "launches"

    def begin(self, study: str, runs: Sequence[str], slurm: bool) -> Launch:
        """Notes a launch, before it is made: a driver that is killed then leaves no job that nobody knows."""
        plain = re.sub(
            r"[^A-Za-z0-9._-]+", "_", study
        )  # the name stands in batch scripts and in squeue's answer
        name = f"dit-{plain}-{secrets.token_hex(4)}"
        launch = Launch(name, tuple(runs), slurm, time.time(), socket.gethostname(), os.getpid())
        self.directory.mkdir(exist_ok=True)
        write_json(self.directory / f"{name}.json", asdict(launch))
        return launch

    def end(self, launch: Launch) -> None:
        """Forgets a launch that is over."""
        (self.directory / f"{launch.name}.json").unlink(missing_ok=True)

    def driver_lives(self) -> bool | None:
        """Whether a process drives the study now; None where locks say nothing."""
        return is_held(self.directory.parent / DRIVER_LOCK)

    def all(self) -> list[Launch]:
        """Every launch that was not ended, in no order."""
        found = (_launch(file) for file in self.directory.glob("*.json"))
        return [launch for launch in found if launch is not None]


def _launch(file: Path) -> Launch | None:
    """The launch that a file tells of; None where it has just ended, or the file is damaged, which is said."""
    needs = {"name": TEXT, "runs": LIST, "slurm": (bool,), "begun": NUMBER, "host": TEXT, "pid": INTEGER}
    try:
        values = read_json(file, needs)
        if values is None:
            return None
        check_choice(f"{file}: name", values["name"], [file.stem])  # ``end`` removes the file of this name
    except InputError as error:
        log.warning("%s; this launch is passed over", error)
        return None
    return Launch(**{**{key: values[key] for key in needs}, "runs": tuple(map(str, values["runs"]))})


def is_alive(host: str, pid: int) -> bool:
    """Whether a process of this id lives; one of another host is taken to. For want of a lock: an id comes back."""
    if host != socket.gethostname():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    return True
