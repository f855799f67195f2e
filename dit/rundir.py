"""A run's directory: who owns it, what it was asked to do, and how far it is.

    config.yaml       the resolved configuration
    environment.json  versions, git commit, configuration hash
    records.jsonl     what was found (dit/records.py); the truth
    owner.json        which process may write here: host, process, SLURM job and how often that was restarted
    status.json       running | done | failed | stopped, clock, heartbeat; replaced whole, never edited
    log.txt           lines for people
    checkpoints/  samples/

Standard library only: ``dit status`` and ``dit study`` read it without torch.
"""

import logging
import os
import platform
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from dit.errors import InputError, check_choice
from dit.files import remove_unfinished, write_json, write_text
from dit.locks import Lock
from dit.slurm import SlurmJob
from dit.trust import INTEGER, NULL, NUMBER, OBJECT, TEXT, read_json

log = logging.getLogger("dit")

STATES = ("running", "done", "failed", "stopped")
LOCK = ".lock"  # the file in a run's directory that its process holds
STATUS = {  # what status.json says besides, where it says it
    **dict.fromkeys(("heartbeat", "images_per_second", "eta_seconds", "loss"), (*NUMBER, NULL)),
    **dict.fromkeys(("images_seen", "total_images", "step", "pid", "restart_count"), INTEGER),
    **{"host": TEXT, "message": TEXT, "job": (str, NULL), "records": OBJECT},
}
TAKEOVER_SECONDS = 30  # that a newer copy of a job waits for the older one to let go


