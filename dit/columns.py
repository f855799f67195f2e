"""Tables as aligned text and as CSV, and pages from a template: what strangers name is shown, and never obeyed."""

import csv
import io
import logging
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any

from dit.errors import printable

FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def align(rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> str:
    """The rows as lines with aligned columns.

    Args:
        rows: cells, the heading first.
        right: columns that are aligned to the right.
    """
    right = set(right)
    rows = [[printable(cell).replace("\n", "?") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = []
    for row in rows:
        cells = (f"{cell:{'>' if i in right else '<'}{w}}" for i, (cell, w) in enumerate(zip(row, widths)))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV, empty cells for None. A text that a spreadsheet would take for a formula has an apostrophe before
    it, as OWASP's page on CSV injection advises.
    """
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([_csv_cell(cell) for cell in row] for row in rows)
    return out.getvalue()


def _csv_cell(cell: Any) -> Any:
    if isinstance(cell, str) and cell[:1] in FORMULAS and not _is_number(cell):
        cell = f"'{cell}"
    if isinstance(cell, str):
        return cell.replace("\r", " ")  # which would end a row, but is not quoted
    return "" if cell is None else cell


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def page(package: str, **values: Any) -> str:
    """The page that ``page.html.j2`` of a package makes of values, in which no text is markup."""
    import jinja2  # a tenth of a second

    text = resources.files(package).joinpath("page.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(text).render(**values)


def legend_text(name: str) -> str:
    """A name as matplotlib shows it in a legend, which leaves out those that begin with an underscore."""
    return f" {name}" if name.startswith("_") else name


class PrintableFormatter(logging.Formatter):
    """A formatter of log lines without what a terminal would obey: they name files and classes of strangers."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))
