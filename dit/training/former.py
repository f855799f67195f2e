"""Readings that a run has made and is not asked for any more, such as that of an end which was moved since.

A run that falls back behind one, its newest checkpoint being damaged, drops the rows and makes them again on its way.
``readings.json`` in its directory remembers them meanwhile, whatever ends the process.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from dit.errors import InputError
from dit.files import write_json
from dit.records import RecordWriter
from dit.training.settings import ReadPoint
from dit.trust import LIST, read_json, sealed

FILE = "readings.json"


@dataclass(frozen=True)
class Former:
    """One such reading.

    Attributes:
        images_seen: its clock.
        budget_flops: its budget, or None.
        n_samples: rows of generated images that it has.
    """

    images_seen: int
    budget_flops: float | None
    n_samples: int

    def point(self, batch_size: int) -> ReadPoint:
        """Where it is made again."""
        return ReadPoint(self.images_seen // batch_size, self.budget_flops)


def former_readings(
    directory: Path, writer: RecordWriter, resumed_at: int, asked: Collection[int]
) -> list[Former]:
    """Those behind the clock that a run goes on from; to be called before its records are cut there.

    Args:
        directory: of the run, which this process holds.
        writer: of its records.
        resumed_at: images seen at the checkpoint, 0 without one.
        asked: the clocks at which it is asked to be read.
    """
    found = {entry.images_seen: entry for entry in _remembered(directory / FILE)}
    rows = [row for _, row in writer.rows()]
    n_samples = Counter(row["images_seen"] for row in rows if row["kind"] == "samples")
    for row in rows:
        if row["kind"] == "validation":
            clock = row["images_seen"]
            found[clock] = Former(clock, row["budget_flops"], n_samples[clock])
    kept = [found[clock] for clock in sorted(found) if clock > resumed_at and clock not in asked]
    if kept:
        write_json(directory / FILE, sealed({"readings": [asdict(entry) for entry in kept]}))
    else:
        (directory / FILE).unlink(missing_ok=True)
    return kept


def _remembered(file: Path) -> list[Former]:
    found = read_json(file, {"readings": LIST}) or {"readings": []}
    try:
        return [Former(int(entry["images_seen"]), entry["budget_flops"], int(entry["n_samples"]))
                for entry in found["readings"]]  # fmt: skip
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(str(file), "(damaged)", "a file as dit writes it", "Remove it.") from error
