"""Where the runs of a study stand, decided from their files alone.

Each run writes its own ``status.json``; nothing here depends on a living driver or on what a scheduler says (SLURM
calls a job that raised COMPLETED). Imports no torch.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dit.errors import InputError
from dit.rundir import read_json

STALE_SECONDS = 300  # without a heartbeat: the process is gone or hangs


@dataclass(frozen=True)
class Entry:
    """One planned run and how far it is.

    Attributes:
        name: of the run.
        state: planned | running | stale | stopped | failed | done.
        plan: its entry in plan.json.
        status: its status.json, empty before it began.
    """

    name: str
    state: str
    plan: dict[str, Any]
    status: dict[str, Any]

    @property
    def images_seen(self) -> int:
        return int(self.status.get("images_seen", 0))

    @property
    def total_images(self) -> int:
        return int(self.plan["readings"][-1]["images"])


class Ledger:
    """The runs of one study directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def run_directory(self, name: str) -> Path:
        """Where a run of this study lies."""
        return self.directory / "runs" / name

    def is_done(self, name: str) -> bool:
        """Whether a run has finished."""
        return self._status(name).get("state") == "done"

    def entries(self) -> list[Entry]:
        """Every planned run with its state.

        Raises:
            InputError: there is no plan in the directory.
        """
        plan = read_json(self.directory / "plan.json")
        if plan is None:
            raise InputError(
                "study.directory",
                str(self.directory),
                "a study's directory (plan.json in it)",
                "Run dit study first.",
            )
        return [self._entry(run) for run in plan["runs"]]

    def _entry(self, run: dict[str, Any]) -> Entry:
        status = self._status(run["name"])
        state = status.get("state", "planned")
        if state == "running" and time.time() - status["heartbeat"] > STALE_SECONDS:
            state = "stale"
        return Entry(run["name"], state, run, status)

    def _status(self, name: str) -> dict[str, Any]:
        return read_json(self.run_directory(name) / "status.json") or {}
