"""Evaluations that were made: ``evaluations.jsonl``, in which no question is answered twice.

Rows are ``samples`` records (dit/records.py), with ``request``: the hash of everything that was asked for. Imports no
torch.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dit.files import write_json
from dit.records import RecordWriter, encode, rows_of
from dit.study.files import NAME, PREFIX, check_rows
from dit.trust import INTEGER, NULL, OBJECT, TEXT, Fields, check_fields

REMEDY = "Remove the line; what it held is measured again."
NEEDS: dict[str, Fields] = {  # of the rows that a page shows
    "run": {"run": TEXT, "config_hash": TEXT},
    "samples": {"run": TEXT, "protocol": OBJECT},
}
MAY: Fields = {
    "images_seen": INTEGER,
    "n": INTEGER,
    "request": TEXT,
    "config_hash": (str, NULL),
    "content": (str, NULL),
    "grid": (str, NULL),
    "image_size": (int, NULL),
}


class Journal:
    """The evaluations of a directory; each row is on disk when ``add`` returns.

    Args:
        directory: holds ``evaluations.jsonl``, or will; None keeps the rows in memory only.
    """

    def __init__(self, directory: Path | None) -> None:
        self.path = None if directory is None else directory / NAME
        self._answers: dict[str, list[dict[str, Any]]] = {}
        for row in read_rows(self.path) if self.path is not None else []:
            self._answers.setdefault(row.get("request", ""), []).append(row)

    def answer(self, request: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        """The rows of a request, fewest images first; None where it was not answered to its end."""
        rows = {row.get("n", 0): row for row in self._answers.get(request_hash(request), [])}
        return [rows[n] for n in sorted(rows)] if request["n"] in rows else None

    def add(self, request: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Keeps the rows of a request, fewest images first, so that the last one closes it."""
        key = request_hash(request)
        made = [{"kind": "samples", "request": key, **row} for row in rows]
        if self.path is not None:
            with RecordWriter(self.path) as writer:
                for row in made:
                    writer.append(row)
                write_json(self.path.with_name(PREFIX), writer.prefix())
        self._answers[key] = [json.loads(encode(row)) for row in made]  # as they will be read
        return self._answers[key]


def request_hash(request: Mapping[str, Any]) -> str:
    """What a request is known by."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:16]


def read_rows(path: Path, kind: str = "samples") -> list[dict[str, Any]]:
    """The rows of a kind in a file of records; none where there is no file. A last line cut short is left out."""
    if not path.is_file():
        return []
    check_rows(path)
    rows = []
    for where, _, row in rows_of(path.read_bytes(), str(path), REMEDY):
        check_fields(where, row, {"kind": TEXT})
        if row["kind"] == kind:
            check_fields(where, row, NEEDS[kind], MAY)
            rows.append(row)
    return rows
