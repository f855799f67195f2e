"""Several laws at once, weighted by how well each predicts what it has not seen: intervals include the choice of law.

Each law is fitted to the budgets below a cut, and predicts all budgets above it; so for every cut that leaves half of
the budgets or more. The weights are those, non-negative and of sum one, whose mean of ln L misses least. A bootstrap
draw weights the held-out budgets at random, finds weights for that, and takes one of the laws with these odds; its
numbers are that law's, refitted to the draw.

Source: Yao et al. 1704.02030: stacking (section 3.1, here of means) and the Bayesian bootstrap of held-out errors
(section 3.4).
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from dit.errors import InputError
from dit.fits.newton import TINY
from dit.fits.points import Points
from dit.fits.search import Refitted

Array = np.ndarray
MEMBERS = ("additive", "kaplan", "farseer")
FEWEST = 3  # held-out budgets, over all cuts
LightFit = Callable[[Points, str], Any]


@dataclass(frozen=True, eq=False)
class StackedLaw:
    """Laws side by side.

    Args:
        members: the laws.
        weights: (K,) of them; of a bootstrap (R, K), one of each row and else zeros.
    """

    members: tuple[Any, ...]
    weights: Array

    @property
    def mixed(self) -> bool:
        """Draws are of several laws, so that the median of one has no meaning: percentiles are not corrected for it."""
        return True

    def _mean(self, values: list[Any]) -> Any:
        """The weighted mean over members; one without weight may have no value."""
        stacked = np.stack([np.asarray(value, float) for value in values], -1)
        weights = np.broadcast_to(self.weights, stacked.shape)
        found = np.where(weights > 0, weights * stacked, 0.0).sum(-1)
        return found if found.ndim else float(found)

    def _geometric(self, values: list[Any]) -> Any:
        with np.errstate(all="ignore"):
            return np.exp(self._mean([np.log(value) for value in values]))

    @property
    def a(self) -> Any:
        """Exponent of N*(C): the weighted mean."""
        return self._mean([one.a for one in self.members])

    @property
    def b(self) -> Any:
        """Exponent of D*(C): the weighted mean."""
        return self._mean([one.b for one in self.members])

    def n_opt(self, c: Any) -> Any:
        """Size N that is best for compute ``c`` (FLOPs): the weighted geometric mean."""
        return self._geometric([one.n_opt(c) for one in self.members])

    def d_opt(self, c: Any) -> Any:
        """Data D that is best for compute ``c`` (FLOPs): the weighted geometric mean."""
        return self._geometric([one.d_opt(c) for one in self.members])

    def loss_opt(self, c: Any) -> Any:
        """Loss at the best allocation of compute ``c`` (FLOPs): the weighted geometric mean."""
        return self._geometric([one.loss_opt(c) for one in self.members])

    def predict_points(self, points: Points) -> Any:
        """Loss at points: (n,), or (R, n) for the draws of a bootstrap."""
        rows = [np.log(one.predict_points(points)) for one in self.members]
        weights = self.weights if rows[0].ndim == 1 else self.weights[:, None, :]
        return np.exp((np.stack(rows, -1) * weights).sum(-1))


@dataclass(frozen=True, eq=False)
class StackedFit(StackedLaw):
    """Fitted laws and what their weights stand on.

    Args:
        names: of the members.
        misses: (J, K) ln(predicted / measured) of held-out points.
        groups: (J,) which cut and budget each belongs to.
    """

    names: tuple[str, ...]
    misses: Array
    groups: Array

    def problem(self, points: Points) -> "StackedProblem":
        """The members' problems on ``points``."""
        return StackedProblem(self, points)


