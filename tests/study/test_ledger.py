"""The ledger: what it says of runs in every situation, and that no writer, reader or kill can tear it."""

import errno
import fcntl
import multiprocessing
import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from dit.errors import InputError
from dit.files import write_json
from dit.locks import Lock, is_held
from dit.rundir import LOCK, RunDirectory
from dit.study import ledger as ledgers
from dit.study.launches import DRIVER_LOCK, SlurmQueue
from dit.study.ledger import STALE_SECONDS, Ledger

HERE = {"host": os.uname().nodename, "pid": os.getpid(), "job": None}


def gone_process() -> int:
    """The id of a process that is no more."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def study(directory: Path, *names: str, images: int = 1000) -> Ledger:
    """A study's directory with a plan of runs that end at ``images``."""
    runs = [
        {"name": name, "flops": 1.0, "readings": [{"images": images, "budget_flops": 1.0}]} for name in names
    ]
    write_json(directory / "plan.json", {"runs": runs})
    return Ledger(directory)


def say(ledger: Ledger, name: str, state: str, age: float = 0.0, **facts) -> None:
    """Writes a run's status, as old as asked."""
    path = ledger.run_directory(name)
    path.mkdir(parents=True, exist_ok=True)
    facts = {"images_seen": 500, "total_images": 1000, **HERE, **facts}
    write_json(path / "status.json", {"state": state, "heartbeat": time.time() - age, **facts})


def lock(path: Path) -> Lock:
    """A lock as a process holds it that owns a run, or drives a study."""
    path.parent.mkdir(parents=True, exist_ok=True)
    held = Lock(path)
    assert held.take()
    return held


def state(ledger: Ledger, name: str = "a") -> tuple[str, bool]:
    entry = next(entry for entry in ledger.entries() if entry.name == name)
    return entry.state, entry.held


@pytest.fixture
def queue(monkeypatch):
    """SLURM's queue, as the test wants it: a list of (job id, state, job name), or None for no answer."""
    jobs: list = []

    def answer(_user):
        if jobs == [None]:
            return None
        places = {(name, int(job.partition("_")[2] or 0)) for job, _, name in jobs}
        pending = frozenset(job for job, state, _ in jobs if state == "PD")
        return SlurmQueue(frozenset(job for job, _, _ in jobs) - pending, pending, frozenset(places))

    monkeypatch.setattr(ledgers, "slurm_queue", answer)
    return jobs


def test_states_without_slurm(tmp_path):
    ledger = study(tmp_path, "a")
    assert state(ledger) == ("planned", False)
    held = lock(ledger.run_directory("a") / LOCK)
    say(ledger, "a", "running")
    assert state(ledger) == ("running", True)
    say(ledger, "a", "running", age=STALE_SECONDS + 1)  # hangs, but lives: launched again it would run twice
    assert state(ledger) == ("stale", True)
    say(ledger, "a", "running", age=STALE_SECONDS + 1, host="elsewhere")
    assert state(ledger) == ("stale", True)
    held.release()
    assert state(ledger) == ("stale", False)
    say(ledger, "a", "running", host="elsewhere", pid=1)  # a fresh heartbeat is all there is to go by
    assert state(ledger) == ("running", True)
    say(ledger, "a", "failed", message="ValueError: no")
    assert state(ledger) == ("failed", False) and ledger.entries()[0].reason == "ValueError: no"
    say(ledger, "a", "stopped")
    assert state(ledger) == ("stopped", False)
    say(ledger, "a", "done", images_seen=1000)
    assert state(ledger) == ("done", False)


def test_neither_a_process_id_that_lives_again_nor_a_clock_ahead_holds_a_run(tmp_path):
    """Our own id is as alive as any that came back; a host whose clock was a day ahead has died."""
    ledger = study(tmp_path, "a")
    lock(ledger.run_directory("a") / LOCK).release()
    say(ledger, "a", "running")
    assert state(ledger) == ("stale", False)
    say(ledger, "a", "running", age=-86400)
    assert state(ledger) == ("stale", False)
    say(ledger, "a", "running", age=-86400, host="elsewhere", pid=1)
    assert state(ledger) == ("stale", False)
    ledger.launches.begin("s", ["a"], slurm=False)  # by a driver that is gone, whose id is ours now
    assert state(ledger)[1] is False


