"""Evaluations that were made: ``evaluations.jsonl``, in which no question is answered twice.

Rows are ``samples`` records (dit/records.py), with ``request``: the hash of everything that was asked for. Imports no
torch.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dit.errors import InputError
from dit.records import RecordWriter, encode

NAME = "evaluations.jsonl"


class Journal:
    """The evaluations of a directory; each row is on disk when ``add`` returns.

    Args:
        directory: holds ``evaluations.jsonl``, or will; None keeps the rows in memory only.
    """

    def __init__(self, directory: Path | None) -> None:
        self.path = None if directory is None else directory / NAME
        self._answers: dict[str, list[dict[str, Any]]] = {}
        for row in read_rows(self.path) if self.path is not None else []:
            self._answers.setdefault(row["request"], []).append(row)

    def answer(self, request: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        """The rows of a request, fewest images first; None where it was not answered to its end."""
        rows = {row["n"]: row for row in self._answers.get(request_hash(request), [])}
        return [rows[n] for n in sorted(rows)] if request["n"] in rows else None

    def add(self, request: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Keeps the rows of a request, fewest images first, so that the last one closes it."""
        key = request_hash(request)
        made = [{"kind": "samples", "request": key, **row} for row in rows]
        if self.path is not None:
            with RecordWriter(self.path) as writer:
                for row in made:
                    writer.append(row)
        self._answers[key] = [json.loads(encode(row)) for row in made]  # as they will be read
        return self._answers[key]


def request_hash(request: Mapping[str, Any]) -> str:
    """What a request is known by."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:16]


def read_rows(path: Path, kind: str = "samples") -> list[dict[str, Any]]:
    """The rows of a kind in a file of records; none where there is no file. A last line cut short is left out."""
    if not path.is_file():
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line)
            if row["kind"] == kind:
                rows.append(row)
        except (ValueError, TypeError, KeyError) as error:
            remedy = "Remove the line; what it held is measured again."
            raise InputError(f"{path}:{number}", f"({error})", "a record in JSON", remedy) from None
    return rows
