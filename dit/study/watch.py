"""Where the runs of a study stand, as JSON values, as a table, and shown again and again while they run."""

import sys
import time
from typing import Any

from dit.columns import align
from dit.study.ledger import Entry

LINE_SECONDS = 20  # between plain lines where there is no terminal


def as_dict(entries: list[Entry]) -> dict[str, Any]:
    """The runs as JSON values, with a count of each state."""
    runs = [_row(entry) for entry in entries]
    states = [run["state"] for run in runs]
    return {"runs": runs, "counts": {state: states.count(state) for state in sorted(set(states))}}


class Watch:
    """Shows the runs again and again: a live table on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self._live: Any = None
        self._next_line = time.monotonic() + 5

    def __enter__(self) -> "Watch":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, entries: list[Entry]) -> None:
        """Shows where they stand now, unless a line was printed a moment ago."""
        if self._live:
            from rich.text import Text

            self._live.update(Text(table(as_dict(entries))), refresh=True)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_SECONDS
            print(_line(as_dict(entries)), file=sys.stderr, flush=True)


def _row(entry: Entry) -> dict[str, Any]:
    status = entry.status
    reached = entry.images_seen / entry.total_images
    budgets = [r["budget_flops"] for r in entry.plan["readings"] if r["images"] > entry.images_seen]
    return {
        "run": entry.name,
        "state": entry.state,
        "images_seen": entry.images_seen,
        "total_images": entry.total_images,
        "share": reached,
        "next_budget_flops": budgets[0] if budgets else None,
        "loss": status.get("loss"),
        "images_per_second": status.get("images_per_second"),
        "eta_seconds": status.get("eta_seconds") if entry.state == "running" else None,
        "job": status.get("job"),
        "message": entry.reason if entry.state in ("failed", "stale", "unreadable") else None,
    }


def table(result: dict[str, Any]) -> str:
    """The runs as lines with aligned columns, and the count of each state."""
    rows = [["run", "state", "images", "of", "next budget", "loss", "images/s", "ETA", ""]]
    for run in result["runs"]:
        rows.append(
            [
                run["run"],
                run["state"],
                f"{run['images_seen']:,}",
                f"{run['share']:.0%}",
                _number(run["next_budget_flops"], ".3g"),
                _number(run["loss"], ".4f"),
                _number(run["images_per_second"], ",.0f"),
                _seconds(run["eta_seconds"]),
                (run["message"] or "").partition("\n")[0],
            ]
        )
    return f"{align(rows, right=range(2, 8))}\n{_counts(result)}"


def _counts(result: dict[str, Any]) -> str:
    return ", ".join(f"{n} {state}" for state, n in result["counts"].items())


def _line(result: dict[str, Any]) -> str:
    running = [
        f"{run['run']} {run['share']:.0%} (loss {_number(run['loss'], '.4f')}, "
        f"{_number(run['images_per_second'], ',.0f')} images/s, ETA {_seconds(run['eta_seconds'])})"
        for run in result["runs"]
        if run["state"] == "running"
    ]
    return f"{time.strftime('%H:%M:%S')} {_counts(result)}" + (": " + "; ".join(running) if running else "")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{int(value) // 60}:{int(value) % 60:02d}"
