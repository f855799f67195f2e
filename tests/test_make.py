"""The Makefile: with a Python that is too old, one line and nothing made."""

import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parent.parent / "Makefile"
OLD = """#!/bin/sh
case "$2" in *print*) echo 3.10;; *) exit 1;; esac
"""


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(("python", "told"), [("./old", "./old is 3.10"), ("./none", "./none is not there")])
def test_a_python_that_is_too_old_is_one_line_and_makes_nothing(tmp_path, python, told):
    (tmp_path / "old").write_text(OLD)
    (tmp_path / "old").chmod(0o755)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    command = ["make", "-f", str(MAKEFILE), "study", f"PYTHON={python}"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 2
    assert f"dit needs Python 3.11 or newer; {told}: make study PYTHON=python3.12\n" in found.stderr
    assert not (tmp_path / ".venv").exists()
