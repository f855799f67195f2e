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
        """Asks SLURM to end this job and begin it again later; whether SLURM agreed."""
        done = subprocess.run(["scontrol", "requeue", self.job_id], capture_output=True, text=True)
        if done.returncode:
            log.error("scontrol requeue %s: %s", self.job_id, done.stderr.strip())
        return done.returncode == 0
