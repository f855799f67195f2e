"""Hold-outs: a law fitted without some readings, asked to predict them: a cut, the largest budget, each budget or size.

A law's fit to the points it has seen says little about the budget that is to be paid for; this is what does.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dit.errors import InputError
from dit.fits.bootstrap import bootstrap
from dit.fits.choose import fit_law
from dit.fits.cuts import selected
from dit.fits.held import Holdout, held_out
from dit.fits.isoflop import WINDOW, fit_isoflop
from dit.fits.noise import noise_of
from dit.fits.points import Points
from dit.fits.restrict import Fixed

Array = np.ndarray


def holdout(
    points: Points,
    law: str,
    loss: str = "huber",
    delta: float = 1e-3,
    draws: int = 1000,
    seed: int = 0,
    fixed: Fixed = (),
    cut: str | None = None,
) -> Holdout:
    """The largest budget, or what a cut selects, predicted from the rest, with intervals.

    Args:
        points: points of two or more budgets (half-decade bins of compute where it is scattered).
        law: a law that predicts losses: additive, power, power_floor or data_limited.
        loss: its loss.
        delta: Huber's delta.
        draws: bootstrap draws behind the intervals.
        seed: of the draws.
        fixed: parameters that are not fitted.
        cut: conditions such as ``flops>1e21`` that held-out readings meet (see cuts.py); None: the largest budget.

    Raises:
        InputError: one budget only, no such cut, or too few points left without what is held out.
    """
    points = points.completed()
    out = _last(points) if cut is None else selected(points, cut)
    fit, result = _predict(points, out, law, loss, delta, fixed)
    result = replace(result, what=cut or result.what, minima=_minima(points, out, fit))
    seen = points[~out]
    boot = bootstrap(seen, fit, draws, seed)
    rows = boot.law.predict_points(points[out])
    problem = fit.problem(seen)
    noise = noise_of(problem, fit, seen)
    drawn = noise.draw(np.random.RandomState(seed + 1), len(rows), points[out].runs, points.elapsed[out])
    rows = rows * np.exp(drawn)
    rows = rows[np.isfinite(rows).all(1)]
    if not len(rows):
        return result
    low, high = np.percentile(rows, [2.5, 97.5], axis=0)
    return replace(result, low=low, high=high)


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


def holdout_by_size(points: Points, fit: Any) -> list[Holdout]:
    """Each size N predicted from all others, largest last, by refits that start from the law of all points.

    Empty where points have one size; sizes without which the law cannot be fitted are left out.
    """
    points = points.completed()
    sizes, of = np.unique(points.get("n"), return_inverse=True)
    if len(sizes) < 2:
        return []
    problem = fit.problem(points)
    refitted = problem.refit(fit, (of[None] != np.arange(len(sizes))[:, None]).astype(float), problem.y[None])
    rows = np.full((len(sizes), len(points)), np.nan)
    rows[refitted.converged] = refitted.law.predict_points(points)[refitted.converged]
    return [
        held_out(points, of == i, rows[i, of == i], f"N = {sizes[i]:.4g}")
        for i in range(len(sizes))
        if np.isfinite(rows[i]).all()
    ]


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
    return fit, held_out(points, out, fit.predict_points(points[out]))


def _minima(points: Points, out: Array, fit: Any) -> tuple[tuple[float, float, float], ...]:
    """FLOPs, N* predicted and N* measured of each budget that is held out whole and has a minimum."""
    if not hasattr(fit, "n_opt"):
        return ()
    try:
        valleys = fit_law(points, "isoflop").valleys
    except InputError:
        return ()
    whole = [out[points.budgets == i].all() for i in range(len(valleys))]
    found = [
        (one.flops, float(fit.n_opt(one.flops)), one.n_opt)
        for one, held in zip(valleys, whole)
        if held and not one.rejected
    ]
    return tuple(row for row in found if np.isfinite(row[1]))
