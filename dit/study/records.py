"""The records of a study, read and checked: what every fit, table and figure is made from.

A study directory holds ``plan.json`` (optional) and ``runs/<run>/records.jsonl`` (``dit.records`` writes
them), or one ``records.jsonl`` with the rows of all runs (the form in which a finished study is committed).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from dit.errors import InputError
from dit.older import with_guidance
from dit.reading import INTEGER, LIST, NULL, NUMBER, OBJECT, TEXT, check_fields, parse, read_json
from dit.records import KINDS, SCHEMA, check_prefix
from dit.study.files import check_rows, run_status

Row = dict[str, Any]

# Fields that a row must have and their types; further fields are kept as they are. A measured number may be
# null (a diverged run; the row then says so under "non_finite").
FIELDS: dict[str, dict[str, tuple[type, ...]]] = {
    "run": {
        "study": TEXT,
        "config_hash": TEXT,
        "git_commit": (str, NULL),
        "objective": (str, dict),
        "network": OBJECT,
        "n_params_total": INTEGER,
        "n_params_by_group": OBJECT,
        "tokens_per_image": INTEGER,
        "macs_per_image": NUMBER,
        "macs_per_token": NUMBER,
        "train_flops_per_image": NUMBER,
        "batch_size": INTEGER,
        "lr": NUMBER,
        "lr_rule": (str, dict, NULL),
        "seed": INTEGER,
        "warmup_images": NUMBER,
        "ema": (str, dict, list, int, float, NULL),
        "data": OBJECT,
    },
    "train": {"images_seen": INTEGER, "train_flops": NUMBER, "loss": (*NUMBER, NULL)},
    "event": {"images_seen": INTEGER, "train_flops": NUMBER, "event": TEXT, "step": INTEGER},
    "validation": {
        "images_seen": INTEGER,
        "train_flops": NUMBER,
        "budget_flops": (*NUMBER, NULL),
        "weights": TEXT,
        "loss": (*NUMBER, NULL),
        "loss_bins": LIST,
        "log_snr_edges": LIST,
        "n_draws": INTEGER,
        "draws_hash": TEXT,
    },
    "samples": {
        "images_seen": INTEGER,
        "train_flops": NUMBER,
        "budget_flops": (*NUMBER, NULL),
        "weights": TEXT,
        "frechet_distance": (*NUMBER, NULL),
        "n": INTEGER,
        "protocol": OBJECT,
        "protocol_hash": TEXT,
    },
}
OF_EVALUATIONS: dict[str, tuple[type, ...]] = {
    "images_seen": INTEGER, "train_flops": NUMBER, "n": INTEGER, "protocol": OBJECT,
}  # fmt: skip
# Numbers of a run row that fits divide by.
SIZES = (
    "n_params_total",
    "tokens_per_image",
    "macs_per_image",
    "macs_per_token",
    "train_flops_per_image",
    "batch_size",
)
# What tells one row of a kind from the next one of the same run.
IDENTITY = {
    "run": (),
    "train": ("images_seen",),
    "event": ("images_seen", "event", "step"),
    "validation": ("images_seen", "budget_flops", "weights", "draws_hash"),
    "samples": ("images_seen", "budget_flops", "weights", "protocol_hash"),
}


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
    """

    directory: Path
    plan: dict[str, Any]
    rows: dict[str, list[Row]]
    statuses: dict[str, dict[str, Any]] = field(default_factory=dict)
    torn: tuple[str, ...] = ()
    evaluations: tuple[Row, ...] = ()

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
    resume) and its file named in ``Study.torn``; any other line that cannot be read is an error.

    Raises:
        InputError: no records; a line that is no JSON object; a missing field or a wrong type; an unknown
            kind or schema; the same run, or the same measurement of a run, twice. The message names file and
            line.
    """
    directory = Path(study_dir)
    files = sorted(directory.glob("runs/*/records.jsonl"))
    if not files and (directory / "records.jsonl").is_file():
        files = [directory / "records.jsonl"]
    found = sorted(directory.glob("runs/*/status.json"))
    statuses = {file.parent.name: run_status(file.parent) for file in found}
    rows: dict[str, list[Row]] = {kind: [] for kind in KINDS}
    seen: dict[tuple[Any, ...], str] = {}
    torn = []
    for file in files:
        shown = str(file.relative_to(directory))
        content = file.read_bytes()
        known = statuses.get(file.parent.name, {}).get("records")
        short = known is not None and not check_prefix(file, known)
        if short or (content and not content.endswith(b"\n")):
            torn.append(shown)
        for where, row in _lines(shown, content):
            _check(where, row)
            row = _completed(row)
            _refuse_repeat(where, row, seen)
            rows[row["kind"]].append(row)
    if not rows["run"]:
        raise InputError(
            "study",
            str(directory),
            "a directory with runs/<run>/records.jsonl or records.jsonl in it",
            "No run has written its first row there.",
        )
    _refuse_orphans(rows)
    plan = read_json(directory / "plan.json") or {}
    return Study(directory, plan, rows, statuses, tuple(torn), _evaluations(directory, rows["run"]))


def _evaluations(directory: Path, runs: list[Row]) -> tuple[Row, ...]:
    """The samples rows of ``evaluations.jsonl`` of the runs, or beside the study's one file of records."""
    known, found = {row["run"] for row in runs}, []
    for file in (*sorted(directory.glob("runs/*/evaluations.jsonl")), directory / "evaluations.jsonl"):
        if not file.is_file():
            continue
        check_rows(file)
        for where, row in _lines(str(file.relative_to(directory)), file.read_bytes()):
            if row.get("kind") != "samples" or row.get("run") not in known:
                continue  # of images on disk, or under a name of its own
            check_fields(where, row, OF_EVALUATIONS)
            found.append(_completed(row))
    return tuple(found)


def _completed(row: Row) -> Row:
    """A row with the fields that older versions did not write."""
    return {**row, "protocol": with_guidance(row["protocol"])} if row["kind"] == "samples" else row


def _lines(file: str, content: bytes) -> Iterator[tuple[str, Row]]:
    """The complete lines of a file as ("file:line", row)."""
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        where = f"{file}:{number}"
        row = parse(line, where, "Only a file's last line may be cut short; restore this file from its run.")
        if not isinstance(row, dict):
            raise InputError(where, row, "one JSON object per line")
        yield where, row


def _check(where: str, row: Row) -> None:
    """Raises InputError unless the row has the schema, the kind and the fields of its kind."""
    if row.get("schema") != SCHEMA:
        raise InputError(
            f"{where}: schema", row.get("schema"), str(SCHEMA), "Read it with the version that wrote it."
        )
    kind = row.get("kind")
    if kind not in KINDS:
        raise InputError(f"{where}: kind", kind, "one of " + ", ".join(KINDS))
    run = row.get("run")
    if not isinstance(run, str) or run in ("", ".", "..") or {"/", "\0"} & set(run):  # it names a folder
        raise InputError(f"{where}: run", run, "the name of the run")
    check_fields(where, row, FIELDS[kind])
    if kind == "run":
        _check_sizes(where, row)
    elif row["images_seen"] < 0 or row["train_flops"] < 0:
        raise InputError(
            f"{where}: images_seen, train_flops", (row["images_seen"], row["train_flops"]), ">= 0"
        )


def _check_sizes(where: str, row: Row) -> None:
    """Raises InputError unless the sizes that fits divide by are positive."""
    for name in SIZES:
        if row[name] <= 0:
            raise InputError(f"{where}: {name}", row[name], "> 0")


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
