"""A whole study, small: done once it does nothing again, and a killed one ends as the undisturbed one."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import TINY, dit

STUDY = [
    "study",
    "experiment=digits",
    *TINY,
    "evaluation=none",
    "batch_size=16",
    "study.budgets_flops=[1.5e9,4.74e9,1.5e10]",
    "study.widths=[16,32,48]",
    "study.force=true",
    "study.min_images=1280",
    "study.max_images=16000",
    "checkpoint_every_images=512",
]


def arguments(tiny_latents, name):
    return [*STUDY, f"data.directory={tiny_latents}", f"study.directory={name}"]


def records(study: Path) -> dict[str, str]:
    """The records of each run, without the commit, which may move while this checkout is worked on."""
    files = sorted(study.glob("runs/*/records.jsonl"))
    return {file.parent.name: re.sub(r'"git_commit":"[^"]*"', "", file.read_text()) for file in files}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, tiny_latents):
    """A finished study."""
    folder = tmp_path_factory.mktemp("study")
    found = dit(*arguments(tiny_latents, "one"), cwd=folder, check=0)
    assert "report.html" in found.stdout
    return folder / "one"


def test_a_study_ends_with_a_report(undisturbed):
    assert set(records(undisturbed)) == {"w0016", "w0032", "w0048"}
    page = (undisturbed / "report/report.html").read_text()
    assert "w0016" in page and list((undisturbed / "report").glob("*.csv"))


def test_a_second_start_launches_nothing(undisturbed, tiny_latents):
    before = {path: path.stat().st_mtime_ns for path in undisturbed.glob("runs/**/*") if path.is_file()}
    begun = time.monotonic()
    found = dit(*arguments(tiny_latents, "one"), cwd=undisturbed.parent, check=0)
    assert time.monotonic() - begun < 15
    assert "report.html" in found.stdout
    assert {
        path: path.stat().st_mtime_ns for path in undisturbed.glob("runs/**/*") if path.is_file()
    } == before


def test_a_study_of_other_settings_is_refused(undisturbed, tiny_latents):
    found = dit(*arguments(tiny_latents, "one"), "optimizer.lr=0.001", cwd=undisturbed.parent, check=2)
    assert "study.directory" in found.stderr and "Traceback" not in found.stderr


def test_a_mistake_in_every_run_is_one_message(tiny_latents, tmp_path):
    found = dit(*arguments(tiny_latents, "wrong"), "optimizer.lr=-1", cwd=tmp_path, check=2)
    assert "optimizer.lr" in found.stderr and "Traceback" not in found.stderr


def test_status_from_another_shell(undisturbed):
    import json

    found = dit("status", "study.directory=one", "format=json", cwd=undisturbed.parent, check=0)
    assert json.loads(found.stdout)["counts"] == {"done": 3}


def test_a_killed_study_ends_as_the_undisturbed_one(undisturbed, tiny_latents):
    """kill -9 of the driver and its workers in the middle; then the same command again."""
    folder = undisturbed.parent
    command = [sys.executable, "-m", "dit", *arguments(tiny_latents, "killed")]
    driver = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while (
        not list((folder / "killed").glob("runs/*/checkpoints/images-*[0-9]")) and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    os.kill(driver.pid, signal.SIGKILL)  # the workers die with it
    driver.wait()
    time.sleep(1)
    unfinished = records(folder / "killed")
    assert unfinished != records(undisturbed)
    dit(*arguments(tiny_latents, "killed"), cwd=folder, check=0)
    assert records(folder / "killed") == records(undisturbed)


def test_a_stopped_study_is_resumable(undisturbed, tiny_latents):
    folder = undisturbed.parent
    command = [sys.executable, "-m", "dit", *arguments(tiny_latents, "stopped")]
    driver = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list((folder / "stopped").glob("runs/*/status.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(timeout=60) == 75
    dit(*arguments(tiny_latents, "stopped"), cwd=folder, check=0)
    assert records(folder / "stopped") == records(undisturbed)


def test_a_study_grows_and_keeps_what_is_done(undisturbed, tiny_latents):
    """Begun with one width and one budget less, then grown: the rows are those of the study made at once."""
    folder = undisturbed.parent
    small = ["study.budgets_flops=[1.5e9,4.74e9]", "study.widths=[16,32]"]
    dit(*arguments(tiny_latents, "grown"), *small, cwd=folder, check=0)
    before = {path: path.read_bytes() for path in folder.glob("grown/runs/*/checkpoints/*/manifest.json")}
    dit(*arguments(tiny_latents, "grown"), cwd=folder, check=0)
    assert records(folder / "grown") == records(undisturbed)
    # what was trained is kept: the checkpoints at the first ends are those of then
    assert all(path.read_bytes() == text for path, text in before.items() if path.exists())
    found = dit(*arguments(tiny_latents, "grown"), "study.budgets_flops=[3e9,1.5e10]", cwd=folder, check=2)
    assert "study.budgets_flops" in found.stderr and "Traceback" not in found.stderr


def test_the_sweeper_is_the_study(undisturbed, tiny_latents):
    command = ["train", "-m", "hydra/sweeper=study", *arguments(tiny_latents, "one")[1:]]
    before = records(undisturbed)
    found = dit(*command, cwd=undisturbed.parent, check=0)
    assert "report.html" in found.stdout and records(undisturbed) == before


def test_a_failing_run_stops_no_other_and_is_reported(tiny_latents, tmp_path):
    (tmp_path / "study/runs/w0016/records.jsonl").mkdir(parents=True)  # no file can be written there
    grid = ["study.budgets_flops=[1.5e9,4.74e9]", "study.widths=[16,32]"]
    found = dit(*arguments(tiny_latents, "study"), *grid, cwd=tmp_path, check=1)
    assert "trying w0016 again" in found.stderr
    last = found.stderr.strip().splitlines()[-2:]
    assert "1 of 2 runs not done after 2 attempts" in last[0] and "w0016: IsADirectoryError" in last[1]
    shown = dit("status", "study.directory=study", cwd=tmp_path, check=0).stdout
    assert "1 done, 1 failed" in shown and "IsADirectoryError" in shown
