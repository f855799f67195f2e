"""From starts to the optimum, and again from the optimum for resampled data: what all laws share.

Legend: R rows (bootstrap draws), S starts, n points, p parameters.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from dit.scaling.fit.newton import Law
from dit.scaling.fit.optimum import minimise

Array = np.ndarray
SAME = 1e-6  # objectives within this relative distance are the same optimum
LIFT = 1e-3  # refits start absent terms at this share of the loss, where their slope still shows
ZERO = 1e-9  # a term whose share of every loss is below this is absent: the optimum lies at its boundary


@dataclass(frozen=True)
class Searched:
    """How an optimum was found.

    Args:
        loss: name of the loss.
        delta: Huber's delta, in log loss.
        objective: sum of losses at the optimum, r being the residual of ln L: huber: sum of Huber(r); lad:
            sum of |r|; mse_log: sum of r^2/2; mse: residual sum of squares of L.
        n: number of points.
        starts: how many starts were tried.
        converged: how many of them converged.
        agreed: how many of those reached the optimum reported.
        absent: terms that are zero at the optimum (a boundary, where curvature says nothing).
        terms: coefficients of the law's terms.
    """

    loss: str
    delta: float
    objective: float
    n: int
    starts: int
    converged: int
    agreed: int
    absent: tuple[str, ...] = ()
    terms: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refitted:
    """Refits to resampled data: the law (array fields), converged (R,), how many a second start improved."""

    law: Any
    converged: Array
    improved: int


class Problem(ABC):
    """A law on given points in the optimiser's coordinates.

    Args:
        law: values and slopes of ln L in the optimiser's parameters.
        y: (n,) measured ln L.
        loss: huber, lad, mse_log or mse.
        delta: Huber's delta, in log loss.

    A subclass names its terms, and which parameter is the logarithm of each one's coefficient (``intercepts``).
    """

    terms: tuple[str, ...] = ()
    intercepts: tuple[int, ...] = ()
    stratified = False

    def __init__(self, law: Law, y: Array, loss: str, delta: float) -> None:
        self.law, self.y, self.loss, self.delta = law, y, loss, delta

    @abstractmethod
    def starts(self) -> Array:
        """Starts (S, p) made of the data."""

    @abstractmethod
    def to_law(self, theta: Array) -> Any:
        """The law of rows ``theta`` (R, p), with array fields (R,)."""

    @abstractmethod
    def to_theta(self, law: Any) -> Array:
        """Coordinates (p,) of a law with scalar fields."""

    def fitted(self, law: Any) -> Array:
        """Predicted ln L (n,)."""
        return self.law.value(self.to_theta(law)[None])[0]

    def jacobian(self, law: Any) -> Array:
        """Slopes of ln L (n, p) in the optimiser's parameters."""
        return self.law.jacobian(self.to_theta(law)[None])[0]

    def lifted(self, theta: Array) -> Array:
        """``theta`` (p,) with terms that are all but absent raised to a share that can grow again."""
        theta = np.maximum(theta, -1e3)
        for index, share in zip(self.intercepts, self.law.shares(theta[None])):
            theta[index] += max(0.0, np.log(LIFT / max(share.mean(), 1e-300)))
        return theta

    def refit(self, law: Any, weights: Array, y: Array) -> Refitted:
        """The law refitted to each row of weights (R or 1, n) and ln L (R or 1, n), from its optimum on all data.

        Every row is started a second time from the optimum of another row; the better one counts.
        """
        rows = max(len(weights), len(y))
        start = np.tile(self.lifted(self.to_theta(law)), (rows, 1))
        first = minimise(self.law, self.loss, self.delta, y, weights, start)
        other = first.theta[np.roll(np.arange(rows), rows // 2)]
        second = minimise(self.law, self.loss, self.delta, y, weights, other)
        better = second.converged & (second.objective < first.objective * (1 - SAME))
        theta = np.where(better[:, None], second.theta, first.theta)
        return Refitted(self.to_law(theta), first.converged | better, int(better.sum()))


def search(problem: Problem) -> tuple[Array, Searched]:
    """The best optimum (p,) over all starts, and how it was found."""
    found = minimise(
        problem.law, problem.loss, problem.delta, problem.y, np.ones((1, len(problem.y))), problem.starts()
    )
    objective = np.where(np.isfinite(found.objective), found.objective, np.inf)
    best = int(np.argmin(objective))
    agreed = found.converged & (objective <= objective[best] * (1 + SAME) + 1e-300)
    shares = problem.law.shares(found.theta[best : best + 1])
    absent = tuple(name for name, share in zip(problem.terms, shares) if share.max() < ZERO)
    return found.theta[best], Searched(
        problem.loss, problem.delta, float(objective[best]), len(problem.y),
        len(objective), int(found.converged.sum()), int(agreed.sum()), absent, problem.terms,
    )  # fmt: skip
