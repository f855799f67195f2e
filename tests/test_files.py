"""Files appear whole or not at all. The oracle of a power cut: what was not synchronised is lost."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import dit
from dit.condition import Classes
from dit.domain import Domain
from dit.evaluation.grids.pictures import write_png
from dit.evaluation.images import write_npz
from dit.evaluation.report import write_report
from dit.evaluation.statistics import write_arrays
from dit.files import remove_unfinished, whole, write_json, write_text
from dit.network.config import DiTConfig
from dit.network.dit import DiT
from dit.network.export import save_dit, save_safetensors
from dit.rundir import RunDirectory
from tests.evaluation.test_report import row


@pytest.fixture
def power(monkeypatch):
    """Asserts at each rename that all bytes under the new name are on disk, as a disk that loses power needs it."""
    durable: set[int] = set()
    renamed: list[str] = []
    fsync, rename, replace = os.fsync, os.rename, os.replace

    def synchronise(fd: int) -> None:
        fsync(fd)
        durable.add(os.fstat(fd).st_ino)

    def renaming(act):
        def checked(source, target, **kwargs) -> None:
            parts = [Path(source), *Path(source).rglob("*")]
            torn = [part for part in parts if part.stat().st_ino not in durable]
            assert not torn, f"{target}: renamed before {torn} were on disk"
            act(source, target, **kwargs)
            renamed.append(os.path.basename(target))

        return checked

    monkeypatch.setattr(os, "fsync", synchronise)
    monkeypatch.setattr(os, "rename", renaming(rename))
    monkeypatch.setattr(os, "replace", renaming(replace))
    return renamed


def network() -> DiT:
    return DiT(DiTConfig(depth=1, width=16, heads=2, patch_size=2), Domain(4, (4, 4)), Classes(3))


WRITERS = {
    "statistics": lambda path: write_arrays(path, {"mu": np.zeros(2)}, {}),
    "images": lambda path: write_npz(path, [torch.zeros(1, 3, 2, 2, dtype=torch.uint8)], 1),
    "picture": lambda path: write_png(path, np.zeros((2, 2, 3), np.uint8)),
    "export": lambda path: save_safetensors(network(), path),
    "dit": lambda path: save_dit(network(), path),
    "json": lambda path: write_json(path, {"a": 1}),
    "text": lambda path: write_text(path, "ü"),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_bytes_are_on_disk_before_the_file_has_its_name(kind, tmp_path, power):
    WRITERS[kind](tmp_path / "file")
    assert power == ["file"]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_appears_whole_and_an_older_one_stays(tmp_path, power):
    for content in ("first", "second"):
        with whole(tmp_path / "folder") as partial:
            (partial / "deep").mkdir(parents=True)
            (partial / "deep" / "file").write_text(content)
    assert (tmp_path / "folder" / "deep" / "file").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_what_raises_leaves_the_old_file_and_nothing_else(tmp_path):
    path = write_text(tmp_path / "file", "old")
    with pytest.raises(OSError, match="full"), whole(path) as partial:
        partial.write_text("half of the n")
        raise OSError("the disk is full")
    assert path.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_place_of_writing_cannot_be_foretold(tmp_path):
    places = set()
    for _ in range(2):
        with whole(tmp_path / ("n" * 255)) as partial:  # as long a name as file systems take
            partial.write_text("")
        places.add(partial)
    assert len(places) == 2


def test_the_owner_of_a_run_removes_what_dead_processes_left(tmp_path):
    writing = whole(tmp_path / "status.json")
    writing.__enter__().write_text("half")  # killed here
    (tmp_path / "mine.tmp").touch()
    RunDirectory(tmp_path, "hash", "config: 1\n").close()
    assert (tmp_path / "mine.tmp").is_file()
    assert not list(tmp_path.glob(".status.json.*"))
    remove_unfinished(tmp_path)


def test_nobody_else_renames():
    """Whoever renames elsewhere says here why: several processes share what they build."""
    shared = {"data/encode.py", "training/saving.py", "files.py"}
    root = Path(dit.__file__).parent
    pattern = re.compile(r"os\.(rename|replace)\(|\.rename\(|\.replace\([a-z_.]*path\)")
    found = {str(p.relative_to(root)) for p in root.rglob("*.py") if pattern.search(p.read_text())}
    assert found == shared


def test_a_report_of_evaluations_is_whole(tmp_path, power):
    write_report([row("a", 1.0)], tmp_path)
    assert sorted(power) == ["evaluations.csv", "report.html"]
