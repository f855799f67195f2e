"""The SLURM job that this process belongs to, and how it is put back into the queue.

The run has one owner of requeueing, and it is this: Lightning's and submitit's own are off. Standard library only.
"""

import logging
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

log = logging.getLogger("dit")


@dataclass(frozen=True)
class SlurmJob:
    """One job, or one task of a job array.

    Attributes:
        job_id: as ``scontrol`` takes it: ``12``, or ``12_3`` in an array.
        restart_count: how often SLURM has begun it again; with the id it names one living copy.
    """

    job_id: str
    restart_count: int

    @classmethod
    def current(cls, environment: Mapping[str, str] = os.environ) -> "SlurmJob | None":
        """The job that this process runs in, or None outside SLURM."""
        job_id = environment.get("SLURM_JOB_ID")
        if job_id is None:
            return None
        if "SLURM_ARRAY_JOB_ID" in environment and "SLURM_ARRAY_TASK_ID" in environment:
            job_id = f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
        return cls(job_id, int(environment.get("SLURM_RESTART_COUNT", 0)))

    def requeue(self) -> bool:
        """Asks SLURM to end this job and begin it again later; whether SLURM was asked.

        A job that SLURM is ending already is left alone, unless because of its time limit: it was cancelled after the
        notice, or is on its way back into the queue.
        """
        state = _slurm("squeue", "--noheader", f"--jobs={self.job_id}", "--format=%T %r")
        if state is not None and state.startswith("COMPLETING") and "TimeLimit" not in state:
            log.info("SLURM ends job %s already: it is not requeued from here", self.job_id)
            return False
        return _slurm("scontrol", "requeue", self.job_id) is not None


def _slurm(*command: str) -> str | None:
    """What a command of SLURM's prints; None where it fails, which is said."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:  # in a container, say, without SLURM's commands
        log.error("%s: %s", " ".join(command), error.strerror)
        return None
    if done.returncode > 0:  # below 0: it ended with this job's step, as it had asked for
        log.error("%s: %s", " ".join(command), done.stderr.strip())
        return None
    return done.stdout.strip()
