"""Choosing between laws: held-out error first, then AIC and BIC."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dit.errors import InputError
from dit.fits.choose import NAMES, fit_law
from dit.fits.holdout import predict_last
from dit.fits.points import Points
from dit.fits.restrict import Fixed


@dataclass(frozen=True)
class Contender:
    """A law among others on the same points.

    Args:
        law: its name.
        parameters: how many it has.
        holdout_rms: root mean square of ln(predicted/measured) at the largest budget, fitted without it; NaN
            where that is impossible.
        holdout_bias: mean of the same.
        aic: Akaike's criterion, lower is better.
        bic: Schwarz's criterion, lower is better.
    """

    law: str
    parameters: int
    holdout_rms: float
    holdout_bias: float
    aic: float
    bic: float


def compare(
    points: Points, laws: tuple[str, ...], loss: str = "huber", delta: float = 1e-3, fixed: Fixed = ()
) -> list[Contender]:
    """The laws that the points can carry, best held-out error first; AIC decides where that is equal to six digits.

    Each has the parameters ``fixed`` that it knows.
    """
    found = []
    for law in laws:
        try:
            known = tuple((name, value) for name, value in fixed if name in NAMES.get(law, ()))
            fit = fit_law(points, law, loss, delta, known)
        except InputError:  # too few points for this one, or no column for it
            continue
        parameters, log_likelihood = likelihood(points, fit)
        aic = 2 * parameters - 2 * log_likelihood
        bic = parameters * np.log(len(points)) - 2 * log_likelihood
        try:
            held = predict_last(points, law, loss, delta, known)
            rms, bias = held.rms, held.bias
        except InputError:
            rms = bias = float("nan")
        found.append(Contender(law, parameters, rms, bias, float(aic), float(bic)))
    return sorted(
        found, key=lambda one: (np.isnan(one.holdout_rms), float(f"{one.holdout_rms:.6g}"), one.aic)
    )


def likelihood(points: Points, fit: Any) -> tuple[int, float]:
    """Number of parameters, and the log likelihood that goes with the fit's loss, its scale fitted.

    Laplace's for huber and lad (residuals of ln L), Gauss's for mse_log (of ln L) and mse (of L); criteria of
    different losses cannot be compared. The scale counts as a parameter.
    """
    problem = fit.problem(points)
    f, n = problem.fitted(fit), len(points)
    parameters = len(problem.to_theta(fit)) + 1
    if problem.loss in ("huber", "lad"):
        return parameters, float(-n * (np.log(2 * np.mean(np.abs(problem.y - f))) + 1))
    residual = points.loss - np.exp(f) if problem.loss == "mse" else problem.residual(fit)
    return parameters, float(-0.5 * n * (np.log(2 * np.pi * np.mean(residual**2)) + 1))