def make_directory(key: str, path: Path) -> Path:
    """Makes a directory that we can write to.

    Raises:
        InputError: it cannot be made or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):  # gone with its process
            pass
    except OSError as error:
        raise InputError(key, str(path), f"a directory that can be written ({error.strerror})") from error
    return path


def read_environment(path: Path) -> dict[str, Any] | None:
    """The versions and the ``config_hash`` of a run; None where none has begun.

    Raises:
        InputError: the file is damaged.
    """
    return read_json(path / "environment.json", {"config_hash": TEXT})


def read_status(path: Path) -> dict[str, Any] | None:
    """The status of the run in a directory, or None where it has not begun.

    Raises:
        InputError: the file is damaged.
    """
    status = read_json(path / "status.json", {"state": TEXT}, STATUS)
    if status is not None:
        check_choice(f"{path / 'status.json'}: state", status["state"], STATES)
    return status


def is_done(path: Path, config_hash: str) -> bool:
    """Whether a run of this configuration has finished there; a damaged status says that it has not."""
    known = read_environment(path)
    try:
        status = read_status(path)
    except InputError as error:
        log.warning("%s; the run is taken up from its newest checkpoint", error)
        return False
    if known is None or status is None:
        return False
    return known["config_hash"] == config_hash and status["state"] == "done"


class RunDirectory:
    """The directory of one run, held by one process at a time.

    SLURM may begin a job again while its first copy lives on (a node that lost touch). Then the newer copy takes the
    directory over, and the older one, which asks ``is_owner`` before it writes, finds that it may not.

    Args:
        path: where it lies; made where missing.
        config_hash: what the run was asked to do, as one hash.
        config_yaml: the same as text, for people.
        job: the SLURM job that this process belongs to, if any.

    Raises:
        InputError: it cannot be written, another process holds it, or it belongs to a run of another configuration.
    """

    def __init__(self, path: Path, config_hash: str, config_yaml: str, job: SlurmJob | None = None) -> None:
        self.path = make_directory("run_dir", path)
        known = read_environment(self.path)
        if known is not None and known["config_hash"] != config_hash:
            raise InputError(
                "run_dir",
                str(path),
                "a new directory, or the configuration it was begun with (config.yaml in it)",
                "Name another run_dir, or undo the change to resume.",
            )
        self._token = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "begun": time.time(),
            "job": job.job_id if job else None,
            "restart_count": job.restart_count if job else 0,
        }
        self.stamp: Callable[[], dict[str, Any]] = dict  # what every status says besides
        self._lock, self._warned = Lock(self.path / LOCK), False
        self._take()
        remove_unfinished(self.path)
        if known is None:
            write_text(self.path / "config.yaml", config_yaml)
            write_json(self.path / "environment.json", {"config_hash": config_hash, **environment()})

    def _take(self) -> None:
        """Becomes the owner: of a free directory, or in place of an older copy of the same SLURM job."""
        owner = self._owner()
        same_job = owner.get("job") is not None and owner["job"] == self._token["job"]
        newer = owner.get("restart_count", 0) - self._token["restart_count"] if same_job else 0
        if newer > 0:
            self._refuse(owner, "It is a newer copy of this job.")
        if not self._lock.take() and newer == 0:
            self._refuse(owner, "Stop that process first.")
        write_json(self.path / "owner.json", self._token)
        if newer:  # the older copy lets go when it next looks; hanging, it will look before it writes
            self._lock.take(TAKEOVER_SECONDS)

    def _refuse(self, owner: dict[str, Any], remedy: str) -> NoReturn:
        raise InputError(
            "run_dir",
            str(self.path),
            "a directory that no other process is using",
            f"Process {owner.get('pid')} on {owner.get('host')} holds it. {remedy}",
        )

    def _owner(self) -> dict[str, Any]:
        """The content of owner.json; empty where it is damaged, since then the lock decides."""
        try:
            return read_json(self.path / "owner.json", may={"restart_count": INTEGER}) or {}
        except InputError as error:
            log.warning("%s", error)
            return {}

    def is_owner(self) -> bool:
        """Whether no newer copy of this job has taken the directory over; to be asked before anything is written."""
        return self._owner() == self._token

    def lost_by(self) -> str | None:
        """How it was lost: ``superseded`` by a newer copy of this job, or ``removed``; None while it is ours."""
        if self.is_owner():
            return None
        return "superseded" if (self.path / "owner.json").exists() else "removed"

    def status(self) -> dict[str, Any] | None:
        """What ``status.json`` says, or None."""
        return read_status(self.path)

    def write_status(self, state: str, **facts: Any) -> None:
        """Says how far the run is; every call is a heartbeat.

        Raises:
            OSError: that it is done cannot be written; other states are for people, and end no run.
        """
        assert state in STATES, state
        host = {key: self._token[key] for key in ("host", "pid", "job", "restart_count")}
        try:
            if self.is_owner():
                said = {"state": state, "heartbeat": time.time(), **host, **self.stamp(), **facts}
                write_json(self.path / "status.json", said)
        except OSError as error:
            if state == "done":
                raise
            if not self._warned:
                log.warning("%s cannot be written, and the run goes on: %s", error.filename, error.strerror)
            self._warned = True

    def close(self) -> None:
        """Lets another process have the directory."""
        self._lock.release()


def environment() -> dict[str, Any]:
    """Versions and the commit that a run was made with."""
    packages = ("torch", "lightning", "hydra-core", "diffusers", "timm", "numpy", "scipy", "scikit-learn")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": dict(_versions(packages)),
        "git_commit": git_commit(),
    }


def git_commit() -> str | None:
    """The commit of the checkout that this code runs from (``+`` where files differ from it); None outside one."""
    with suppress(OSError, subprocess.CalledProcessError):
        root = Path(__file__).parent

        def git(*arguments: str) -> str:
            command = ["git", "-C", str(root), *arguments]
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

        if Path(git("rev-parse", "--show-toplevel")) == root.parent:
            changed = git("status", "--porcelain", "--untracked-files=no")
            return git("rev-parse", "HEAD") + ("+" if changed else "")
    return None


def _versions(packages: Iterable[str]) -> Iterable[tuple[str, str]]:
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            yield package, metadata.version(package)
