"""Processes: where ranks meet, what their launchers say, and that nobody outlives who started them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dit.errors import InputError
from dit.launch import World, _first_node, _rendezvous

# Forms of `man scontrol` (show hostnames) and `man slurm.conf` (NodeName) of SLURM 23.11, and the first host of each.
NODE_LISTS = {
    "n1": "n1",
    "n1,n3": "n1",
    "tux[1-3]": "tux1",
    "a[07-09,12],b1": "a07",
    "rack[1-2]node[1-4]": "rack1node1",
    "rack[3,5]node[02-04,9],x": "rack3node02",
    "gpu[01-02]-ib": "gpu01-ib",
    "n[1-2].dom": "n1.dom",
    "n1.dom,n2.dom": "n1.dom",
    "[9-11]x": "9x",
}


@pytest.mark.parametrize("nodes", NODE_LISTS)
def test_the_first_host_of_a_node_list(nodes, tmp_path, monkeypatch):
    """Where a container has no scontrol."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _first_node(nodes) == NODE_LISTS[nodes]


def test_slurms_own_command_knows_the_hosts(tmp_path, monkeypatch):
    command = tmp_path / "scontrol"
    command.write_text('#!/bin/sh\n[ "$1 $2" = "show hostnames" ] && printf "of $3\\nsecond\\n"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert _first_node("n[1-2]") == "of"


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"RANK": "one"}, "RANK"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE"),
        ({"LOCAL_RANK": "-1"}, "LOCAL_RANK"),
        ({"MASTER_PORT": "http"}, "MASTER_PORT"),
        ({"MASTER_PORT": None}, "MASTER_PORT"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR"),
        ({"MASTER_ADDR": None, "MASTER_PORT": None}, "MASTER_ADDR"),
    ],
)
def test_what_no_launcher_would_say_is_one_message(wrong, name):
    good = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "::1", "MASTER_PORT": "29500"}
    said = {key: value for key, value in {**good, **wrong}.items() if value is not None}
    with pytest.raises(InputError, match=f"^{name}: "):
        World.of_launcher(said)
        _rendezvous(said)


@pytest.mark.parametrize("address", ["::1", "[::1]", "127.0.0.1"])
def test_ranks_meet_at_any_address(address, tmp_path):
    script = """
import sys, torch
from dit.launch import World, part
environment = {"MASTER_ADDR": sys.argv[1], "MASTER_PORT": sys.argv[2]}
rank = int(sys.argv[3])
World(rank, 2, rank, 2).meet("cpu", environment)
found = torch.tensor([rank + 1])
torch.distributed.all_reduce(found)
assert found.item() == 3
part()
"""
    if address != "127.0.0.1" and not Path("/proc/net/if_inet6").exists():
        pytest.skip("no IPv6 here")
    from dit.launch import _free_port

    command = [sys.executable, "-c", script, address, str(_free_port())]
    ranks = [subprocess.Popen([*command, str(rank)], stderr=subprocess.PIPE) for rank in (0, 1)]
    for rank in ranks:
        _, stderr = rank.communicate(timeout=120)
        assert rank.returncode == 0, stderr.decode()


IN_CHILD = "from dit.launch import in_child; in_child(['sleep', '1{}'])"
OF_TORCHRUN = """
import os, subprocess, sys
child = '''
import time, dit.cli
dit.cli.importlib.import_module = lambda name: time.sleep(1000)  # instead of a run
dit.cli.main(["train", "marked-{}"])
'''
subprocess.run([sys.executable, "-c", child], env={{**os.environ, "TORCHELASTIC_RUN_ID": "1"}})
"""
IN_PROCESSES = """
import time
from dit.launch import in_processes
if __name__ == "__main__":
    in_processes(2, time.sleep, 2{})
"""
SHARED = {
    "the encoding of a study": IN_CHILD,
    "a rank of torchrun": OF_TORCHRUN,
    "ranks of our own": IN_PROCESSES,
}


@pytest.mark.parametrize("who", SHARED)
def test_nobody_outlives_a_killed_parent(who, tmp_path):
    """SIGKILL, which nothing can answer: the kernel ends the children."""
    (tmp_path / "parent.py").write_text(SHARED[who].format(os.getpid()))
    parent = subprocess.Popen([sys.executable, str(tmp_path / "parent.py")])
    children = _wait(lambda: _children(parent.pid))
    time.sleep(1)  # until they have asked the kernel
    children = children | _children(parent.pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert children
    assert _wait(lambda: not any(_lives(pid) for pid in children)), who


LATE = """
import os, sys, time
from multiprocessing import get_context

class Slow:
    def __reduce__(self):
        return _unpickled, (os.getpid(),)

def _unpickled(parent):  # the child has all that it needs, and is still importing
    open(f"child-{os.getpid()}", "w").close()
    while os.getppid() == parent:
        time.sleep(0.02)

def work(_):
    from torch.utils.data import _utils
    from dit.training.batches import Batches
    _utils.worker._worker_info = _utils.worker.WorkerInfo(id=0, num_workers=1, seed=0, dataset=None)
    iter(Batches(None, None, 0, 10))
    open("lives", "w").close()

if __name__ == "__main__":
    get_context("spawn").Process(target=work, args=(Slow(),)).start()
    time.sleep(1000)
"""


def test_a_worker_whose_parent_died_while_it_started_ends_before_its_first_batch(tmp_path):
    (tmp_path / "parent.py").write_text(LATE)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    parent = subprocess.Popen([sys.executable, "parent.py"], cwd=tmp_path, env=environment)
    assert _wait(lambda: [*tmp_path.glob("child-*")], seconds=60)
    parent.kill()
    parent.wait()
    (child,) = tmp_path.glob("child-*")
    assert _wait(lambda: not _lives(int(child.name.partition("-")[2])), seconds=60)
    assert not (tmp_path / "lives").exists()


LAST = """
import os, signal, sys
from dit import cli

class Last:  # taken apart with this module, after Python has given back its handlers
    def __del__(self, kill=os.kill, me=os.getpid()):
        kill(me, {0})

last = Last()
cli.importlib.import_module = lambda name: sys.exit(75)  # instead of a run that has stopped
cli.main(["train"])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_as_the_process_ends_does_not_change_its_exit_code(number):
    script = LAST.format(int(number))
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 75


def test_a_signal_ends_the_command_of_a_study_too(tmp_path):
    script = "from dit import signals; signals.listen(); from dit.launch import in_child; "
    script += "print(in_child(['sleep', '1000']))"
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    _wait(lambda: _children(parent.pid))
    parent.send_signal(signal.SIGTERM)
    assert parent.communicate(timeout=30)[0].strip() == str(-signal.SIGTERM)


def _wait(found, seconds: float = 30.0):
    deadline = time.monotonic() + seconds
    while not (value := found()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return value


def _children(pid: int) -> set[int]:
    """Of a process, but for what multiprocessing tracks its resources with, which ends by itself."""
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return set()
    return {
        int(child)
        for child in listed
        if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes()
    }


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
