"""Published exponents that a study's own are set beside, each with its source (anchors.csv)."""

import csv
import functools
from importlib import resources
from typing import Any

NUMBERS = ("n_exponent", "n_exponent_sd", "d_exponent", "frechet_exponent")


@functools.cache
def allocation_anchors() -> tuple[dict[str, Any], ...]:
    """The rows of anchors.csv: numbers as floats, None where the source gives none.

    Exponents are comparable between studies; coefficients are not (parameters against multiply-adds per
    token, text tokens against images) and are left out.
    """
    text = resources.files("dit.report").joinpath("anchors.csv").read_text(encoding="utf-8")
    rows = []
    for row in csv.DictReader(text.splitlines()):
        numbers = {name: float(row[name]) if row[name] else None for name in NUMBERS}
        rows.append({**row, **numbers})
    return tuple(rows)
