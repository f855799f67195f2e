"""Hold-out: the law without its largest budget, asked to predict it; and each budget in turn.

A law's fit to the points it has seen says little about the budget that is to be paid for; this is what does.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dit.errors import InputError
from dit.fits.bootstrap import bootstrap
from dit.fits.choose import fit_law
from dit.fits.isoflop import WINDOW, fit_isoflop
from dit.fits.points import Points
from dit.fits.restrict import Fixed
from dit.fits.variance import components

Array = np.ndarray


@dataclass(frozen=True)
class Holdout:
    """A budget predicted from the others.

    Args:
        budget: FLOPs.
        n: points held out.
        predicted: (n,) losses of the law fitted without them.
        measured: (n,) their losses.
        low: (n,) lower ends of the 95 % intervals for a single reading, law and noise together; None without draws.
        high: (n,) upper ends.
    """

    budget: float
    n: int
    predicted: Array
    measured: Array
    low: Array | None = None
    high: Array | None = None

    @property
    def bias(self) -> float:
        """Mean of ln(predicted / measured)."""
        return float(np.mean(np.log(self.predicted / self.measured)))

    @property
    def rms(self) -> float:
        """Root mean square of ln(predicted / measured)."""
        return float(np.sqrt(np.mean(np.log(self.predicted / self.measured) ** 2)))

    @property
    def covered(self) -> int | None:
        """How many of the measured losses lie inside their intervals."""
        if self.low is None or self.high is None:
            return None
        return int(np.sum((self.low <= self.measured) & (self.measured <= self.high)))


def holdout(
    points: Points,
    law: str,
    loss: str = "huber",
    delta: float = 1e-3,
    draws: int = 1000,
    seed: int = 0,
    fixed: Fixed = (),
) -> Holdout:
    """The largest budget predicted from the smaller ones, with intervals.

    Args:
        points: points of two or more budgets (half-decade bins of compute where it is scattered).
        law: a law that predicts losses: additive, power, power_floor or data_limited.
        loss: its loss.
        delta: Huber's delta.
        draws: bootstrap draws behind the intervals.
        seed: of the draws.
        fixed: parameters that are not fitted.

    Raises:
        InputError: one budget only, or too few points left without the largest.
    """
    points, out = points.completed(), _last(points.completed())
    fit, result = _predict(points, out, law, loss, delta, fixed)
    seen = points[~out]
    boot = bootstrap(seen, fit, draws, seed)
    rows = boot.law.predict_points(points[out])
    problem = fit.problem(seen)
    noise = components(problem.residual(fit), problem.jacobian(fit), seen.runs)
    rows = rows * np.exp(noise.draw(np.random.RandomState(seed + 1), len(rows), points[out].runs))
    rows = rows[np.isfinite(rows).all(1)]
    if not len(rows):
        return result
    low, high = np.percentile(rows, [2.5, 97.5], axis=0)
    return Holdout(result.budget, result.n, result.predicted, result.measured, low, high)


@dataclass(frozen=True)
class HeldMinimum:
    """The minimum of the largest budget's parabola, predicted by lines through those of the others.

    Args:
        budget: FLOPs.
        predicted: N*, D* and L* of the lines.
        measured: N*, D* and L* of the budget's own parabola.
    """

    budget: float
    predicted: tuple[float, float, float]
    measured: tuple[float, float, float]


def holdout_minimum(points: Points, window: float = WINDOW) -> HeldMinimum:
    """The isoFLOP law (by the ``window`` of its parabolas) without its largest budget, against that budget's minimum.

    Raises:
        InputError: the largest budget has no minimum, or too few others have.
    """
    points = points.completed()
    last = fit_isoflop(points, window).valleys[-1]
    if last.rejected:
        raise InputError(
            "data", f"({last.flops:.3g} FLOPs: {last.rejected})", "a minimum at the largest budget"
        )
    law = fit_isoflop(points[~_last(points)], window)
    predicted = (law.n_opt(last.flops), law.d_opt(last.flops), law.loss_opt(last.flops))
    return HeldMinimum(last.flops, predicted, (last.n_opt, last.d_opt, last.loss_opt))


def predict_last(
    points: Points, law: str, loss: str = "huber", delta: float = 1e-3, fixed: Fixed = ()
) -> Holdout:
    """The largest budget predicted from the smaller ones, without intervals.

    Raises:
        InputError: one budget only, or too few points left without the largest.
    """
    points = points.completed()
    return _predict(points, _last(points), law, loss, delta, fixed)[1]


def holdout_by_budget(
    points: Points, law: str, loss: str = "huber", delta: float = 1e-3, fixed: Fixed = ()
) -> list[Holdout]:
    """Each budget predicted from all others, largest last; budgets without which the law cannot be fitted are left out.

    Raises:
        InputError: one budget only.
    """
    points = points.completed()
    _last(points)
    found = []
    for i in range(len(points.budget_flops)):
        try:
            found.append(_predict(points, points.budgets == i, law, loss, delta, fixed)[1])
        except InputError:  # too few points remain: that budget carries the law
            continue
    return found


def _last(points: Points) -> Array:
    if len(points.budget_flops) < 2:
        raise InputError(
            "data", "(one budget only)", "points at two or more budgets", "There is none to hold out."
        )
    return points.budgets == len(points.budget_flops) - 1


def _predict(
    points: Points, out: Array, law: str, loss: str, delta: float, fixed: Fixed
) -> tuple[Any, Holdout]:
    fit = fit_law(points[~out], law, loss, delta, fixed)
    held = points[out]
    flops = float(points.budget_flops[points.budgets[out][0]])
    return fit, Holdout(flops, len(held), fit.predict_points(held), held.loss)
