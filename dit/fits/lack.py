"""Lack of fit of parabolas: whether their misses are larger than the noise.

Source: Draper & Smith, Applied Regression Analysis (1998), section 2.1, the F test with pure error.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import fdtrc

from dit.fits.points import Points

Array = np.ndarray
PARAMETERS = 3


def lack_of_fit(
    residual: Array, points: Points, members: Sequence[Array], near: Sequence[Array]
) -> list[tuple[float, float]]:
    """Of each budget's parabola: the root mean square of its misses, and the probability of larger ones by noise.

    The noise is that of repeats (points of one N and one budget) where there are any, else that of the misses of the
    other parabolas, which may be too large themselves: then nothing stands out.

    Args:
        residual: (n,) relative misses.
        points: of all budgets.
        members: positions of the points of each budget.
        near: which of them its parabola goes through.
    """
    sums, freedom = [], []
    for member, use in zip(members, near):
        sums.append(float(residual[member[use]] @ residual[member[use]]))
        freedom.append(max(0, int(use.sum()) - PARAMETERS))
    pure, repeated = _pure_error(points, members, near)
    found = []
    for i, (total, free) in enumerate(zip(sums, freedom)):
        rms = np.sqrt(total / free) if free else float("nan")
        if sum(repeated):  # what repeats do not explain, by what they do
            noise, other = sum(pure), sum(repeated)
            total, free = total - pure[i], free - repeated[i]
        else:
            noise, other = sum(sums) - total, sum(freedom) - free
        known = free > 0 and other > 0 and noise > 0
        found.append(
            (float(rms), float(fdtrc(free, other, total / free / (noise / other))) if known else np.nan)
        )
    return found


def _pure_error(
    points: Points, members: Sequence[Array], near: Sequence[Array]
) -> tuple[list[float], list[int]]:
    """Of each budget: sum of squares, and degrees of freedom, of ln L about the mean of points of one N."""
    sums, freedom = [], []
    for member, use in zip(members, near):
        inside = member[use]
        _, cell = np.unique(np.round(np.log(points.get("n")[inside]), 9), return_inverse=True)
        y = np.log(points.loss[inside])
        about = y - (np.bincount(cell, y) / np.bincount(cell))[cell]
        sums.append(float(about @ about))
        freedom.append(len(inside) - len(np.unique(cell)))
    return sums, freedom
