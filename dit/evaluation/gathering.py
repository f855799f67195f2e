"""Evaluations kept on disk, gathered for a page. Imports no torch."""

import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dit.errors import InputError
from dit.evaluation.journal import NAME, read_rows
from dit.evaluation.protocol import Protocol, require_equal
from dit.evaluation.report import SWEPT, Row, write_report
from dit.trust import picture_below

log = logging.getLogger("dit")

SOURCES = (NAME, "records.jsonl")  # of dit evaluate, of training
NO_METRICS = frozenset({"images_seen", "train_flops", "budget_flops", "image_size", "schema"})


def report_of(directory: Path, models: Iterable[str] | None = None) -> Path:
    """Writes ``report.html`` and ``evaluations.csv`` of all evaluations under a directory into it; gives the page.

    Args:
        directory: of runs, studies, or what ``dit evaluate out=`` made.
        models: these alone, which must have been measured under one protocol; None takes all.

    Raises:
        InputError: there are no evaluations, or the models have no protocol in common: the message names the field in
            conflict.
    """
    found = gather(directory)
    rows = list(found.rows) if models is None else common(found.rows, list(models))
    return write_report(rows, directory, notes=found.notes())


@dataclass(frozen=True)
class Gathered:
    """The evaluations under a directory.

    Args:
        rows: in the order of their files.
        damaged: files that could not be read, relative to the directory, and why.
        incomplete: models that have rows beside a damaged file, which may have held more of them.
    """

    rows: Sequence[Row]
    damaged: Mapping[str, str]
    incomplete: Sequence[str]

    def notes(self) -> list[str]:
        """What a reader must know before believing the numbers."""
        if not self.damaged:
            return []
        told = "; ".join(f"{file} ({why})" for file, why in self.damaged.items())
        notes = [f"Damaged, and left out with all the models and numbers that it held: {told}."]
        if self.incomplete:
            notes.append(
                "Numbers that stood beside it may lack metrics, sampling seeds or protocols: "
                f"{', '.join(self.incomplete)}."
            )
        return notes


def gather(directory: Path) -> Gathered:
    """Every evaluation under a directory; metrics of one model under one protocol together, the last of each.

    Of weights or images that have changed under a name, the last are shown alone. A file that is damaged is left out
    with a warning: it hides no other model. ``dit evaluate run=RUN`` refuses it instead, since it would add to it.
    """
    if not directory.is_dir():
        raise InputError("report", str(directory), "a directory with evaluations in it")
    paths = sorted(path for name in SOURCES for path in directory.rglob(name))
    damaged: dict[str, str] = {}
    records = [(path.parent, *each) for path in paths for each in _unless_damaged(path, directory, damaged)]
    beside = {(directory / file).parent for file in damaged}
    incomplete: dict[str, None] = {}
    # Runs of one name in several studies: run -> configuration hash -> where it lies
    places: dict[str, dict[str | None, Path]] = {}
    clocks: dict[tuple[str, str | None], set[int]] = {}
    for folder, config_hash, record in records:
        places.setdefault(record["run"], {}).setdefault(config_hash, folder.relative_to(directory))
        clocks.setdefault((record["run"], config_hash), set()).add(record.get("images_seen", 0))
    rows: dict[tuple[str, str], Row] = {}
    contents: dict[tuple[str, str], str | None] = {}  # hashes of what was measured
    replaced: set[str] = set()
    for folder, config_hash, record in records:
        run = record["run"]
        name = _name(run, config_hash, places[run])
        if len(clocks[run, config_hash]) > 1 and "images_seen" in record:
            name += f", {record['images_seen']:,} images"
        row = as_row(record, name, folder)
        if folder in beside:
            incomplete[name] = None
        key = row.model, row.protocol.hash
        content = record.get("content") or contents.get(key)  # rows of training do not say
        if contents.setdefault(key, content) not in (None, content):
            replaced.add(row.model)
        elif key in rows:
            known = {name: value for name, value in row.metrics.items() if value is not None}
            row = replace(row, metrics={**rows[key].metrics, **known})
        rows[key], contents[key] = row, content
    for name in sorted(replaced):
        log.warning(
            "%s: what was measured under this name has changed; the last is shown (name= tells apart)", name
        )
    if not rows:
        remedy = "; ".join(damaged.values()) or "Make some: dit evaluate run=RUN, or images=... out=DIR."
        raise InputError(
            "report", str(directory), f"a directory with {' or '.join(SOURCES)} below it", remedy
        )
    return Gathered(list(rows.values()), damaged, list(incomplete))


def _unless_damaged(
    path: Path, directory: Path, damaged: dict[str, str]
) -> list[tuple[str | None, dict[str, Any]]]:
    """The rows of a file; of a damaged one none, and why in ``damaged``."""
    try:
        found = list(_with_hashes(path))
        for _, record in found:
            Protocol.from_dict(record["protocol"])
        return found
    except InputError as error:
        file = str(path.relative_to(directory))
        log.warning("%s: %s The page is made without this file.", file, error)
        damaged[file] = str(error)
        return []


def _name(run: str, config_hash: str | None, places: Mapping[str | None, Path]) -> str:
    """What tells a run from others of its name: where it lies, or the configuration of those that lie together."""
    if len(places) == 1:
        return run
    apart = len(set(places.values())) == len(places)
    return f"{run} in {places[config_hash]}" if apart else f"{run} {str(config_hash)[:8]}"


def _with_hashes(path: Path) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """The ``samples`` rows of a file, each with the configuration hash of its run; None for images from files."""
    known = {row["run"]: row["config_hash"] for row in read_rows(path, "run")}
    for record in read_rows(path):
        yield record.get("config_hash") or known.get(record["run"]), record


def as_row(record: Mapping[str, Any], model: str | None = None, folder: Path | None = None) -> Row:
    """A ``samples`` record as a row of the page.

    Args:
        record: as ``evaluations.jsonl`` and ``records.jsonl`` hold them.
        model: what to call its model; None: the run's name.
        folder: where its picture lies.
    """
    picture = picture_below(folder, record.get("grid")) if folder is not None else None
    metrics = {
        name: value
        for name, value in record.items()
        if name not in NO_METRICS
        and (value is None or isinstance(value, (int, float)))
        and not isinstance(value, bool)
    }
    return Row(
        model=model or record["run"],
        metrics=metrics,
        protocol=Protocol.from_dict(record["protocol"]),
        picture=picture.read_bytes() if picture is not None else None,
        resolution=record.get("image_size"),
    )


def common(rows: Iterable[Row], models: list[str]) -> list[Row]:
    """The rows of the named models, which must share a protocol but for what is swept."""
    rows = list(rows)
    chosen = {name: [row for row in rows if row.model == name] for name in models}
    for name, found in chosen.items():
        if not found:
            known = ", ".join(sorted({f"'{row.model}'" for row in rows}))
            raise InputError("models", name, f"some of {known}")
    for one, two in itertools.pairwise(models):
        try:  # the nearest pair, so that the message names what really differs
            pairs = itertools.product(chosen[one], chosen[two])
            nearest = min(pairs, key=lambda pair: _differences(*pair))
            require_equal([row.protocol for row in nearest], varying=SWEPT)
        except InputError as error:
            raise InputError(
                f"models {one}, {two}: {error.key}", error.got, error.allowed, error.remedy
            ) from None
    return [row for name in models for row in chosen[name]]


def _differences(one: Row, two: Row) -> int:
    first, second = one.protocol.as_dict(), two.protocol.as_dict()
    return sum(first[name] != second[name] for name in first if name not in SWEPT)
