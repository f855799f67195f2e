"""The file in which a run writes what it found: ``records.jsonl``, one JSON object per line, append only.

Written by the trainer, read by ``dit.study.records``. Standard library only, so that every layer may use
it. Rows hold no time of day and no absolute path: the file of a run that was killed and resumed equals, byte
for byte, the file of the same run undisturbed.
"""

import errno
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dit.errors import InputError
from dit.files import sync
from dit.trust import INTEGER, NULL, NUMBER, TEXT, Fields, check_fields, parse

SCHEMA = 1
DAMAGED = "It was changed by hand, or the disk damaged it: restore it, or begin again in another run_dir."
KINDS = ("run", "train", "validation", "samples", "event")
PROTOCOL: Fields = {  # of samples: how their numbers were made (dit/evaluation/protocol.py)
    **dict.fromkeys(
        ("reference", "extractor", "extractor_sha256", "preprocessing", "guidance", "rounding"), TEXT
    ),
    **dict.fromkeys(("labels", "solver", "grid", "weights", "precision", "decoder"), (str, NULL)),
    **dict.fromkeys(("reference_n", "nfe", "guidance_channels"), (int, NULL)),
    **{"n": INTEGER, "guidance_scale": (*NUMBER, NULL), "seed": (int, list, NULL)},
}


class RecordWriter:
    """An open ``records.jsonl``: each row is on disk when ``append`` returns.

    Opening creates the file, or, where it exists, drops a last line without its newline (what a kill in the
    middle of a write leaves behind), so that the next row starts on a line of its own.

    JSON has no NaN or infinity. A number that is not finite is written as null, and the row gains
    ``"non_finite": {"<field>": "nan" | "inf" | "-inf"}`` (``"loss_bins.3"`` for the fourth entry of a list),
    so that a diverged run is told from a number never measured.

    Args:
        path: the file; its folder is made where missing.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        created = not self.path.exists()
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        if created:
            sync(self.path.parent)
        self.offset = os.fstat(self._fd).st_size
        self._digest = hashlib.sha256(self.path.read_bytes())
        complete = _end_of_last_line(self._fd, self.offset)
        if complete != self.offset:
            self.truncate_to(complete)

    def append(self, row: Mapping[str, Any]) -> int:
        """Writes one row, with ``schema`` added; returns the offset behind it, to be kept in a checkpoint.

        Args:
            row: ``kind`` (one of KINDS), ``run`` and the fields of that kind; numbers of numpy or torch are
                taken by their ``item()``, tuples become lists.

        Raises:
            ValueError: unknown ``kind``, or no ``run``.
            TypeError: a value that JSON cannot hold.
        """
        line = encode(row)
        written = os.write(self._fd, line)
        if written != len(line):  # a full disk writes part of a line: take it back rather than leave it torn
            os.ftruncate(self._fd, self.offset)
            raise OSError(errno.ENOSPC, f"wrote {written} of {len(line)} bytes of a row", str(self.path))
        os.fsync(self._fd)
        self.offset += written
        self._digest.update(line)
        return self.offset

    def prefix(self) -> dict[str, Any]:
        """Length and hash of all rows so far: what ``check_prefix`` takes."""
        return {"bytes": self.offset, "sha256": self._digest.hexdigest()}

    def truncate_to(self, offset: int) -> None:
        """Drops every row behind ``offset`` bytes: what an interrupted run wrote after the checkpoint it
        resumes from.

        Raises:
            InputError: ``offset`` lies behind the end of the file or inside a row.
        """
        size = os.fstat(self._fd).st_size
        if not 0 <= offset <= size or (offset and os.pread(self._fd, 1, offset - 1) != b"\n"):
            allowed = f"whole rows up to byte {offset}, which a checkpoint counts on"
            raise InputError(str(self.path), f"({size} bytes)", allowed, DAMAGED)
        os.ftruncate(self._fd, offset)
        os.fsync(self._fd)
        self.offset = offset
        self._digest = hashlib.sha256(self.path.read_bytes())

    def rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Every row with the offset behind it."""
        for _, end, row in rows_of(self.path.read_bytes(), str(self.path)):
            yield end, row

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_prefix(path: Path, known: Mapping[str, Any]) -> bool:
    """Whether a file still has all the rows that were in it once.

    Args:
        path: of rows.
        known: ``bytes`` and ``sha256`` of the rows then (``RecordWriter.prefix``); the hash may be missing, as it is in
            what older versions wrote.

    Raises:
        InputError: it has as many bytes, but others: a changed digit.
    """
    with path.open("rb") as file:
        rows = file.read(max(0, int(known["bytes"])))
    if len(rows) < int(known["bytes"]):
        return False
    if known.get("sha256") not in (None, hashlib.sha256(rows).hexdigest()):
        allowed = f"the very rows that were written, in its first {len(rows)} bytes"
        raise InputError(str(path), "(their SHA-256 is another)", allowed, DAMAGED)
    return True


def rows_of(content: bytes, file: str, remedy: str = DAMAGED) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """The rows of a file, one JSON object per line; a last line without its newline was cut short, and is left out.

    Args:
        content: the file's bytes.
        file: what messages call it.
        remedy: what to do about a line that is no row.

    Yields:
        Where a row stands ("file:line"), the offset behind it, and the row.

    Raises:
        InputError: a line is no JSON object.
    """
    end = 0
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        row, end = parse(line, where := f"{file}:{number}", remedy), end + len(line) + 1
        if not isinstance(row, dict):
            raise InputError(where, f"({line[:40]!r} ...)", "one JSON object per line", remedy)
        yield where, end, row


def readings(path: Path) -> set[int]:
    """The counts of images at which the run of a ``records.jsonl`` was read on its validation draws."""
    found = set()
    content = path.read_bytes() if path.is_file() else b""
    for where, _, row in rows_of(content, str(path)):
        if row.get("kind") == "validation":
            check_fields(where, row, {"images_seen": INTEGER})
            found.add(row["images_seen"])
    return found


def encode(row: Mapping[str, Any]) -> bytes:
    """One row as the bytes of its line: keys sorted, no spaces; equal rows give equal bytes."""
    if row.get("kind") not in KINDS:
        raise ValueError(f"kind: got {row.get('kind')!r}; allowed: one of {', '.join(KINDS)}")
    if not isinstance(row.get("run"), str) or not row["run"]:
        raise ValueError(f"run: got {row.get('run')!r}; allowed: the name of the run")
    non_finite: dict[str, str] = {}
    clean = _clean({**row, "schema": SCHEMA}, "", non_finite)
    if non_finite:
        clean["non_finite"] = non_finite
    return (json.dumps(clean, sort_keys=True, allow_nan=False, separators=(",", ":")) + "\n").encode()


def _clean(value: Any, where: str, non_finite: dict[str, str]) -> Any:
    """``value`` in the types of JSON, with each number that is not finite replaced by None and named."""
    if isinstance(value, Mapping):
        return {str(key): _clean(item, f"{where}{key}.", non_finite) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item, f"{where}{index}.", non_finite) for index, item in enumerate(value)]
    if not isinstance(value, (bool, int, float, str, type(None))) and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        non_finite[where[:-1]] = str(value)
        return None
    return value


def _end_of_last_line(fd: int, size: int) -> int:
    """Offset just behind the last newline in the first ``size`` bytes; 0 where there is none."""
    end = size
    while end > 0:
        start = max(0, end - 65536)
        found = os.pread(fd, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
