"""The noise of points about a fitted law: of runs, of readings and along runs, without runs that are off.

A run that went wrong stands in the residuals of a robust loss (huber, lad) far from all others. The law hardly follows
it; its noise, spread over all runs, would widen every interval, so it is set aside here, and said so (see remarks.py).
"""

from typing import Any

import numpy as np

from dit.fits.points import Points
from dit.fits.variance import Components, components, taken_out, walking

Array = np.ndarray
ROBUST = ("huber", "lad")
FAR = 5.0  # times the robust scale of runs: one in a million of Gaussian noise
ENOUGH = 5  # runs more than parameters, below which one that is off cannot be told from the law
WALKS = 3  # readings of a run from which a walk can be told from its shift


def noise_of(problem: Any, fit: Any, points: Points, by: str = "run") -> Components:
    """The variances of the noise in the residuals of ``fit``.

    Args:
        problem: the fit's problem on ``points``.
        fit: the law.
        points: what was fitted.
        by: run, or point: each reading is then a run of its own.
    """
    residual, jacobian = problem.residual(fit), problem.jacobian(fit)
    units = points.runs if by == "run" else np.arange(len(points))
    kept = ~off(problem, fit, units)[units]
    elapsed = points.elapsed if by == "run" else np.zeros(len(points))
    return split(residual[kept], jacobian[kept], units[kept], elapsed[kept])


def split(residual: Array, jacobian: Array, units: Array, elapsed: Array) -> Components:
    """The variances in residuals (n,) of a fit with slopes (n, p); of a walk too, where a run has WALKS readings."""
    runs = np.unique(units, return_inverse=True)[1]
    if np.bincount(runs).max() >= WALKS and elapsed.any():
        return walking(residual, jacobian, runs, elapsed)
    return components(residual, jacobian, runs)


def off(problem: Any, fit: Any, units: Array) -> Array:
    """(G,) which runs lie FAR from the law, by the robust scale of the others; none where the loss is not robust.

    Args:
        problem: the fit's problem.
        fit: the law.
        units: (n,) index of each reading's run.

    Source: the median of the largest absolute residuals, as many as degrees of freedom, since a robust fit passes
    through as many points as it has parameters: Birkes & Dodge, Alternative Methods of Regression (1993), chapter 4.
    """
    mean = np.abs(np.bincount(units, problem.residual(fit)) / np.bincount(units))
    rank = taken_out(problem.jacobian(fit)).shape[1]
    if getattr(problem, "loss", None) not in ROBUST or len(mean) - rank < ENOUGH:  # parabolas have none
        return np.zeros(len(mean), bool)
    scale = float(np.median(np.sort(mean)[rank:])) / 0.6745
    return mean > FAR * scale if scale > 0 else np.zeros(len(mean), bool)
