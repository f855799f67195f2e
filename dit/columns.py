"""Plain aligned tables for a terminal or a file, whatever its width."""

from collections.abc import Iterable, Sequence


def align(rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> str:
    """The rows as lines with aligned columns.

    Args:
        rows: cells, the heading first.
        right: columns that are aligned to the right.
    """
    right = set(right)
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = []
    for row in rows:
        cells = (f"{cell:{'>' if i in right else '<'}{w}}" for i, (cell, w) in enumerate(zip(row, widths)))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
