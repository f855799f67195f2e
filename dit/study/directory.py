"""A study's directory: of one driver at a time, and of one plan, which may grow."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dit.errors import InputError
from dit.files import remove_unfinished, write_json
from dit.locks import Lock
from dit.study.files import read_plan
from dit.study.launches import DRIVER_LOCK
from dit.study.ledger import Ledger
from dit.study.plan import Plan


@contextmanager
def only_driver(directory: Path) -> Iterator[None]:
    """One driver per study at a time; the lock ends with the process, however it ends."""
    lock = Lock(directory / DRIVER_LOCK)
    try:
        if not lock.take():
            allowed = "a study that no other driver is running"
            raise InputError("study.directory", str(directory), allowed, "See dit status.")
        for folder in (directory, directory / "launches"):
            if folder.is_dir():
                remove_unfinished(folder)
        yield
    finally:
        lock.release()


def replace_plan(directory: Path, settings: str, plan: Plan) -> None:
    """Replaces the study's plan by one of the same settings; its grid may grow.

    Raises:
        InputError: the directory belongs to other settings, or a run has passed a budget that it now should be read at.
    """
    known = read_plan(directory)
    if known is not None:
        if known.get("settings") != settings:
            raise InputError(
                "study.directory",
                str(directory),
                "a new directory, or a study of these very settings (its grid may grow)",
                "Name another study.directory, or undo the change to continue.",
            )
        _check_growth(directory, known, plan)
    write_json(directory / "plan.json", {"settings": settings, **plan.as_dict()})


def _check_growth(directory: Path, known: dict[str, Any], plan: Plan) -> None:
    read_at = {run["name"]: {reading["images"] for reading in run["readings"]} for run in known["runs"]}
    for entry in Ledger(directory).entries():
        new = next((run for run in plan.runs if run.name == entry.name), None)
        for reading in new.readings if new else ():
            if reading.images <= entry.images_seen and reading.images not in read_at[entry.name]:
                raise InputError(
                    "study.budgets_flops",
                    reading.budget_flops,
                    f"budgets above {entry.images_seen} images of run {entry.name}, which it has seen already",
                    "A study grows upwards and sideways; for budgets in between name another study.directory.",
                )
