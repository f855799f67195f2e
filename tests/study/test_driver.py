"""The loop of a study against a launcher whose jobs do as they are told: who is tried again, and what is said."""

import os
import time
from pathlib import Path

import pytest
from hydra.core.utils import JobReturn, JobStatus

from dit import signals
from dit.errors import InputError, RunError, Stopped
from dit.files import write_json
from dit.study import ledger as ledgers
from dit.study.driver import Driver, Launcher
from dit.study.launches import SlurmQueue
from dit.study.ledger import Ledger

END = 1000


class Jobs:
    """A launcher: each run has a list of what becomes of it, one per launch.

    ``done``, ``failed``; a number of images: it dies there; ``never``: it dies before it begins; or an error.
    """

    def __init__(self, directory: Path, fates: dict[str, list], dies: Exception | None = None) -> None:
        self.fates, self.dies, self.launches = fates, dies, []
        runs = [
            {"name": name, "flops": 1.0, "readings": [{"images": END, "budget_flops": 1.0}]} for name in fates
        ]
        write_json(directory / "plan.json", {"runs": runs})
        self.ledger = Ledger(directory)

    def __call__(self, _name, jobs):
        self.launches.append([job[0] for job in jobs])
        results = [self._run(job[0], self.fates[job[0]].pop(0)) for job in jobs]
        if self.dies is not None:
            raise self.dies
        return results

    def _run(self, name: str, fate) -> JobReturn:
        result = JobReturn(status=JobStatus.COMPLETED)
        if isinstance(fate, Exception):
            result.status, result._return_value = JobStatus.FAILED, fate
        elif fate != "never":
            path = self.ledger.run_directory(name)
            path.mkdir(parents=True, exist_ok=True)
            state = fate if isinstance(fate, str) else "stopped"
            images = {"done": END, "failed": 10}.get(fate, fate)
            facts = {"host": os.uname().nodename, "pid": os.getpid(), "job": None, "message": "why"}
            write_json(path / "status.json",
                       {"state": state, "images_seen": images, "heartbeat": time.time(), **facts})  # fmt: skip
        return result

    def drive(self, retries: int = 1, slurm: bool = False) -> dict[str, str]:
        launcher = Launcher(self, slurm=slurm, survives=slurm)
        return Driver("s", self.ledger, launcher, {name: [name] for name in self.fates}, retries).run()


def test_done_runs_are_left_alone_and_failed_ones_tried_again(tmp_path):
    jobs = Jobs(tmp_path, {"a": ["done"], "b": ["failed", "done"], "c": ["failed", "failed"]})
    assert jobs.drive() == {"c": "why"}
    assert jobs.launches == [["a", "b", "c"], ["b", "c"]]
    assert not jobs.ledger.launches.all()
    jobs.fates["c"] = ["done"]
    assert jobs.drive() == {}  # the same command tries what failed, and nothing else
    assert jobs.launches[2:] == [["c"]]
    assert jobs.drive() == {} and len(jobs.launches) == 3


def test_an_interrupted_run_goes_on_as_long_as_it_advances(tmp_path):
    jobs = Jobs(tmp_path, {"a": [100, 200, 300, 300, "done"], "b": ["never", "never"]})
    assert jobs.drive() == {"b": "it ended before it wrote anything; see the launcher's log"}
    assert [launch.count("a") for launch in jobs.launches] == [1, 1, 1, 1, 1]
    assert sum(launch.count("b") for launch in jobs.launches) == 2


def test_a_mistake_of_every_run_ends_the_study_at_once(tmp_path):
    jobs = Jobs(tmp_path, {"a": [InputError("optimizer.lr", -1, "more")], "b": ["done"]})
    with pytest.raises(InputError, match=r"optimizer\.lr"):
        jobs.drive(retries=5)
    assert len(jobs.launches) == 1


def test_a_run_that_another_process_has_is_no_mistake(tmp_path):
    held = InputError("run_dir", "runs/a", "a directory that no other process is using")
    jobs = Jobs(tmp_path, {"a": [held, "done"]})
    assert jobs.drive() == {}


def test_a_launcher_that_dies_decides_nothing(tmp_path, monkeypatch):
    """As submitit does when one job was cancelled: what the others did is in their files."""
    queue = SlurmQueue(frozenset(), frozenset(), frozenset())
    monkeypatch.setattr(ledgers, "slurm_queue", lambda _user: queue)
    jobs = Jobs(tmp_path, {"a": ["done"], "b": ["failed", "done"]}, dies=RuntimeError("a job was lost"))
    assert jobs.drive(slurm=True) == {}
    assert jobs.launches == [["a", "b"], ["b"]]


def test_a_launcher_that_cannot_begin_is_an_error(tmp_path):
    jobs = Jobs(tmp_path, {"a": ["never"]}, dies=RuntimeError("invalid partition"))
    with pytest.raises(RunError, match="invalid partition"):
        jobs.drive()
    assert len(jobs.launches) == 1 and not jobs.ledger.launches.all()


def test_a_stopped_driver_says_what_goes_on_and_how_to_continue(tmp_path, monkeypatch):
    monkeypatch.setattr(signals, "_received", [15])
    monkeypatch.setattr("sys.argv", ["dit study", "experiment=digits"])
    jobs = Jobs(tmp_path, {"a": ["done"]})
    jobs._run("a", 10)
    launch = jobs.ledger.launches.begin("s", ["a"], slurm=True)
    queue = SlurmQueue(frozenset({"5"}), frozenset(), frozenset({(launch.name, 0)}))
    monkeypatch.setattr(ledgers, "slurm_queue", lambda _user: queue)
    with pytest.raises(Stopped, match=rf"1 runs are left .*{launch.name}.*: dit study experiment=digits"):
        jobs.drive(slurm=True)
    assert not jobs.launches and jobs.ledger.launches.all() == [launch]
