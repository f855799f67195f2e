"""The report of a study on the disk: written, and written again where its inputs have changed."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dit
from dit.errors import InputError
from dit.files import write_json
from dit.study.files import NAME, PREFIX
from dit.trust import TEXT, read_json

if TYPE_CHECKING:
    from dit.report.page import Report

ROWS = ("records.jsonl", NAME, PREFIX)
DATA = ("plan.json", *ROWS, "*.csv", *(f"runs/*/{name}" for name in (*ROWS, "status.json", "samples/*.png")))
MADE_FROM = "made_from.json"  # beside the page: the hash of its inputs, and the headline


def write(study: Path, out: Path, compare: Sequence[Path] = ()) -> "Report":
    """Writes the report of a study directory and prints the headline and the page's path."""
    from dit.report.page import format_headline, write_report

    inputs = _inputs(study)
    report = write_report(study, out, compare=compare)
    headline = format_headline(report.headline)
    # a page that compares is not the one that dit study asks for
    write_json(out / MADE_FROM, {"inputs": None if compare else inputs, "headline": headline})
    _say(headline, out)
    return report


def write_if_changed(study: Path, out: Path) -> "Report | None":
    """The same, but only says the headline again where records, plan and code are those of the page that is there.

    Returns:
        The report that was written; None where none was.
    """
    made_from = _made_from(out)
    if made_from.get("inputs") == _inputs(study) and (out / "report.html").is_file():
        _say(made_from["headline"], out)
        return None
    return write(study, out)


def _made_from(out: Path) -> dict[str, Any]:
    """The inputs of the page that is there; empty where there is no page, or where they are unknown."""
    try:
        return read_json(out / MADE_FROM, {"headline": TEXT}) or {}
    except InputError:
        return {}


def _say(headline: str, out: Path) -> None:
    print(headline)
    print(f"report: {out / 'report.html'}")


def _inputs(study: Path) -> str:
    """The hash of what a report is made from: plan, records, evaluations, states, pictures, and the code that reads.

    Names are hashed too: a page says which run a number is of, and which runs have no records.
    """
    package = Path(dit.__file__).parent
    code = [file for pattern in ("*.py", "*.j2", "*.csv") for file in package.rglob(pattern)]
    data = [file for pattern in (*DATA, "runs/*") for file in study.glob(pattern)]
    digest = hashlib.sha256()
    for file in (*sorted(code), *sorted(data)):
        name = file.relative_to(package if file.is_relative_to(package) else study)
        digest.update(hashlib.sha256(os.fsencode(name)).digest())
        digest.update(hashlib.sha256(_content(file)).digest())
    return digest.hexdigest()


def _content(file: Path) -> bytes:
    """The bytes of a file that a page depends on: of a status all but its heartbeat, of a folder none."""
    if file.is_dir():
        return b""
    if file.name != "status.json":
        return file.read_bytes()
    try:
        status = {key: value for key, value in (read_json(file) or {}).items() if key != "heartbeat"}
    except InputError:  # damaged: the page says it
        return file.read_bytes() if file.is_file() else b""
    return json.dumps(status, sort_keys=True).encode()
