"""A study through submitit_slurm, disturbed in every way, ends as an undisturbed local one."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import TINY, dit
from tests.slurm.conftest import ROOT, status, wait_for
from tests.verbs.test_study import STUDY, records

pytestmark = pytest.mark.slurm

# 3 widths x 2 seeds = 6 runs, the smallest of them long enough to be disturbed
SIX = [*STUDY, "study.max_images=100000", "study.seeds=[0,1]", "study.retries=2"]
# a job fills a node, so that two run at a time
SLURM = ["hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=30", "hydra.launcher.cpus_per_task=64"]


class Drivers:
    """``dit study`` again and again in one folder."""

    def __init__(self, folder: Path, arguments: list[str]) -> None:
        self.folder, self.command = folder, [sys.executable, "-m", "dit", *arguments]
        self.log = folder / "driver.txt"

    def start(self, environment: dict[str, str]) -> subprocess.Popen:
        output = {"stdout": subprocess.DEVNULL, "stderr": self.log.open("w")}
        self.last = subprocess.Popen(self.command, cwd=self.folder, env=environment, **output)
        return self.last


def running(study: Path, at_least: int = 1, below: float = 0.6) -> list[Path]:
    """Runs that are at work and have some way to go."""
    found = []
    for run in sorted(study.glob("runs/*")):
        now = status(run)
        if now.get("state") == "running" and 0 < now["images_seen"] < below * now["total_images"]:
            found.append(run)
    return found if len(found) >= at_least else []


def submitted(folder: Path) -> int:
    """How many jobs the drivers in a folder have ever submitted: submitit keeps what it sends with each."""
    return len(list(folder.glob("runs/.sweep/.submitit/*/*_submitted.pkl")))


@pytest.fixture
def drivers(tiny_latents, tmp_path):
    found = Drivers(tmp_path, [*SIX, f"data.directory={tiny_latents}", "study.directory=loud", *SLURM])
    yield found
    found.last.kill()


def test_a_disturbed_study_ends_as_the_undisturbed_one(cluster, drivers, tiny_latents, tmp_path):
    data = f"data.directory={tiny_latents}"
    dit(*SIX, data, "study.directory=quiet", cwd=tmp_path, check=0)
    study = tmp_path / "loud"
    driver = drivers.start(cluster.environment)
    two = wait_for("two runs at work", lambda: running(study, 2))
    cluster.preempt(cluster.node(status(two[0])["job"]), tmp_path)
    driver.kill()  # -9
    driver.wait()

    driver = drivers.start(cluster.environment)
    wait_for(
        "the runs of the dead driver seen", lambda: "were launched before" in drivers.log.read_text(), 30
    )
    cancelled = wait_for("a run at work", lambda: running(study))[0]
    cluster("scancel", status(cancelled)["job"])

    driver.send_signal(signal.SIGINT)
    assert driver.wait(timeout=30) == 75
    said = drivers.log.read_text()
    assert re.search(r"\d runs are left queued or running", said) and "dit study experiment=digits" in said
    assert submitted(tmp_path) == 6, "the second driver has submitted something twice"

    driver = drivers.start(cluster.environment)
    lost = wait_for("another run at work", lambda: running(study))[0]
    down = cluster.node(status(lost)["job"])
    cluster.set_down(down)
    wait_for("its job back in the queue", lambda: cluster.state(status(lost)["job"]) != "RUNNING", 30)
    cluster.resume(down)
    assert driver.wait(timeout=300) == 0, drivers.log.read_text()

    assert records(study) == records(tmp_path / "quiet")
    assert len(records(study)) == 6
    assert submitted(tmp_path) == 7, "only the cancelled run is submitted again"
    found = dit("status", "study.directory=loud", cwd=tmp_path, check=0)
    assert "6 done" in found.stdout


def test_a_driver_that_is_a_job_comes_back_and_submits_nothing_twice(cluster, tiny_latents, tmp_path):
    script, data = ROOT / "slurm" / "study.sbatch", f"data.directory={tiny_latents}"
    grid = ["study.budgets_flops=[1.5e9,4.74e9]", "study.widths=[16,32]", "study.force=true"]
    driver = cluster.submit(
        str(script), *STUDY[1:], *grid, data, "study.directory=study", *SLURM, cwd=tmp_path
    )
    wait_for("a run at work", lambda: running(tmp_path / "study", below=1.0))
    cluster("scancel", "--batch", "--signal=USR1", driver)  # what its time limit would send
    wait_for(
        "its end", lambda: (tmp_path / "study/report/report.html").is_file() and not cluster.state(driver)
    )
    assert cluster.restarts(driver) == 1
    assert submitted(tmp_path) == 2


def test_a_notice_before_a_job_of_a_sweep_can_listen_is_not_lost(cluster, tiny_latents, tmp_path):
    """submitit's jobs import for seconds before our code runs, and SIGUSR1 kills a process that knows nothing of it."""
    settings = [*TINY, "evaluation=none", f"data.directory={tiny_latents}", "duration.images=640"]
    sweep = [sys.executable, "-m", "dit", "train", "-m", *settings, "seed=0,1", "run_dir=runs/${seed}"]
    driver = subprocess.Popen(
        [*sweep, "hydra/launcher=slurm"], cwd=tmp_path, env=cluster.environment, stderr=subprocess.DEVNULL
    )
    try:
        wait_for("a process of the second job", lambda: begun(place=1))
        job = cluster("squeue", "-h", "-r", "-n", "train", "-o", "%i").split()[0].partition("_")[0]
        cluster("scancel", "--signal=USR1", f"{job}_1")
        assert driver.wait(timeout=300) == 0
    finally:
        driver.kill()
    found = [status(tmp_path / "runs" / seed) for seed in "01"]
    assert [run["state"] for run in found] == ["done", "done"]
    assert [run["restart_count"] for run in found] == [0, 1]


def begun(place: int) -> bool:
    """Whether there is a process of submitit's for this place in an array."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment, command = (path / "environ").read_bytes(), (path / "cmdline").read_bytes()
        except OSError:
            continue
        task = f"SLURM_ARRAY_TASK_ID={place}".encode() in environment.split(b"\0")
        if task and command.startswith(sys.executable.encode()) and b"submitit.core._submit" in command:
            return True
    return False
