"""The files of a study that are no records, read and checked: a name in ``plan.json`` will be a folder's."""

from pathlib import Path
from typing import Any

from dit.errors import InputError, check_name
from dit.records import check_prefix
from dit.rundir import read_status
from dit.trust import INTEGER, LIST, NULL, NUMBER, TEXT, check_fields, read_json

NAME = "evaluations.jsonl"
PREFIX = "evaluations.prefix.json"  # beside it: its length and hash, so that a changed digit is found
CUT = f"Restore it; or remove {PREFIX}, and what is missing is measured again."
RUN = {"name": TEXT, "flops": NUMBER, "readings": LIST}
READING = {"images": INTEGER, "budget_flops": (*NUMBER, NULL)}


def read_plan(directory: Path) -> dict[str, Any] | None:
    """The plan of a study's directory, or None where it has none.

    Raises:
        InputError: it is not one that ``dit study`` wrote.
    """
    file = directory / "plan.json"
    plan: dict[str, Any] | None = read_json(file, {"runs": LIST}, {"settings": TEXT, "study": (str, NULL)})
    for place, run in enumerate(plan["runs"] if plan else []):
        where = f"{file}: runs[{place}]"
        _check_object(where, run, RUN, {"branch_of": (str, NULL)})
        check_name(f"{where}.name", run["name"])
        if not run["readings"]:
            raise InputError(f"{where}.readings", "[]", "at least one reading")
        for reading in run["readings"]:
            _check_object(f"{where}.readings", reading, READING)
            if reading["images"] < 1:
                raise InputError(f"{where}.readings: images", reading["images"], ">= 1")
    return plan


def run_status(run: Path) -> dict[str, Any]:
    """The status of a run. A damaged file gives the state ``unreadable``, so that the other runs are still shown."""
    try:
        return read_status(run) or {}
    except InputError as error:
        return {"state": "unreadable", "message": str(error)}


def _check_object(where: str, value: Any, needs: dict[str, Any], may: dict[str, Any] | None = None) -> None:
    if not isinstance(value, dict):
        raise InputError(where, value, "an object")
    check_fields(where, value, needs, may or {})


def check_rows(path: Path) -> None:
    """Raises InputError where rows are not those that were written: ``PREFIX``, or a run's status, knows them."""
    if path.name == NAME:
        known = read_json(path.with_name(PREFIX), {"bytes": INTEGER, "sha256": TEXT})
    else:
        known = run_status(path.parent).get("records")
    if known and path.is_file() and not check_prefix(path, known):
        found = f"({path.stat().st_size} bytes)"
        raise InputError(str(path), found, f"the {known['bytes']} bytes that were written", CUT)
