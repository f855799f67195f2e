"""A table: columns of plain values, written in full to CSV and rounded for the page."""

import math
from dataclasses import dataclass
from typing import Any

from dit.columns import csv_text
from dit.report.style import engineering

SHOWN_ROWS = 60


@dataclass(frozen=True)
class Table:
    """A table: file name without ending, title, column names, rows, and what the reader must know."""

    name: str
    title: str
    columns: list[str]
    rows: list[list[Any]]
    note: str = ""

    def csv(self) -> str:
        """All rows, numbers in full."""
        return csv_text([self.columns, *self.rows])

    def shown(self) -> list[list[str]]:
        """The rows as the page shows them, at most SHOWN_ROWS."""
        return [[cell_text(cell) for cell in row] for row in self.rows[:SHOWN_ROWS]]


def cell_text(value: Any) -> str:
    """A cell for a person: whole numbers in full with thin spaces, others to 4 digits, None as a dash."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, (bool, str)):
        return str(value)
    if isinstance(value, int) and abs(value) < 1e12:
        return f"{value:,}".replace(",", " ")
    if value != 0 and not 1e-3 <= abs(value) < 1e4:
        return engineering(value, 4)
    return f"{value:.4g}" if float(value).is_integer() or abs(value) < 0.01 else f"{value:#.4g}"
