"""The records of a study, read and checked: what every fit, table and figure is made from.

A study directory holds ``plan.json`` (optional) and ``runs/<run>/records.jsonl`` (``dit.records`` writes
them), or one ``records.jsonl`` with the rows of all runs (the form in which a finished study is committed).
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from dit.errors import InputError
from dit.older import with_guidance, with_unit
from dit.records import KINDS, check_prefix, rows_of
from dit.study.files import check_rows, run_status
from dit.study.rows import IDENTITY, OF_EVALUATIONS, Row, check_row, check_samples
from dit.trust import LIST, check_fields, read_json

log = logging.getLogger("dit")
T = TypeVar("T")
CUT = "Only a file's last line may be cut short; restore this file from its run."


@dataclass(frozen=True)
class Study:
    """The rows of a study by kind, in the order of run name and then of writing.

    Args:
        directory: where the study lies; ``grid`` of a samples row is relative to ``run_directory(run)``.
        plan: what plan.json holds; empty where there is none.
        rows: kind -> rows.
        statuses: run -> what its status.json holds, for the runs that have one.
        torn: files whose last line was cut short by a kill and left out.
        evaluations: samples rows that ``dit evaluate`` made of the study's runs later.
        damaged: files that could not be read and were left out, and why.
    """

    directory: Path
    plan: dict[str, Any]
    rows: dict[str, list[Row]]
    statuses: dict[str, dict[str, Any]] = field(default_factory=dict)
    torn: tuple[str, ...] = ()
    evaluations: tuple[Row, ...] = ()
    damaged: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the study as its runs say it."""
        return str(self.runs[0]["study"])

    @property
    def runs(self) -> list[Row]:
        """The run rows, one per run."""
        return self.rows["run"]

    @property
    def validation(self) -> list[Row]:
        """The validation rows."""
        return self.rows["validation"]

    @property
    def samples(self) -> list[Row]:
        """The samples rows."""
        return self.rows["samples"]

    @property
    def train(self) -> list[Row]:
        """The train rows."""
        return self.rows["train"]

    @property
    def events(self) -> list[Row]:
        """The event rows: skipped steps and loss spikes."""
        return self.rows["event"]

    def run(self, name: str) -> Row:
        """The run row of run ``name``."""
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Row]:
        return {row["run"]: row for row in self.runs}

    def run_directory(self, name: str) -> Path:
        """Directory of run ``name``."""
        return self.directory / "runs" / name


def load_study(study_dir: str | Path) -> Study:
    """The records of a study.

    A last line without its newline is left out (a kill in the middle of a write; the writer drops it on
    resume) and its file named in ``Study.torn``. A file with any other line that cannot be read is left out as a
    whole, with a warning and in ``Study.damaged``: one damaged file hides no other run.

    Args:
        study_dir: where it lies.

    Raises:
        InputError: no records that can be read; the same run, or the same measurement of a run, twice, since which of
            them is right cannot be told.
    """
    directory = Path(study_dir)
    files = sorted(directory.glob("runs/*/records.jsonl"))
    if not files and (directory / "records.jsonl").is_file():
        files = [directory / "records.jsonl"]
    found = sorted(directory.glob("runs/*/status.json"))
    reader = _Reader(directory, {file.parent.name: run_status(file.parent) for file in found})
    rows: dict[str, list[Row]] = {kind: [] for kind in KINDS}
    seen: dict[tuple[Any, ...], str] = {}
    for file in files:
        for where, row in reader.try_to(reader.records, file) or ():
            _refuse_repeat(where, row, seen)
            rows[row["kind"]].append(row)
    if not rows["run"]:
        raise InputError(
            "study",
            str(directory),
            "a directory with runs/<run>/records.jsonl or records.jsonl in it",
            "; ".join(reader.damaged.values()) or "No run has written its first row there.",
        )
    _refuse_orphans(rows)
    evaluations = reader.all_evaluations({row["run"] for row in rows["run"]})
    plan = reader.try_to(_plan, directory / "plan.json") or {}
    return Study(directory, plan, rows, reader.statuses, tuple(reader.torn), evaluations, reader.damaged)


class _Reader:
    """Reads the files of a study one by one, and notes those that are cut short, and those that are damaged."""

    def __init__(self, directory: Path, statuses: dict[str, dict[str, Any]]) -> None:
        self.directory, self.statuses = directory, statuses
        self.torn: list[str] = []
        self.damaged: dict[str, str] = {}

    def try_to(self, read: Callable[[Path], T], file: Path) -> T | None:
        """The value that ``read`` makes of a file; None where the file is damaged."""
        try:
            return read(file)
        except InputError as error:
            log.warning("%s; the study is read without %s", error, self._shown(file))
            self.damaged[self._shown(file)] = str(error)
            return None

    def _shown(self, file: Path) -> str:
        return str(file.relative_to(self.directory))

    def records(self, file: Path) -> list[tuple[str, Row]]:
        """The rows of ``records.jsonl``, each with its place."""
        content = file.read_bytes()
        known = self.statuses.get(file.parent.name, {}).get("records")
        short = known is not None and not check_prefix(file, known)
        rows = []
        for where, _, row in rows_of(content, self._shown(file), CUT):
            check_row(where, row)
            rows.append((where, _completed(row)))
        if short or (content and not content.endswith(b"\n")):
            self.torn.append(self._shown(file))
        return rows

    def all_evaluations(self, runs: set[str]) -> tuple[Row, ...]:
        """The samples rows of ``evaluations.jsonl`` of the runs, or beside the study's one file of records."""
        files = (
            *sorted(self.directory.glob("runs/*/evaluations.jsonl")),
            self.directory / "evaluations.jsonl",
        )
        found = [self.try_to(self._evaluations, file) or [] for file in files if file.is_file()]
        # others are of images on disk, or under a name of its own
        return tuple(row for rows in found for row in rows if row["run"] in runs)

    def _evaluations(self, file: Path) -> list[Row]:
        check_rows(file)
        found = []
        for where, _, row in rows_of(file.read_bytes(), self._shown(file), CUT):
            if row.get("kind") == "samples":
                check_fields(where, row, OF_EVALUATIONS)
                check_samples(where, row)
                found.append(_completed(row))
        return found


def _plan(file: Path) -> dict[str, Any]:
    return read_json(file, {}, {"runs": LIST}) or {}


def _completed(row: Row) -> Row:
    """A row with the fields that older versions did not write."""
    if row["kind"] == "samples":
        return {**row, "protocol": with_guidance(row["protocol"])}
    return with_unit(row) if row["kind"] == "validation" else row


def _refuse_repeat(where: str, row: Row, seen: dict[tuple[Any, ...], str]) -> None:
    """Raises InputError where this row measures what an earlier one has measured."""
    kind, run = row["kind"], row["run"]
    keys: list[tuple[Any, ...]] = [(kind, run, *(row[name] for name in IDENTITY[kind]))]
    if kind == "run":
        keys.append(("config_hash", row["config_hash"]))
    for key in keys:
        if key in seen:
            what = f"(the same {kind} as {seen[key]}: {', '.join(map(str, key[1:]))})"
            raise InputError(where, what, "each run and each measurement once", "Remove the copy.")
        seen[key] = where


def _refuse_orphans(rows: dict[str, list[Row]]) -> None:
    """Raises InputError where a measurement names a run that has no run row."""
    known = {row["run"] for row in rows["run"]}
    for kind in KINDS:
        for row in rows[kind]:
            if row["run"] not in known:
                raise InputError(
                    f"run {row['run']}", f"({kind} rows, no run row)", "a run row before any measurement"
                )
