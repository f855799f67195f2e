"""Cuts: which readings are held out, in words such as ``flops>1e21`` or ``n>3e8,d<1e10``."""

import re

import numpy as np

from dit.errors import InputError
from dit.fits.points import Points
from dit.fits.table import COMPARE

Array = np.ndarray
KEYS = {"flops": "c", "n": "n", "d": "d"}
CONDITION = re.compile(r"\s*(flops|n|d)\s*(<=|>=|<|>)\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*", re.IGNORECASE)


def selected(points: Points, cut: str) -> Array:
    """(n,) which points meet every condition of a cut, parted by commas.

    ``flops`` is the compute of a reading (its budget, where budgets are given), ``n`` its size, ``d`` its data.

    Raises:
        InputError: another form, a column that the points have not, or a cut that takes all points or none.
    """
    out = np.ones(len(points), bool)
    for part in str(cut).split(","):
        match = CONDITION.fullmatch(part)
        if match is None:
            raise InputError(
                "holdout", cut, "flops, n or d, one of < <= > >=, and a number, as in flops>1e21"
            )
        key = match[1].lower()
        given = points.budget if key == "flops" else None
        values = points.get(KEYS[key]) if given is None else given
        out &= COMPARE[match[2]](values, float(match[3]))
    if out.all() or not out.any():
        got = f"({cut} holds of {'every' if out.all() else 'no'} reading)"
        raise InputError("holdout", got, "a cut that parts the readings")
    return out
