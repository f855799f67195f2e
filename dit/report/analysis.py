"""All fits of a report, as plain values: what fits.json holds and figures and tables show.

Keys of the result:
isoflop: by size measure (``n_flop``, ``n_total``): ``budgets`` (minimum, intervals, verdict) and
    ``law`` (``n``, ``d``, ``loss``: exponent, coefficient, sd, intervals, band), null where there is none.
additive: ``primary`` (N_flop, Huber), ``why_not``, ``bootstrap``, ``profiles``, ``loss`` (L* over compute).
frontier: laws of the least loss in compute.
holdout: the largest budget predicted.
sensitivity: exponents under other choices.
fits: one entry per law for the tables.
targets, bins, frechet, cooldowns: see derived.py; comparison: see compare.py.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from dit.errors import InputError
from dit.fits.additive import AdditiveFit, fit_additive
from dit.fits.bootstrap import Bootstrap, bootstrap
from dit.fits.isoflop import AT_LEAST, fit_isoflop
from dit.fits.laws import settled
from dit.fits.points import Points as FitPoints
from dit.fits.power import fit_power
from dit.report.derived import cooldowns, frechet, noise_bins, targets
from dit.report.judge import hold_out, profile_all, vary
from dit.report.material import Material
from dit.study.readings import Points, collect, collect_samples
from dit.study.records import Study

SIZES = {"n_flop": "multiply-adds per token", "n_total": "parameters"}
BAND_POINTS = 25


def analyse(study: Study, draws: int = 1000) -> Material:
    """Fits everything that a study's records allow.

    Args:
        study: the records.
        draws: bootstrap draws per law.

    Raises:
        InputError: records that cannot share an axis, or none at a budget.
    """
    points, samples = collect(study), collect_samples(study)
    fits: list[dict[str, Any]] = []
    isoflop = {size: _isoflop(points, size, draws, fits) for size in SIZES}
    additive, fit, boot = _additive(points, draws, fits)
    n_train = study.runs[0]["data"].get("n_train")
    found = {
        "weights": points.weights,
        "isoflop": isoflop,
        "additive": additive,
        "frontier": _frontier(isoflop["n_flop"]),
        **hold_out(points, draws),
        "sensitivity": vary(study, points, fit, boot, fits),
        "fits": fits,
        "targets": targets(fit, boot, float(points.budgets[-1]), n_train) if fit else [],
        "bins": noise_bins(points),
        "frechet": frechet(samples),
        "cooldowns": cooldowns(study, points, fit),
    }
    return Material(study, points, samples, found, fit, boot)


def _isoflop(points: Points, size: str, draws: int, fits: list[dict[str, Any]]) -> dict[str, Any]:
    """IsoFLOP minima and the lines through them; appends the lines to ``fits``."""
    data = points.for_fit(size)
    rows = [_row(points, budget, size) for budget in points.budgets]
    try:
        fit = fit_isoflop(data)
    except InputError as why:  # no line through minima; a minimum of its own a budget may have
        return {"budgets": [_alone(points, row, size) for row in rows], "law": None, "why_not": str(why)}
    boot = _bootstrap(data, fit, draws)
    for index, (row, valley) in enumerate(zip(rows, fit.valleys)):
        row["edge"] = valley.rejected or None
        if np.isfinite(valley.coefficients).all():
            row["parabola"] = {"centre": valley.centre, "coefficients": list(valley.coefficients)}
        if not valley.rejected:
            row |= {"n_opt": valley.n_opt, "d_opt": valley.d_opt, "loss": valley.loss_opt}
            for name, column in (("interval_95", 0), ("d_interval_95", 1)):
                row[name] = _interval(boot, lambda law, i=index, j=column: law.minima[..., i, j])
    law = {
        "n": _line(boot, points, fit.a, fit.n_coefficient, lambda law: law.a, lambda law, c: law.n_opt(c)),
        "d": _line(boot, points, fit.b, fit.d_coefficient, lambda law: law.b, lambda law, c: law.d_opt(c)),
        "loss": _line(boot, points, fit.loss_exponent, fit.loss_coefficient, lambda law: law.loss_exponent,
                      lambda law, c: law.loss_opt(c)),
    }  # fmt: skip
    of: dict[str, Callable[[Any], Any]] = {
        "exponent of N*": lambda law: law.a,
        "coefficient of N*": lambda law: law.n_coefficient,
        "exponent of D*": lambda law: law.b,
        "coefficient of D*": lambda law: law.d_coefficient,
    }
    fits.append(_entry("isoFLOP minima", size, "least squares", of, fit, boot, fit.n))
    return {"budgets": rows, "law": law, "why_not": None}


def _row(points: Points, budget: float, size: str) -> dict[str, Any]:
    """What was measured at a budget, before any fit: its best run, and whether that lies at the edge of the row."""
    here = np.flatnonzero(points.budget == budget)
    n = (points.n if size == "n_flop" else points.n_total)[here]
    best = int(np.argmin(points.loss[here]))
    edge = None
    if n[best] in (n.min(), n.max()):
        edge = f"its best size is the {'smallest' if n[best] == n.min() else 'largest'} trained"
    return {
        "budget_flops": float(budget), "points": len(here), "best_size": float(n[best]),
        "best_run": points.run[here[best]], "best_loss": float(points.loss[here[best]]), "edge": edge,
        "n_opt": None, "d_opt": None, "loss": float(points.loss[here[best]]), "parabola": None,
        "interval_95": None, "d_interval_95": None,
    }  # fmt: skip


def _alone(points: Points, row: dict[str, Any], size: str) -> dict[str, Any]:
    """A budget's row with the minimum of its parabola, without intervals, where no law could be fitted."""
    here = points.budget == row["budget_flops"]
    x = np.log((points.n if size == "n_flop" else points.n_total)[here])
    if row["edge"] is not None or len(np.unique(x)) < AT_LEAST:
        return row
    centre = float(x.mean())
    quadratic, linear, constant = (float(c) for c in np.polyfit(x - centre, points.loss[here], 2))
    lowest = -linear / (2 * quadratic)
    if quadratic <= 0 or not x.min() < centre + lowest < x.max():
        return {**row, "edge": "its parabola has no minimum inside the sizes trained"}
    return {
        **row,
        "parabola": {"centre": centre, "coefficients": [constant, linear, quadratic]},
        "n_opt": float(np.exp(centre + lowest)),
        "loss": constant + linear * lowest / 2,
    }


