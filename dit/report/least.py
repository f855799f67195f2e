"""The least loss at each compute: along the additive law, and power laws through isoFLOP minima."""

from typing import Any

import numpy as np

from dit.errors import InputError
from dit.fits.additive import AdditiveFit
from dit.fits.bootstrap import Bootstrap
from dit.fits.laws import settled
from dit.fits.points import Points as FitPoints
from dit.fits.power import fit_power
from dit.study.readings import Points

BAND_POINTS = 25


def frontier_curve(points: Points, fit: AdditiveFit, boot: Bootstrap | None) -> dict[str, Any]:
    """L*(C) of the additive law up to ten times the largest budget, with its 95 % band."""
    grid = np.geomspace(points.budgets[0] / 1.5, points.budgets[-1] * 10, BAND_POINTS)
    curve: dict[str, Any] = {
        "c": grid.tolist(),
        "value": fit.loss_opt(grid).tolist(),
        "floor": float(settled("E", fit.E, points.loss)),
        "band": None,
    }
    if boot is not None:
        low, high = boot.band(lambda law, c: law.loss_opt(c), grid)
        curve["band"] = {"c": grid.tolist(), "low": low.tolist(), "high": high.tolist()}
    return curve


def frontier(isoflop: dict[str, Any]) -> dict[str, Any] | None:
    """Power laws with and without a floor through the least losses of the accepted budgets."""
    kept = [row for row in isoflop["budgets"] if row["edge"] is None and row["n_opt"] is not None]
    if len(kept) < 2:
        return None
    budgets = np.array([row["budget_flops"] for row in kept])
    losses = np.array([row["loss"] for row in kept])
    found: dict[str, Any] = {"budgets": budgets.tolist(), "losses": losses.tolist()}
    for name, floor in (("power", False), ("power_floor", True)):
        try:
            law = fit_power(FitPoints(losses, c=budgets), floor=floor, loss="mse_log")
        except InputError as why:
            found[name], found[f"{name}_why_not"] = None, str(why)
            continue
        least = float(settled("floor", law.floor, losses))
        found[name] = {"exponent": law.exponent, "coefficient": law.coefficient, "floor": least,
                       "objective": law.objective, "n": len(losses)}  # fmt: skip
    return found
