"""A disk that is full or read-only: what libraries make of it is one message, and only what matters ends a run."""

import errno
import os

import numpy as np
import pytest

from dit.errors import disk_trouble

FULL = "No space left on device"


def _plain(path):
    with open(path, "wb") as file:
        file.write(b"0" * 100_000)


def _numpy(path):
    np.zeros(100_000).tofile(path)


def _torch(path):
    import torch

    torch.save(torch.zeros(100_000), path)


def _arrow(path):
    import pyarrow as pa

    with pa.OSFile(path, "wb") as file:
        file.write(b"0" * 100_000)


def _safetensors(path):
    import torch
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(100_000)}, path)


def _picture(path):
    from PIL import Image

    Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)).save(
        path, format="png"
    )


@pytest.mark.parametrize("write", [_plain, _numpy, _torch, _arrow, _picture])
def test_a_full_disk_is_told_from_other_errors(write):
    """The kernel's own full device, through each library that we write with."""
    with pytest.raises(Exception) as raised:
        write("/dev/full")
    said = disk_trouble(raised.value)
    assert said is not None and said.startswith(FULL) and "Make room" in said


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_the_cause_of_an_error_is_found_and_its_file_named(number):
    try:
        try:
            raise OSError(number, os.strerror(number), "runs/a/records.jsonl")
        except OSError as cause:
            raise RuntimeError("wrapped by a library") from cause
    except RuntimeError as error:
        assert disk_trouble(error).startswith(f"{os.strerror(number)}: runs/a/records.jsonl.")
    assert disk_trouble(ValueError("a bug of ours")) is None
    assert disk_trouble(FileNotFoundError(errno.ENOENT, "no such file", "x")) is None


def test_a_heartbeat_that_cannot_be_written_ends_no_run(tmp_path, monkeypatch, caplog):
    from dit import rundir

    def full(path, _value):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    run = rundir.RunDirectory(tmp_path, "hash", "")
    monkeypatch.setattr(rundir, "write_json", full)
    for _ in range(3):
        run.write_status("running", images_seen=1)
    run.write_status("failed", message="as the disk is full")
    assert caplog.text.count("the run goes on") == 1
    with pytest.raises(OSError, match=FULL):  # else a study would never learn of it
        run.write_status("done")


def test_output_that_a_full_disk_does_not_take_is_one_message(tmp_path):
    import subprocess
    import sys

    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "dit", "plan", "experiment=digits"]
        found = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True)
    assert found.returncode == 1
    assert found.stderr.count("\n") == 1 and FULL in found.stderr