def _additive(
    points: Points, draws: int, fits: list[dict[str, Any]]
) -> tuple[dict[str, Any], AdditiveFit | None, Bootstrap | None]:
    """The additive law by both loss functions and both sizes; the first of them is the primary one."""
    primary: tuple[AdditiveFit, Bootstrap | None] | None = None
    result: dict[str, Any] = {
        "primary": None,
        "why_not": None,
        "bootstrap": None,
        "profiles": None,
        "loss": None,
    }
    for size in SIZES:
        for loss in ("huber", "mse"):
            data = points.for_fit(size)
            try:
                fit = fit_additive(data, loss)
            except InputError as why:
                result["why_not"] = result["why_not"] or str(why)
                continue
            boot = _bootstrap(data, fit, draws)
            primary = primary or (fit, boot)
            fits.append(
                _entry("additive", size, loss, _additive_parameters(points), fit, boot, fit.searched.n)
            )
    if primary is None:
        return result, None, None
    fit, boot = primary
    result["primary"] = {
        "parameters": {
            name: float(settled(name, getattr(fit, name), points.loss))
            for name in ("E", "A", "alpha", "B", "beta")
        },
        "allocation": {
            "n": _line(
                boot, points, fit.a, fit.G * fit.k**-fit.a, lambda law: law.a, lambda law, c: law.n_opt(c)
            ),
            "d": _line(
                boot, points, fit.b, fit.k**-fit.b / fit.G, lambda law: law.b, lambda law, c: law.d_opt(c)
            ),
        },
        "absent": list(fit.searched.absent),
    }
    if boot is not None:
        result["bootstrap"] = {
            "draws": boot.draws,
            "converged": boot.draws - boot.failed,
            "method": boot.method,
        }
    result["loss"] = _frontier_curve(points, fit, boot)
    result["profiles"] = profile_all(points, fit)
    return result, fit, boot


def _additive_parameters(points: Points) -> dict[str, Callable[[Any], Any]]:
    names = ("E", "A", "alpha", "B", "beta", "a", "b", "G")
    return {name: (lambda law, name=name: settled(name, getattr(law, name), points.loss)) for name in names}


def _bootstrap(data: FitPoints, fit: Any, draws: int) -> Bootstrap | None:
    """The bootstrap of a fit; None where too few draws could be refitted to speak of an interval."""
    boot = bootstrap(data, fit, draws=draws)
    return boot if boot.draws - boot.failed >= 20 else None


def _interval(boot: Bootstrap | None, of: Callable[[Any], Any], level: float = 0.95) -> list[float] | None:
    if boot is None or len(boot.values(of)) < 20:
        return None
    low, high = boot.interval(of, level)
    return [low, high]


def _line(
    boot: Bootstrap | None, points: Points, exponent: float, coefficient: float,
    of_exponent: Callable[[Any], Any], at: Callable[[Any, Any], Any],
) -> dict[str, Any]:  # fmt: skip
    """A power law in compute: exponent, coefficient, sd, intervals, and its 95 % band over and beyond the budgets."""
    grid = np.geomspace(points.budgets[0] / 1.6, points.budgets[-1] * 1.6, BAND_POINTS)
    line: dict[str, Any] = {
        "exponent": float(exponent),
        "coefficient": float(coefficient),
        "sd": None,
        "band": None,
    }
    line |= {f"interval_{round(100 * level)}": _interval(boot, of_exponent, level) for level in (0.80, 0.95)}
    if boot is not None and line["interval_95"] is not None:
        line["sd"] = boot.sd(of_exponent)
        low, high = boot.band(at, grid)
        line["band"] = {"c": grid.tolist(), "low": low.tolist(), "high": high.tolist()}
    return line


def _entry(
    law: str,
    size: str,
    loss: str,
    of: dict[str, Callable[[Any], Any]],
    fit: Any,
    boot: Bootstrap | None,
    n: int,
) -> dict[str, Any]:
    """A law for the tables: parameters, intervals, objective, convergence."""
    searched = getattr(fit, "searched", None)
    return {
        "law": law,
        "size": size,
        "loss": loss,
        "parameters": {name: float(value(fit)) for name, value in of.items()},
        "intervals": {
            name: {"80": _interval(boot, value, 0.80), "95": _interval(boot, value, 0.95)}
            for name, value in of.items()
        },
        "objective": searched.objective if searched else None,
        "n": n,
        "starts": searched.starts if searched else None,
        "converged": searched.converged if searched else None,
        "draws": boot.draws if boot else None,
        "draws_converged": boot.draws - boot.failed if boot else None,
        "method": boot.method if boot else None,
    }


def _frontier_curve(points: Points, fit: AdditiveFit, boot: Bootstrap | None) -> dict[str, Any]:
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


def _frontier(isoflop: dict[str, Any]) -> dict[str, Any] | None:
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
