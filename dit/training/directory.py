"""A run in its directory: held by one process, logged there, its end written down."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from dit import signals
from dit.columns import PrintableFormatter
from dit.errors import InputError, RunError, Stopped
from dit.records import readings
from dit.rundir import RunDirectory
from dit.slurm import SlurmJob
from dit.training.checkpoint import clock
from dit.training.engine import train
from dit.training.job import Job
from dit.training.saving import CheckpointManager

log = logging.getLogger("dit")


def take(path: Path, config_hash: str, config: str, read_at: Sequence[int]) -> RunDirectory:
    """The directory of a run, held by this process.

    Args:
        path: of the directory.
        config_hash: what the run was asked to do.
        config: its configuration, as text.
        read_at: images at which the run is measured.

    Raises:
        InputError: another process holds it; or its run has passed a point without the reading that is asked for there.
    """
    directory = RunDirectory(path, config_hash, config, SlurmJob.current())
    # what is due at the clock of the checkpoint that it goes on from, and was not measured, is measured then
    seen = max(map(clock, CheckpointManager(path / "checkpoints").directories()), default=0)
    passed = [
        images for images in read_at if images < seen and images not in readings(path / "records.jsonl")
    ]
    if passed:
        directory.close()
        raise InputError(
            "duration, read_at_flops",
            f"({passed[0]} images)",
            f"readings beyond the {seen} images that {path} has seen",
            "A run that exists can only be made longer; for readings in between name another run_dir.",
        )
    return directory


def train_in(path: Path, job: Job, run_directory: RunDirectory | None) -> str | None:
    """Trains a job in its directory; as ``train``, whose errors are noted there.

    Args:
        path: of the directory.
        job: what to train.
        run_directory: the directory as this process holds it; None on the ranks that write nothing.
    """
    if run_directory is None:
        return train(job, path, None)
    handler = _LogFile(path / "log.txt")
    handler.setFormatter(PrintableFormatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    log.addHandler(handler)
    try:
        return train(job, path, run_directory)
    except BaseException as error:
        known = run_directory.status() or {}
        clock = {key: known[key] for key in ("images_seen", "step", "total_images") if key in known}
        if isinstance(error, (KeyboardInterrupt, signals.Interrupted)):
            run_directory.write_status("stopped", **clock)
            raise Stopped(
                f"stopped at once, without a checkpoint; the same command resumes {path}"
            ) from error
        if run_directory.lost_by() == "removed":
            raise removed(path) from error
        run_directory.write_status("failed", message=f"{type(error).__name__}: {error}", **clock)
        log.error("failed: %s", error)
        raise
    finally:
        log.removeHandler(handler)
        with suppress(OSError):
            handler.close()


def removed(path: Path) -> RunError:
    """The error of a run whose directory is gone."""
    return RunError(f"{path} was removed, or emptied, while its run went on: there is nothing to continue")


class _LogFile(logging.FileHandler):
    """Lines for people: one that a full disk does not take ends no run, and what matters meets that disk as well."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass
