"""A CSV file as its columns of text: whatever a spreadsheet may have done to it, or one message that says where."""

import csv
import io
import math
import operator
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dit.errors import InputError

DELIMITERS = (",", ";", "\t")
COMPARE = {
    "<=": operator.le, ">=": operator.ge, "!=": operator.ne, "==": operator.eq,
    "=": operator.eq, "<": operator.lt, ">": operator.gt,
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Rows of text under a header.

    Args:
        header: names of the columns.
        rows: as many cells as names, each.
        lines: where each row stands in the file, counted from 1.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]

    def column(self, key: str, name: str) -> list[str]:
        """The cells of a column; its name's case and surrounding blanks do not matter where it stays one.

        Raises:
            InputError: no such column, or more than one.
        """
        for same in (str, _folded):
            found = [i for i, head in enumerate(self.header) if same(head) == same(name)]
            if len(found) == 1:
                return [row[found[0]] for row in self.rows]
            if found:
                raise InputError(key, name, "the name of one column", f"The file has {len(found)} of it.")
        raise InputError(key, name, "a column of the file: " + ", ".join(self.header))

    def numbers(self, key: str, name: str) -> np.ndarray:
        """The cells of a column as numbers, positive and finite as fits want them.

        Raises:
            InputError: a cell that is no such number.
        """
        cells = self.column(key, name)
        values = [_number(cell) for cell in cells]
        wrong = [i for i, value in enumerate(values) if value is None or not 0 < value < math.inf]
        if wrong:
            cell, count = cells[wrong[0]], f", {len(wrong)} such" if len(wrong) > 1 else ""
            got = f"({name!r} is {cell!r} in line {self.lines[wrong[0]]}{count})"
            raise InputError(key, got, "a positive finite number in every row", _remedy(cell, name))
        return np.array(values, float)

    def where(self, conditions: Iterable[str]) -> "Table":
        """The rows that meet every condition ``column < value`` (also <= > >= = !=).

        Raises:
            InputError: a condition that is none, or that no row meets.
        """
        kept = set(range(len(self.rows)))
        for condition in conditions:
            kept &= self._meeting(condition)
        if not kept:
            raise InputError(
                "where", list(conditions), "conditions that some rows meet", "The file has no such row."
            )
        return Table(
            self.header, tuple(self.rows[i] for i in sorted(kept)), tuple(self.lines[i] for i in sorted(kept))
        )

    def _meeting(self, condition: str) -> set[int]:
        match = re.fullmatch(r"\s*(.+?)\s*(<=|>=|!=|==|=|<|>)\s*(.*?)\s*", condition)
        if match is None:
            raise InputError("where", condition, "'column < value' (also <= > >= = !=)")
        cells, compare, wanted = self.column("where", match[1]), COMPARE[match[2]], match[3]
        number = _number(wanted)
        if number is None or math.isnan(number):
            return {i for i, cell in enumerate(cells) if compare(cell.strip(), wanted)}
        values = [_number(cell) for cell in cells]
        return {i for i, value in enumerate(values) if value is not None and compare(value, number)}


def read_table(path: str | Path) -> Table:
    """A CSV file in UTF-8 (with or without a byte order mark), its cells between commas, semicolons or tabs.

    Empty lines are skipped.

    Raises:
        InputError: no such file, no text, no header, no row, or a row of another length than the header.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError("data", str(path), "a CSV file or a study directory", str(error)) from None
    except UnicodeDecodeError:
        raise InputError("data", str(path), "a CSV file in UTF-8", "Save it as UTF-8.") from None
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        filled = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise InputError("data", f"({path}, line {reader.line_num}: {error})", "a CSV file") from None
    if len(filled) < 2:
        raise InputError("data", str(path), "a CSV file with a header and at least one row")
    (_, header), *rows = filled
    for line, row in rows:
        if len(row) != len(header):
            got = f"(line {line} of {path} has {len(row)} cells)"
            raise InputError("data", got, f"{len(header)} cells in every row, as in the header")
    return Table(tuple(header), tuple(tuple(row) for _, row in rows), tuple(line for line, _ in rows))


def refuse_mixture(table: Table, key: str, name: str) -> None:
    """Raises InputError unless a column holds one value: numbers of different protocols share no axis."""
    found: Sequence[str] = sorted(set(table.column(key, name)))
    if len(found) > 1:
        got = f"({len(found)} values in column {name!r}: {', '.join(found[:4])})"
        raise InputError(key, got, "one protocol", f"Select one: where='{name}=...'.")


def _folded(name: str) -> str:
    return name.strip().casefold()


def _remedy(cell: str, name: str) -> str:
    """What to do about a cell that a fit cannot take."""
    if _number(cell.replace(",", "")) is not None and "," in cell:
        return "Write numbers with a decimal point, and thousands without commas."
    keeps = f"{name}<inf" if _number(cell) == math.inf else f"{name}>0"
    return f"Leave such rows out: where='{keeps}'."


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
