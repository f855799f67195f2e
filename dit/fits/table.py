"""A CSV file as its columns of text: whatever a spreadsheet may have done to it, or one message that says where."""

import csv
import io
import itertools
import math
import operator
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dit.errors import InputError

DELIMITERS = (",", ";", "\t", "|")
SUFFIXES = {"k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12, "%": 1e-2}
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
        remedy = "Cells stand between commas, semicolons, tabs or bars." if len(self.header) == 1 else ""
        raise InputError(key, name, "a column of the file: " + ", ".join(self.header), remedy)

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

    Empty lines and lines of comment (``# ...``) are skipped, and so is a spreadsheet's ``sep=;`` above the header.

    Raises:
        InputError: no such file, no text, no header, no row, or a row of another length than the header.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError("data", str(path), "a CSV file or a study directory", str(error)) from None
    except UnicodeDecodeError:
        raise InputError("data", str(path), "a CSV file in UTF-8", "Save it as UTF-8.") from None
    try:
        (first, header), *rows = _split(text)
    except csv.Error as error:
        raise InputError("data", f"({path}: {error})", "a CSV file") from None
    except ValueError:
        rows = []
    if not rows:
        raise InputError("data", str(path), "a CSV file with a header and at least one row")
    for line, row in rows:
        if len(row) != len(header):
            got = f"(line {line} of {path} has {len(row)} cells)"
            shape = f"{len(header)} cells in every row, as in the header"
            raise InputError("data", got, shape, _mend(row, header, first, row is rows[0][1]))
    return Table(tuple(header), tuple(tuple(row) for _, row in rows), tuple(line for line, _ in rows))


def _mend(row: Sequence[str], header: Sequence[str], line: int, topmost: bool) -> str:
    """The remedy for a row that has more or fewer cells than the header; it stands in ``line``."""
    if any("\n" in cell for cell in row):
        return "A quote in it is not closed."
    if len(header) == 1 or (topmost and len(row) > len(header)):
        return f"Line {line} was taken for it: {header[0]!r}. Begin comments with #."
    return "A cell that holds the delimiter stands in quotes." if len(row) > len(header) else ""


Row = tuple[int, list[str]]  # the line on which it ends, counted from 1, and its cells


def _split(text: str) -> list[Row]:
    """The rows from the header on, by the delimiter that the file names or that makes most of them alike."""
    lines = list(io.StringIO(text, newline=""))
    above = list(itertools.takewhile(re.compile(r"\s*(#|\"?sep *=|$)", re.IGNORECASE).match, lines))
    below = ["\n"] * len(above) + lines[len(above) :]  # so that lines are counted as the file has them
    named = re.search(r"^\s*\"?sep *= *(.)", "".join(above), re.IGNORECASE | re.MULTILINE)
    delimiter = named[1] if named else ""
    if not named or not _alike(_parse(below, delimiter))[0]:  # a word of another meaning, as "sep=\\t"
        delimiter = max(DELIMITERS, key=lambda one: _alike(_parse(below, one)))
    rows = _without_comments(_parse(below, delimiter))
    comments = [line for line in above if line.lstrip().startswith("#")]
    return _named_in(comments[-1], delimiter, rows) if comments and rows else rows


def _parse(lines: Iterable[str], delimiter: str) -> list[Row]:
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    return [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]


def _without_comments(rows: list[Row]) -> list[Row]:
    """The rows without lines of comment below the header: those that begin with # and are no row of its length."""
    return [row for row in rows if not row[1][0].startswith("#") or len(row[1]) == len(rows[0][1])]


def _alike(rows: list[Row]) -> tuple[bool, int]:
    """How well a delimiter fits: whether the commonest length of a row is above 1, and how many rows have it."""
    lengths = Counter(len(row) for _, row in rows)
    length, count = max(lengths.items(), key=lambda item: item[1], default=(0, 0))
    return length > 1, count


def _named_in(comment: str, delimiter: str, rows: list[Row]) -> list[Row]:
    """The rows, under the last comment where that names the columns (as ``numpy.savetxt`` does) and no row does."""
    line, first = rows[0]
    names = _parse([comment.strip().lstrip("# ")], delimiter)
    numbers = [any(_number(cell) is not None for cell in row) for row in (*(row for _, row in names), first)]
    if numbers == [False, True] and len(names[0][1]) == len(first) > 1:
        return [(line - 1, names[0][1]), *rows]
    return rows


def refuse_mixture(table: Table, key: str, name: str) -> None:
    """Raises InputError unless a column holds one value: numbers of different protocols share no axis."""
    found: Sequence[str] = sorted(set(table.column(key, name)))
    if len(found) > 1:
        got = f"({len(found)} values in column {name!r}: {', '.join(found[:4])})"
        raise InputError(key, got, "one protocol", f"Select one: where='{name}=...'.")


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip().casefold()  # a Mac's file may spell ü as u and two dots


# a number with what a unit, an error or a remark may look like; no digits of a second number, as in 2·10^3 or 1'000
UNIT = re.compile(r"\s*[$€£~≈]?\s*([+-]?[\d.]+(?:[eE][+-]?\d+)?)\s*([^\d\s.,eExX][^\d]*|[(±#+].*)")


def _remedy(cell: str, name: str) -> str:
    """What to do about a cell that a fit cannot take."""
    value, unit = _number(cell), UNIT.fullmatch(cell)
    if value is None and unit and _number(unit[1]) is not None:
        factor = SUFFIXES.get(unit[2].strip()[:1])
        alone = f"{float(unit[1]) * factor:g}" if factor and len(unit[2].strip()) == 1 else unit[1]
        return f"Write the number alone: {alone} for {cell.strip()!r}."
    if value is None and "," in cell and _number(cell.replace(",", "")) is not None:
        return "Write numbers with a decimal point, and thousands without commas."
    if value is None and re.search(r"\d", cell):
        return "Write one number, such as 1234.5 or 1.2e18, without blanks, units or signs for thousands."
    keeps = f"{name}<inf" if value == math.inf else f"{name}>0"
    return f"Leave such rows out: where='{keeps}'."


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
