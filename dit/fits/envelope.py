"""Approach 1: the lower envelope of all points over compute, and lines along it.

Source: Hoffmann et al. 2203.15556, section 3.1. The envelope here is the points themselves that no cheaper
point beats, without interpolation between the readings of a run.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dit.errors import InputError
from dit.fits.allocation import AllocationLaw, lines
from dit.fits.points import Points
from dit.fits.search import Refitted

Array = np.ndarray
AT_LEAST = 3


@dataclass(frozen=True)
class EnvelopeFit(AllocationLaw):
    """Lines along the envelope.

    Args:
        frontier: (m,) positions of the points on the envelope, in order of compute.
        n: number of points.
    """

    frontier: Array
    n: int

    def problem(self, points: Points) -> "EnvelopeProblem":
        """This fit's problem on ``points``."""
        return EnvelopeProblem(points)


class EnvelopeProblem:
    """The envelope of given points. It has no surface, so that only resampling gives its intervals."""

    stratified = False
    resampling = "pairs"

    def __init__(self, points: Points) -> None:
        self.points = points.completed()
        columns = (self.points.get(name) for name in ("c", "n", "d", "loss"))
        self.log_c, self.log_n, self.log_d, self.y = (np.log(column) for column in columns)
        self.order = np.lexsort((self.y, self.log_c))

    def frontier(self, weights: Array, y: Array) -> Array:
        """(R, n), in order of compute, which points no cheaper one beats; absent ones (weight 0) never."""
        present = weights[:, self.order] > 0
        loss = np.where(present, y[:, self.order], np.inf)
        before = np.minimum.accumulate(np.pad(loss, ((0, 0), (1, 0)), constant_values=np.inf), axis=1)[:, :-1]
        return present & (loss < before)

    def refit(self, law: Any, weights: Array, y: Array) -> Refitted:
        """Lines along the envelope of each row of weights (R or 1, n) and ln L (R or 1, n)."""
        rows = max(len(weights), len(y))
        y = np.broadcast_to(y, (rows, y.shape[1]))
        use = self.frontier(np.broadcast_to(weights, y.shape), y)
        values = (self.log_n[self.order][None], self.log_d[self.order][None], y[:, self.order])
        fitted = [lines(self.log_c[self.order], np.broadcast_to(value, y.shape), use) for value in values]
        return Refitted(AllocationLaw(*fitted[0], *fitted[1], *fitted[2]), use.sum(1) >= AT_LEAST, 0)


def fit_envelope(points: Points) -> EnvelopeFit:
    """Lines N*(C), D*(C), L*(C) along the lower envelope.

    Raises:
        InputError: fewer than three points on the envelope.
    """
    problem = EnvelopeProblem(points)
    one = np.ones_like(problem.y[None])
    use = problem.frontier(one, problem.y[None])[0]
    if use.sum() < AT_LEAST:
        allowed = f"{AT_LEAST} or more points on the lower envelope"
        raise InputError("data", f"({int(use.sum())} points that no cheaper one beats)", allowed)
    law = problem.refit(None, one, problem.y[None]).law
    scalars = (law.n_coefficient, law.a, law.d_coefficient, law.b, law.loss_coefficient, law.loss_exponent)
    n, a, d, b, level, exponent = (float(value[0]) for value in scalars)
    return EnvelopeFit(n, a, d, b, level, exponent, problem.order[use], len(points))
