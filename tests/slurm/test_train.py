"""A run on a real SLURM, by slurm/train.sbatch: whatever becomes of its job, it resumes by itself and ends the same."""

import os
import re
import signal
import time
from pathlib import Path

import pytest

from dit.rundir import read_json
from tests.conftest import TINY, dit
from tests.slurm.conftest import CLUSTER_FILES, ROOT, Cluster, status, wait_for

pytestmark = pytest.mark.slurm

SCRIPT = str(ROOT / "slurm" / "train.sbatch")
RUN = [*TINY, "evaluation=none", "checkpoint_every_images=320"]
TWO_BY_TWO = ["--nodes=2", "--ntasks-per-node=2", "--cpus-per-task=1"]


def results(run: Path) -> dict[str, str]:
    """What must be equal: the records, but for the commit, and what the last checkpoint's tensors are."""
    records = re.sub(r'"git_commit":"[^"]*"', "", (run / "records.jsonl").read_text())
    last = max((run / "checkpoints").glob("images-*[0-9]"))
    hashes = re.findall(r'"sha256": "(\w+)"', (last / "manifest.json").read_text())
    assert hashes
    return {"records": records, "checkpoint": last.name, "sha256": ",".join(hashes)}


def processes(job: str, rank: int = 0) -> list[int]:
    """The processes of one rank of a job, on whichever virtual node."""
    wanted = {f"SLURM_JOB_ID={job}".encode(), b"SLURM_STEP_ID=0", f"SLURM_PROCID={rank}".encode()}
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment, command = (path / "environ").read_bytes(), (path / "cmdline").read_bytes()
        except OSError:
            continue
        if wanted <= set(environment.split(b"\0")) and b"train" in command.split(b"\0"):
            found.append(int(path.name))
    return found


def beyond(run: Path, images: int, restarts: int) -> dict:
    """The run's status, once it was begun so often and has seen more images."""

    def there():
        now = status(run)
        at_work = now.get("state") == "running" and now["restart_count"] >= restarts
        return now if at_work and now["images_seen"] > images else {}

    return wait_for(f"{run.name} beyond {images} images after {restarts} restarts", there)


def ended(cluster: Cluster, job: str, run: Path) -> None:
    wait_for(f"{run.name} done", lambda: status(run).get("state") == "done" and not cluster.state(job))


@pytest.mark.timeout(500)
def test_a_sharded_run_over_two_nodes_outlives_notice_preemption_requeue_and_a_lost_node(
    cluster, tiny_latents, tmp_path
):
    settings = [
        *RUN,
        f"data.directory={tiny_latents}",
        "strategy=fsdp",
        "duration.images=6400",
        "run_name=run",
    ]
    quiet, loud = tmp_path / "quiet", tmp_path / "loud"
    job = cluster.submit(*TWO_BY_TWO, SCRIPT, *settings, "run_dir=quiet", cwd=tmp_path)
    ended(cluster, job, quiet)

    job = cluster.submit(*TWO_BY_TWO, SCRIPT, *settings, "run_dir=loud", cwd=tmp_path)
    now = beyond(loud, 320, restarts=0)
    # the notice comes while one rank is far behind and the others wait for it in a collective
    (slow,) = processes(job, rank=3)
    os.kill(slow, signal.SIGSTOP)
    time.sleep(0.5)
    cluster("scancel", "--signal=USR1", job)
    time.sleep(1.5)
    os.kill(slow, signal.SIGCONT)
    now = beyond(loud, now["images_seen"], restarts=1)

    cluster.preempt("n1", tmp_path)
    now = beyond(loud, now["images_seen"], restarts=2)

    cluster("scontrol", "requeue", job)
    now = beyond(loud, status(loud)["images_seen"] - 640, restarts=3)  # it was told nothing: some steps again

    cluster.set_down("n2")
    wait_for("the job off its nodes", lambda: cluster.state(job) == "PENDING", 60)
    cluster.resume("n2")
    ended(cluster, job, loud)
    assert cluster.restarts(job) >= 4
    assert results(loud) == results(quiet)


def test_a_signal_during_start_up_is_not_lost(cluster, tiny_latents, tmp_path):
    settings = [*RUN, f"data.directory={tiny_latents}", "duration.images=640", "run_dir=run"]
    job = cluster.submit("--cpus-per-task=1", SCRIPT, *settings, cwd=tmp_path)
    for restarts, delay in enumerate((0.0, 1.0)):  # as soon as there is a process, and amid the imports
        wait_for("its process", lambda: processes(job))
        assert cluster.restarts(job) == restarts
        time.sleep(delay)
        cluster("scancel", "--signal=USR1", job)
        wait_for("its process gone", lambda: not processes(job))
    ended(cluster, job, tmp_path / "run")
    assert cluster.restarts(job) == 2


def test_of_two_living_copies_one_writes(cluster, tiny_latents, tmp_path):
    """A node that lost touch: SLURM begins its job again elsewhere while the first copy lives on."""
    settings = [*RUN, f"data.directory={tiny_latents}", "duration.images=25600", "run_name=run"]
    dit("train", *settings, "run_dir=quiet", cwd=tmp_path, check=0)

    run = tmp_path / "run"
    job = cluster.submit("--cpus-per-task=1", SCRIPT, *settings, "run_dir=run", cwd=tmp_path)
    beyond(run, 0, restarts=0)
    (old,) = processes(job)
    os.kill(old, signal.SIGSTOP)  # the old copy lives, but does not come to its end before there is a new one
    daemon = CLUSTER_FILES / "pid" / f"slurmd-{cluster.node(job)}.pid"
    os.kill(int(daemon.read_text()), signal.SIGKILL)
    wait_for("a second copy", lambda: (read_json(run / "owner.json") or {}).get("restart_count") == 1, 180)
    assert processes(job, rank=0).count(old) == 1, "the first copy did not live to see the second"
    os.kill(old, signal.SIGCONT)  # it goes on, until it asks whether the run is still its own
    wait_for("the first copy gone", lambda: old not in processes(job), 60)
    ended(cluster, job, run)
    assert results(run) == results(tmp_path / "quiet")


def test_a_job_cancelled_after_its_notice_is_not_requeued(cluster, tiny_latents, tmp_path):
    settings = [*RUN, f"data.directory={tiny_latents}", "duration.images=25600", "run_dir=run"]
    job = cluster.submit("--cpus-per-task=1", SCRIPT, *settings, cwd=tmp_path)
    beyond(tmp_path / "run", 320, restarts=0)
    (process,) = processes(job)
    os.kill(process, signal.SIGSTOP)  # until scancel, which continues it: it meets both signals at once
    cluster("scancel", "--signal=USR1", job)
    cluster("scancel", job)
    wait_for("the job gone", lambda: not cluster.state(job), 30)
    time.sleep(12)  # a requeued job would be back after 8 s
    assert not cluster.state(job)
    assert cluster.restarts(job) == 0
    assert status(tmp_path / "run")["state"] == "stopped"