def test_where_there_are_no_locks_the_process_id_has_to_do(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    ledger = study(tmp_path, "a")
    RunDirectory(ledger.run_directory("a"), "hash", "").write_status("running", images_seen=1)
    assert state(ledger) == ("running", True)
    say(ledger, "a", "running", pid=gone_process())
    assert state(ledger) == ("stale", False)


def test_who_asks_for_a_lock_keeps_nobody_from_taking_it(tmp_path):
    """A reader looks all the time, while a run takes its directory and lets go of it again."""
    stop = threading.Event()

    def look():
        while not stop.is_set():
            is_held(tmp_path / LOCK)

    readers = [threading.Thread(target=look) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(30):
            RunDirectory(tmp_path, "hash", "").close()
    finally:
        stop.set()
        for reader in readers:
            reader.join()


def test_a_run_whose_end_has_moved_is_not_done(tmp_path):
    ledger = study(tmp_path, "a")
    say(ledger, "a", "done", images_seen=1000)
    study(tmp_path, "a", images=2000)
    assert state(ledger) == ("stopped", False)


def test_a_living_driver_holds_what_it_has_not_begun(tmp_path):
    ledger = study(tmp_path, "a", "b", "c")
    driver = lock(tmp_path / DRIVER_LOCK)
    say(ledger, "b", "failed", age=60)
    ledger.launches.begin("s", ["a", "b"], slurm=False)
    assert [state(ledger, name) for name in "abc"] == [("queued", True), ("queued", True), ("planned", False)]
    say(ledger, "b", "failed")  # tried and failed again, in this launch
    assert state(ledger, "b") == ("failed", False)
    driver.release()
    assert state(ledger) == ("planned", False)
    ledger.forget_dead_launches()
    assert not ledger.launches.all()


def test_what_slurm_has_is_held_without_its_driver(tmp_path, queue):
    ledger = study(tmp_path, "a", "b")
    launch = ledger.launches.begin("s", ["a", "b"], slurm=True)
    queue[:] = [("7_1", "PD", launch.name), ("8", "R", "other")]
    assert state(ledger, "a") == ("planned", False) and state(ledger, "b") == ("queued", True)
    queue[:] = [("7_1", "R", launch.name)]
    say(ledger, "b", "running", host="n1", job="7_1")
    assert state(ledger, "b") == ("running", True)
    queue[:] = [("7_1", "PD", launch.name)]  # preempted, or its node died: it waits to begin again
    assert state(ledger, "b") == ("queued", True)
    queue[:] = [("7_1", "R", launch.name)]
    say(ledger, "b", "running", host="n1", job="7_1", age=STALE_SECONDS + 1)  # hangs: SLURM ends it, not we
    assert state(ledger, "b") == ("stale", True)
    queue[:] = [None]  # no answer: nothing follows from it
    assert state(ledger, "a") == ("queued", True)
    ledger.forget_dead_launches()
    assert ledger.launches.all() == [launch]
    queue[:] = []
    say(ledger, "b", "running", host="n1", job="7_1")
    assert state(ledger, "b") == ("stale", False)
    ledger.forget_dead_launches()
    assert not ledger.launches.all()


def test_a_job_of_nobodys_launch_comes_back(tmp_path, queue):
    """slurm/train.sbatch, or an ordinary sweep: the run has stopped at a notice, and its job is in the queue again."""
    ledger = study(tmp_path, "a")
    for last in ("stopped", "running"):  # with the notice, or without
        say(ledger, "a", last, host="n1", job="9_2")
        queue[:] = [("9_2", "PD", "train")]
        assert state(ledger) == ("queued", True)
        queue[:] = []
        assert state(ledger) == ("stopped" if last == "stopped" else "stale", False)
    say(ledger, "a", "stopped", job="9")
    queue[:] = [("9", "R", "bash")]  # stopped by hand in an allocation, which goes on
    assert state(ledger) == ("stopped", False)


def test_no_plan_is_one_message(tmp_path):
    with pytest.raises(InputError, match=r"study\.directory"):
        Ledger(tmp_path).entries()


def _write(directory: Path, name: str, acknowledged) -> None:
    """Counts up in a run's status for ever, saying each number once it is on disk."""
    run = RunDirectory(directory / "runs" / name, "hash", "")
    count = (run.status() or {"images_seen": 0})["images_seen"]
    while True:
        count += 1
        run.write_status("running", images_seen=count, total_images=10**9, check=count * 7)
        acknowledged.value = count


def test_fifty_writers_and_twenty_kills_lose_and_tear_nothing(tmp_path):
    names = [f"r{index:02d}" for index in range(50)]
    ledger = study(tmp_path, *names, images=10**9)
    context, rng = multiprocessing.get_context("fork"), random.Random(0)
    counters = {name: context.Value("q", 0, lock=False) for name in names}
    writers = {}

    def begin(name: str) -> None:
        writers[name] = context.Process(target=_write, args=(tmp_path, name, counters[name]), daemon=True)
        writers[name].start()

    for name in names:
        begin(name)
    kills = 0
    while kills < 20 or not all(counter.value > 3 for counter in counters.values()):
        before = {name: counters[name].value for name in names}
        for entry in ledger.entries():  # raises on a torn file
            if entry.status:
                assert entry.status["check"] == 7 * entry.images_seen
            assert entry.images_seen >= before[entry.name], "an acknowledged state is lost"
        launch = ledger.launches.begin("s", rng.sample(names, 25), slurm=False)
        if kills < 20:
            victim = rng.choice(names)
            os.kill(writers[victim].pid, signal.SIGKILL)
            writers[victim].join()
            said = counters[victim].value
            entry = next(entry for entry in ledger.entries() if entry.name == victim)
            assert entry.images_seen in (said, said + 1)  # killed before it could say the last one
            begin(victim)
            kills += 1
        ledger.launches.end(launch)
    for writer in writers.values():
        writer.kill()
    for writer in writers.values():
        writer.join()
    assert {entry.state for entry in ledger.entries()} <= {"stale", "running"}
    assert all(entry.images_seen in (counters[entry.name].value, counters[entry.name].value + 1)
               for entry in ledger.entries())  # fmt: skip


def test_the_queue_is_read_from_squeue(tmp_path, monkeypatch):
    from dit.study.launches import slurm_queue

    fake = tmp_path / "squeue"
    fake.write_text("#!/bin/sh\nprintf '12|PD|dit-a|b\\n7_3|R|dit-c\\n'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    places = frozenset({("dit-a|b", 0), ("dit-c", 3)})
    assert slurm_queue(0) == SlurmQueue(frozenset({"7_3"}), frozenset({"12"}), places)
    fake.write_text("#!/bin/sh\nexit 1\n")
    assert slurm_queue(0) is None


def test_the_runs_of_an_ordinary_sweep_are_found_without_a_plan(tmp_path):
    held = [lock(tmp_path / name / LOCK) for name in ("a", "b")]
    for name in ("a", "b"):
        facts = {"images_seen": 5, "total_images": 10, **HERE}
        write_json(tmp_path / name / "status.json", {"state": "running", "heartbeat": time.time(), **facts})
    entries = Ledger(tmp_path).entries()
    assert [(entry.name, entry.state, entry.total_images) for entry in entries] == [
        ("a", "running", 10),
        ("b", "running", 10),
    ]
    held[0].release()
    assert [entry.state for entry in Ledger(tmp_path).entries()] == ["stale", "running"]
