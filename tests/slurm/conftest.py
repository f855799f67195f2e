"""A real SLURM of two virtual nodes for the tests here: the one that runs already, or one for this session."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from dit.rundir import read_json

ROOT = Path(__file__).resolve().parents[2]
LOCAL_CLUSTER = ROOT / "slurm" / "local-cluster"
CLUSTER_FILES = Path("/tmp/dit-cluster")
T = TypeVar("T")


class Cluster:
    """What the tests do to the cluster."""

    def __init__(self) -> None:
        commands = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # dit, for the batch scripts
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": commands}

    def __call__(self, *command: str, cwd: Path | None = None) -> str:
        """Runs a command of SLURM's and returns what it prints."""
        found = subprocess.run(
            command, env=self.environment, cwd=cwd, capture_output=True, text=True, timeout=60
        )
        assert found.returncode == 0, f"{command}: {found.stderr}"
        return found.stdout.strip()

    def submit(self, *arguments: str, cwd: Path) -> str:
        """The id of a new job."""
        return self("sbatch", "--parsable", *arguments, cwd=cwd)

    def node(self, job: str) -> str:
        """The node of a job that has one."""
        return self("squeue", "-h", "-j", job, "-o", "%N")

    def state(self, job: str) -> str:
        """Of a job in the queue; empty when it has left."""
        found = subprocess.run(["squeue", "-h", "-j", job, "-o", "%T"], capture_output=True, text=True)
        return found.stdout.strip()

    def restarts(self, job: str) -> int:
        """How often SLURM has begun a job again."""
        words = self("scontrol", "show", "job", job).split()
        return int(next(word for word in words if word.startswith("Restarts=")).partition("=")[2])

    def preempt(self, node: str, cwd: Path) -> None:
        """A short job of the higher partition takes a node."""
        self.submit("-p", "high", "--exclusive", "-w", node, "-o", "/dev/null", "--wrap", "sleep 1", cwd=cwd)

    def set_down(self, node: str) -> None:
        self("scontrol", "update", f"nodename={node}", "state=down", "reason=test")

    def resume(self, node: str) -> None:
        self("scontrol", "update", f"nodename={node}", "state=resume")


def wait_for(what: str, condition: Callable[[], T], seconds: float = 120) -> T:
    """The first value of ``condition`` that is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.2)
    raise AssertionError(f"waited {seconds} s for: {what}")


def status(run: Path) -> dict:
    """What a run says of itself."""
    return read_json(run / "status.json") or {}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    if os.geteuid() != 0:
        pytest.skip("slurm/local-cluster needs root")
    runs_already = subprocess.run([LOCAL_CLUSTER, "status"], capture_output=True).returncode == 0
    begun = subprocess.run([LOCAL_CLUSTER, "start"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if begun.returncode:
        pytest.skip(f"no local cluster: {begun.stderr.strip().splitlines()[-1]}")
    os.environ["SLURM_CONF"] = str(CLUSTER_FILES / "slurm.conf")
    yield Cluster()
    del os.environ["SLURM_CONF"]
    if not runs_already:
        subprocess.run([LOCAL_CLUSTER, "stop"], capture_output=True, check=True)


@pytest.fixture(autouse=True)
def _clean(cluster: Cluster) -> Iterator[None]:
    """Leaves no job and no broken node behind."""
    yield
    for partition in ("main", "high"):
        cluster("scancel", f"--partition={partition}")
    subprocess.run([LOCAL_CLUSTER, "start"], stdin=subprocess.DEVNULL, capture_output=True, check=True)
    wait_for("an empty queue", lambda: not cluster("squeue", "-h"), 30)