class StackedProblem:
    """What a bootstrap asks of a problem, of all members together."""

    stratified, resampling = False, "auto"

    def __init__(self, fit: StackedFit, points: Points) -> None:
        self.points, self.y = points, np.log(points.loss)
        self.problems = [one.problem(points) for one in fit.members]

    def residual(self, fit: StackedFit) -> Array:
        """Measured minus predicted ln L (n,)."""
        return self.y - np.log(fit.predict_points(self.points))

    def noisy(self, fit: StackedFit, noise: Array) -> Array:
        """Predicted ln L with ``noise`` (R, n) added."""
        return np.log(fit.predict_points(self.points)) + noise

    def jacobian(self, fit: StackedFit) -> Array:
        """Slopes (n, p) of the member with the largest weight."""
        first = int(np.argmax(fit.weights))
        return self.problems[first].jacobian(fit.members[first])

    def refit(self, fit: StackedFit, weights: Array, y: Array) -> Refitted:
        """Every member refitted to each row, and one of them taken for it."""
        found = [problem.refit(one, weights, y) for problem, one in zip(self.problems, fit.members)]
        rng = np.random.RandomState(0)
        rows, groups = len(found[0].converged), fit.groups.max() + 1
        odds = weights_of(fit.misses, rng.standard_exponential((rows, groups))[:, fit.groups])
        taken = (rng.uniform(size=(rows, 1)) > np.cumsum(odds, 1)[:, :-1]).sum(1)
        law = StackedLaw(tuple(one.law for one in found), np.eye(len(found))[taken])
        converged = np.stack([one.converged for one in found])[taken, np.arange(rows)]
        return Refitted(law, converged, sum(one.improved for one in found))


def fit_stacked(points: Points, fit: LightFit, names: tuple[str, ...] = MEMBERS) -> StackedFit:
    """The laws of ``names`` that the points can carry, weighted by their held-out error.

    Args:
        points: of four budgets or more.
        fit: the fit of a law by its name to points.
        names: of laws of N and D.

    Raises:
        InputError: fewer than two laws, or too few budgets to hold out.
    """
    points = points.completed()
    budgets, count = points.budgets, len(points.budget_flops)
    misses, groups = [], []
    for cut in range((count + 1) // 2, count):
        seen = points[budgets < cut]
        for budget in range(cut, count):
            here = points[budgets == budget]
            misses.append([_missed(fit, seen, name, here) for name in names])
            groups.append(np.full(len(here), len(groups)))
    if len(groups) < FEWEST:
        allowed = "points at four or more budgets, the lower half of which carries the laws"
        raise InputError("law", f"stacked ({count} budgets)", allowed)
    able = [
        i
        for i in range(len(names))
        if all(row[i] is not None for row in misses) and _fits(fit, points, names[i])
    ]
    if len(able) < 2:
        got = ", ".join(names[i] for i in able) or "none"
        raise InputError(
            "law", f"stacked ({got} can be fitted without the largest budgets)", "two laws or more"
        )
    held = np.concatenate([np.stack([row[i] for i in able], 1) for row in misses])
    weights = weights_of(held, np.ones((1, len(held))))[0]
    members = tuple(fit(points, names[i]) for i in able)
    return StackedFit(members, weights, tuple(names[i] for i in able), held, np.concatenate(groups))


def weights_of(misses: Array, importance: Array) -> Array:
    """(R, K) weights, non-negative and of sum one, of least sum of squares of weighted misses.

    Every set of laws is tried; within one, the weights are proportional to the inverse of its matrix of products.

    Args:
        misses: (J, K).
        importance: (R, J) of each square.
    """
    gram = np.einsum("rj,jk,jm->rkm", importance, misses, misses)
    gram = gram + 1e-9 * np.einsum("rkk->r", gram)[:, None, None] * np.eye(misses.shape[1]) + TINY
    best, lowest = np.zeros(gram.shape[:2]), np.full(len(gram), np.inf)
    for size in range(1, misses.shape[1] + 1):
        for chosen in (list(some) for some in combinations(range(misses.shape[1]), size)):
            part = gram[:, chosen][:, :, chosen]
            raw = np.linalg.solve(part, np.ones((len(gram), size, 1)))[..., 0]
            weights = raw / raw.sum(1, keepdims=True)
            cost = np.einsum("rk,rkm,rm->r", weights, part, weights)
            take = (weights >= 0).all(1) & (cost < lowest)
            lowest = np.where(take, cost, lowest)
            full = np.zeros_like(best)
            full[:, chosen] = weights
            best = np.where(take[:, None], full, best)
    return best


def _missed(fit: LightFit, seen: Points, name: str, here: Points) -> Array | None:
    """ln(predicted / measured) of points by a law of others; None where these cannot carry it."""
    try:
        return np.log(fit(seen, name).predict_points(here) / here.loss)
    except InputError:
        return None


def _fits(fit: LightFit, points: Points, name: str) -> bool:
    try:
        fit(points, name)
    except InputError:
        return False
    return True
