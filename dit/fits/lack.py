"""Lack of fit: whether the misses of parabolas, or of a law, are larger than the noise, and where short runs are off.

Source: Draper & Smith, Applied Regression Analysis (1998), section 2.1, the F test with pure error.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import fdtrc, stdtr

from dit.fits.noise import off, split
from dit.fits.points import Points
from dit.fits.variance import components, taken_out

Array = np.ndarray
PARAMETERS = 3
DRAWS = 4000  # of noise that readings share, for the probability of an F
SHORT = (0.1, 0.2, 0.3)  # shares of the readings, those of least D, that are tried as short ones


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


@dataclass(frozen=True)
class LackOfFit:
    """A law's misses against the noise of repeats.

    Args:
        f: mean square of what the law misses of the cells' means / that of repeats about them.
        lack: degrees of freedom of the first; pure: of the second.
        p_value: probability of a larger F by noise.
    """

    f: float
    lack: int
    pure: int
    p_value: float


def lack_of_law(points: Points, fit: Any) -> LackOfFit | None:
    """The F test of a law against repeats: readings of one N and D by several runs; None where there are none.

    Where runs are read more than once, readings share noise and the F distribution does not hold: p is then the share
    of larger ones among F of noise drawn with the variances of the repeats.
    """
    if points.n is None or points.d is None:
        return None
    names = np.round(np.log(np.stack([points.n, points.d])), 9)
    cells = np.unique(names, axis=1, return_inverse=True)[1].ravel()
    member = np.eye(cells.max() + 1)[cells]
    member /= np.sqrt(member.sum(0))
    problem = fit.problem(points)
    q = taken_out(problem.jacobian(fit))
    pure = len(points) - member.shape[1]
    lack = member.shape[1] - q.shape[1]
    if pure < 1 or lack < 1:
        return None

    def ratio(e: Array) -> Array:
        """F of errors (rows, n), by least squares about the law."""
        all_, inside = (np.sum((e - e @ basis @ basis.T) ** 2, axis=1) for basis in (q, member))
        return (all_ - inside) / lack / (inside / pure)

    f = float(ratio(problem.residual(fit)[None])[0])
    if points.runs.max() + 1 == len(points):
        return LackOfFit(f, lack, pure, float(fdtrc(lack, pure, f)))
    log_loss = np.log(points.loss)
    repeats = components(log_loss - member @ (member.T @ log_loss), member, points.runs)
    drawn = ratio(repeats.draw(np.random.RandomState(0), DRAWS, points.runs))
    return LackOfFit(f, lack, pure, float((1 + np.sum(drawn >= f)) / (1 + DRAWS)))


@dataclass(frozen=True)
class Short:
    """Readings of least D that lie off the law of all.

    Args:
        n: how many they are.
        below: the largest D among them.
        by: how far they lie above the law, of ln L, once the law follows the others.
        p_value: probability of as much by noise, for the tries made.
    """

    n: int
    below: float
    by: float
    p_value: float


def short_runs(points: Points, fit: Any) -> Short | None:
    """What a step in ln L at small D would explain: the likeliest of the shares SHORT; None where D is one or absent.

    A step is fitted beside the law, by least squares to first order, and set against the noise that is left then.
    """
    problem, runs = fit.problem(points), points.runs
    kept = ~off(problem, fit, runs)[runs]
    points, runs = points[kept], np.unique(runs[kept], return_inverse=True)[1]
    q, residual = taken_out(problem.jacobian(fit)[kept]), problem.residual(fit)[kept]
    residual, found = residual - q @ (q.T @ residual), []
    for share in SHORT if points.d is not None else ():
        below = float(np.quantile(points.get("d"), share))
        step = (points.get("d") <= below).astype(float)
        own = step - q @ (q.T @ step)
        if own @ own < 1e-6 * (step @ step) or len(points) < q.shape[1] + 3:
            continue
        by = own @ residual / (own @ own)
        noise = split(residual - by * own, np.column_stack([q, own]), runs, points.elapsed)
        if not (variance := noise.of_sum(own / (own @ own), runs, points.elapsed)) > 0:
            continue
        t = float(by / np.sqrt(variance))
        p = min(1.0, len(SHORT) * 2 * float(stdtr(noise.freedom, -abs(t))))
        found.append(Short(int(step.sum()), below, float(by), p))
    return min(found, key=lambda one: one.p_value, default=None)
