"""From starts to the optimum, and again from the optimum for resampled data: what all laws share.

Legend: R rows (bootstrap draws), S starts, n points, p parameters.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dit.errors import InputError
from dit.fits.laws import FLOOR
from dit.fits.losses import smooth_loss
from dit.fits.newton import TINY, Law, Minimum
from dit.fits.optimum import minimise, rounding

Array = np.ndarray
SAME = 1e-6  # objectives within this relative distance are the same optimum
LIFT = 1e-3  # refits start absent terms at this share of the loss, where their slope still shows
ALL = 300  # steps of Newton
SCOUTED = 40  # steps after which starts of a law that is slow to fit are worth no more, unless they are ahead
FEW = 4  # starts that go on then
TWICE = 500  # points up to which refits are started twice
NOTHING = -50.0  # ln of the share of a term that is taken out


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


@dataclass(frozen=True)
class Axis:
    """A direction along which a parameter is profiled: one coordinate, or the ratio of two.

    Args:
        index: the coordinate that is the parameter (or its logarithm).
        low: lowest position that makes sense; high: the highest.
        log: whether the coordinate is the parameter's logarithm.
        falling: whether the parameter is minus the coordinate.
        other: for a ratio theta[index] / (theta[index] + theta[other]), the other coordinate.
    """

    index: int
    low: float
    high: float
    log: bool = False
    falling: bool = False
    other: int | None = None

    def position(self, theta: Array) -> Array:
        """Where rows ``theta`` (R, p) stand on the axis (R,)."""
        if self.other is None:
            return theta[:, self.index]
        return theta[:, self.index] / (theta[:, self.index] + theta[:, self.other])

    def shown(self, position: Any) -> Any:
        """The parameter at a position."""
        position = np.exp(position) if self.log else position
        return -position if self.falling else position

    def slope(self, theta: Array) -> Array:
        """Slope (p,) of the position in theta (p,)."""
        out = np.zeros(len(theta))
        if self.other is None:
            out[self.index] = 1.0
            return out
        total = theta[self.index] + theta[self.other]
        out[self.index], out[self.other] = theta[self.other] / total**2, -theta[self.index] / total**2
        return out

    def hold(self, theta: Array, held: Array) -> tuple[Array, Array]:
        """Starts (m, p) at positions ``held`` (m,), and the directions (m, p, p - 1) that keep them there."""
        p = len(theta)
        keep = [i for i in range(p) if i != self.index]
        basis = np.tile(np.eye(p)[:, keep], (len(held), 1, 1))
        if self.other is not None:
            basis[:, :, keep.index(self.other)] = 0.0
            basis[:, self.index, keep.index(self.other)] = held
            basis[:, self.other, keep.index(self.other)] = 1 - held
        return self.project(np.tile(theta, (len(held), 1)), held), basis

    def project(self, theta: Array, held: Array) -> Array:
        """Rows ``theta`` (m, p) moved to the positions ``held`` (m,)."""
        theta = theta.copy()
        if self.other is None:
            theta[:, self.index] = held
        else:
            total = theta[:, self.index] + theta[:, self.other]
            theta[:, self.index], theta[:, self.other] = total * held, total * (1 - held)
        return theta


class Problem(ABC):
    """A law on given points in the optimiser's coordinates.

    Args:
        law: values and slopes of ln L in the optimiser's parameters.
        y: (n,) measured ln L.
        loss: huber, lad, mse_log or mse.
        delta: Huber's delta, in log loss.

    A subclass names its terms, and which parameter is the logarithm of each coefficient (``intercepts``).
    """

    terms: tuple[str, ...] = ()
    intercepts: tuple[int, ...] = ()
    stratified = False
    resampling = "auto"

    def __init__(self, law: Law, y: Array, loss: str, delta: float) -> None:
        if len(y) > 1 and np.ptp(y) == 0:
            raise InputError("columns.loss", f"({np.exp(y[0]):g} in every row)", "losses that differ")
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

    @abstractmethod
    def axes(self, law: Any) -> dict[str, Axis]:
        """The parameters that can be profiled, by name."""

    def level_axis(self, index: int) -> Axis:
        """The axis of a floor: from nothing (e^-30 of the lowest loss) to the lowest loss."""
        lowest = float(self.y.min())
        return Axis(index, lowest - 30.0, lowest, log=True)

    def fitted(self, law: Any) -> Array:
        """Predicted ln L (n,)."""
        return self.law.value(self.to_theta(law)[None])[0]

    def residual(self, law: Any) -> Array:
        """Measured minus predicted ln L (n,)."""
        return self.y - self.fitted(law)

    def noisy(self, law: Any, noise: Array) -> Array:
        """Predicted ln L with ``noise`` (R, n) added."""
        return self.fitted(law) + noise

    def objective(self, theta: Array) -> float:
        """The sum of losses at ``theta`` (p,)."""
        f = self.law.value(theta[None])[0]
        if self.loss == "lad":
            return float(np.abs(f - self.y).sum())
        loss = smooth_loss(self.loss, self.delta)
        return loss.unit * float(loss.derivatives(f, self.y)[0].sum())

    def jacobian(self, law: Any) -> Array:
        """Slopes of ln L (n, p) in the optimiser's parameters."""
        return self.law.jacobian(self.to_theta(law)[None])[0]

    def lifted(self, theta: Array) -> Array:
        """``theta`` (p,) with terms that are all but absent raised to a share that can grow again."""
        theta = np.maximum(theta, FLOOR)
        for index, share in zip(self.intercepts, self.law.shares(theta[None])):
            theta[index] += max(0.0, np.log(LIFT / max(share.mean(), TINY)))
        return theta

    def refit(self, law: Any, weights: Array, y: Array) -> Refitted:
        """The law refitted to rows of weights (R or 1, n) and ln L (R or 1, n), from its optimum on all data.

        Up to TWICE points, every row is started a second time from the optimum of another row, and the better one
        counts; it never differed in 10,000 draws of 240 points.
        """
        rows = max(len(weights), len(y))
        start = np.tile(self.lifted(self.to_theta(law)), (rows, 1))
        first = self.minimised(y, weights, start)
        if len(self.y) > TWICE:
            return Refitted(self.to_law(first.theta), first.converged, 0)
        other = first.theta[np.roll(np.arange(rows), rows // 2)]
        scouted = self.law.scaled
        second = self.minimised(y, weights, other, SCOUTED if scouted else ALL)
        better = second.objective < first.objective * (1 - SAME)
        if scouted:
            self.continue_from(second, better & ~second.converged, y, weights)
        better &= second.converged
        theta = np.where(better[:, None], second.theta, first.theta)
        return Refitted(self.to_law(theta), first.converged | better, int(better.sum()))

    def minimised(self, y: Array, weights: Array, start: Array, steps: int = ALL) -> Minimum:
        """Local optima of rows of data (R or 1, n) and weights (R or 1, n) from their starts (R, p)."""
        return minimise(self.law, self.loss, self.delta, y, weights, start, max_iterations=steps)

    def continue_from(self, found: Minimum, chosen: Array, y: Array, weights: Array) -> None:
        """Takes the rows ``chosen`` (R,) of what was found on to their optima, in place."""
        if not chosen.any():
            return
        y, weights = (one if len(one) == 1 else one[chosen] for one in (np.atleast_2d(y), weights))
        last = self.minimised(y, weights, found.theta[chosen])
        found.theta[chosen], found.objective[chosen] = last.theta, last.objective
        found.converged[chosen] = last.converged


def search(problem: Problem) -> tuple[Array, Searched]:
    """The best optimum (p,) over all starts, and how it was found.

    Where a term all but vanished at the best, it is raised again for one more start: a step of Newton's can leap past
    an optimum with the term, and from there on its slope is too small to come back.
    """
    found = _from(problem, problem.starts())
    best = found.theta[np.argmin(found.objective)]
    raised = problem.lifted(best)
    if not np.array_equal(raised, best):
        found = _both(found, _from(problem, raised[None]))
    objective, best = found.objective, int(np.argmin(found.objective))
    exact = rounding(problem.loss, problem.y[None], np.ones((1, len(problem.y))))
    agreed = found.converged & (objective <= objective[best] * (1 + SAME) + exact)
    theta, lowest, absent = _without_idle(problem, found.theta[best], float(objective[best]))
    return theta, Searched(
        problem.loss, problem.delta, lowest, len(problem.y),
        len(objective), int(found.converged.sum()), int(agreed.sum()), absent, problem.terms,
    )  # fmt: skip


def _from(problem: Problem, starts: Array) -> Minimum:
    """The optimum from each start (S, p); one that left the numbers has an infinite objective."""
    one = np.ones((1, len(problem.y)))
    scouted = problem.law.scaled and len(starts) > FEW
    found = problem.minimised(problem.y, one, starts, SCOUTED if scouted else ALL)
    if scouted:
        ahead = np.isin(np.arange(len(starts)), np.argsort(found.objective)[:FEW])
        problem.continue_from(found, ahead & ~found.converged & np.isfinite(found.objective), problem.y, one)
    return replace(found, objective=np.where(np.isfinite(found.objective), found.objective, np.inf))


def _both(one: Minimum, other: Minimum) -> Minimum:
    return Minimum(
        np.concatenate([one.theta, other.theta]),
        np.concatenate([one.objective, other.objective]),
        np.concatenate([one.converged, other.converged]),
        max(one.iterations, other.iterations),
    )


def _without_idle(problem: Problem, theta: Array, objective: float) -> tuple[Array, float, tuple[str, ...]]:
    """The optimum, its objective and its absent terms, once terms without which it is no worse are taken out.

    At a boundary the objective still falls as the logarithm of a coefficient goes to minus infinity, until its slope
    is too small for Newton to follow: what is left of the term then costs up to 1e-7 of the objective.
    """
    lowered, idle = theta.copy(), []
    for i, (index, share) in enumerate(zip(problem.intercepts, problem.law.shares(theta[None]))):
        trial = lowered.copy()
        trial[index] += min(0.0, NOTHING - np.log(max(float(share.max()), TINY)))
        if problem.objective(trial) <= objective:
            lowered, idle = trial, [*idle, i]
    if not idle:
        return theta, objective, ()
    found, value = _from(problem, lowered[None]), problem.objective(lowered)
    absent = tuple(problem.terms[i] for i in idle)
    if found.objective[0] <= value:
        return found.theta[0], float(found.objective[0]), absent
    return lowered, value, absent
