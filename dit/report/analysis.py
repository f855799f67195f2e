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
from operator import attrgetter
from typing import Any

import numpy as np

from dit.errors import InputError
from dit.files import plain
from dit.fits.additive import AdditiveFit, fit_additive
from dit.fits.bootstrap import Bootstrap, bootstrap
from dit.fits.doubts import Doubts, doubts, of_interval, of_minimum
from dit.fits.isoflop import AT_LEAST, fit_isoflop
from dit.fits.laws import settled
from dit.fits.points import Points as FitPoints
from dit.report.derived import cooldowns, frechet, noise_bins, targets
from dit.report.judge import hold_out, profile_all, vary
from dit.report.least import frontier, frontier_curve
from dit.report.material import Material
from dit.study.readings import Points, Samples, collect_samples, readings, why_none
from dit.study.records import Study

SIZES = {"n_flop": "multiply-adds per token", "n_total": "parameters"}
BAND_POINTS = 25
ISOFLOP = {"a": "exponent of N*", "n_coefficient": "coefficient of N*", "b": "exponent of D*",
           "d_coefficient": "coefficient of D*"}  # fmt: skip
ADDITIVE = {name: name for name in ("E", "A", "alpha", "B", "beta", "a", "b", "G")}


def analyse(study: Study, draws: int = 1000) -> Material:
    """Fits everything that a study's records allow.

    Args:
        study: the records.
        draws: bootstrap draws per law.

    Raises:
        InputError: records that cannot share an axis.
    """
    points, samples = readings(study), collect_samples(study)
    if not len(points.run):
        return Material(study, points, samples, plain(_without_points(points, samples)))
    fits: list[dict[str, Any]] = []
    isoflop = {size: _isoflop(points, size, draws, fits) for size in SIZES}
    additive, fit, boot = _additive(points, draws, fits)
    n_train = study.runs[0]["data"].get("n_train")
    found = {
        "weights": points.weights,
        "isoflop": isoflop,
        "additive": additive,
        "frontier": frontier(isoflop["n_flop"]),
        **hold_out(points, draws),
        "sensitivity": vary(study, points, fit, boot, fits),
        "fits": fits,
        "targets": targets(fit, boot, float(points.budgets[-1]), n_train) if fit and additive["loss"] else [],
        "bins": noise_bins(points),
        "frechet": frechet(samples),
        "cooldowns": cooldowns(study, points, fit),
    }
    return Material(study, points, samples, plain(found), fit, boot)


def _without_points(points: Points, samples: list[Samples]) -> dict[str, Any]:
    """The same where no reading counts: nothing, and why."""
    why = f"no reading counts. {why_none(points)}".rstrip(".")
    law = {"primary": None, "why_not": why, "bootstrap": None, "profiles": None, "loss": None}
    isoflop = {size: {"budgets": [], "law": None, "why_not": why} for size in SIZES}
    return {
        "weights": points.weights, "isoflop": isoflop, "additive": law, "frontier": None, "holdout": None,
        "holdout_why_not": why, "sensitivity": [], "fits": [], "targets": [], "bins": None,
        "frechet": frechet(samples), "cooldowns": [],
    }  # fmt: skip


def _isoflop(points: Points, size: str, draws: int, fits: list[dict[str, Any]]) -> dict[str, Any]:
    """IsoFLOP minima and the lines through them; appends the lines to ``fits``."""
    data = points.for_fit(size)
    rows = [_row(points, budget, size) for budget in points.budgets]
    try:
        fit = fit_isoflop(data)
    except InputError as why:  # no line through minima; a minimum of its own a budget may have
        alone = [_alone(points, row, size) for row in rows]
        return {"budgets": _doubted(alone), "law": None, "why_not": str(why)}
    boot = _bootstrap(data, fit, draws)
    for index, (row, valley) in enumerate(zip(rows, fit.valleys)):
        row["edge"] = valley.rejected or None
        if np.isfinite(valley.coefficients).all():
            row["parabola"] = {"centre": valley.centre, "coefficients": list(valley.coefficients)}
        if not valley.rejected:
            row |= {"n_opt": valley.n_opt, "d_opt": valley.d_opt, "loss": valley.loss_opt}
            for name, column in (("interval_95", 0), ("d_interval_95", 1)):
                row[name] = _interval(boot, lambda law, i=index, j=column: law.minima[..., i, j])
    doubted = doubts(data, fit)
    law = {
        "n": _line(boot, points, doubted, "a", fit.a, fit.n_coefficient, lambda law, c: law.n_opt(c)),
        "d": _line(boot, points, doubted, "b", fit.b, fit.d_coefficient, lambda law, c: law.d_opt(c)),
        "loss": _line(boot, points, doubted, "loss_exponent", fit.loss_exponent, fit.loss_coefficient,
                      lambda law, c: law.loss_opt(c)),
    }  # fmt: skip
    fits.append(_entry("isoFLOP minima", size, "least squares", ISOFLOP, fit, boot, doubted, fit.n))
    return {"budgets": _doubted(rows), "law": law, "why_not": None}


def _doubted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the budgets, with the doubts about those minima that are accepted."""
    accepted = [row for row in rows if row["n_opt"] is not None]
    for row in accepted:
        row["doubt"] = of_minimum(row["sizes"], row["interval_95"], len(accepted))
    return rows


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
        "interval_95": None, "d_interval_95": None, "sizes": len(np.unique(n)), "doubt": None,
    }  # fmt: skip


def _alone(points: Points, row: dict[str, Any], size: str) -> dict[str, Any]:
    """A budget's row with the minimum of its parabola, without intervals, where no law could be fitted."""
    here = points.budget == row["budget_flops"]
    x = np.log((points.n if size == "n_flop" else points.n_total)[here])
    if row["edge"] is not None:
        return row
    if row["sizes"] < AT_LEAST:
        return {**row, "edge": f"fewer than {AT_LEAST} sizes"}
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
            doubted = doubts(data, fit)
            fits.append(
                _entry("additive", size, loss, ADDITIVE, fit, boot, doubted, fit.searched.n, points.loss)
            )
    if primary is None:
        return result, None, None
    fit, boot = primary
    doubted = doubts(points.for_fit(), fit)
    result["primary"] = {
        "parameters": {
            name: float(settled(name, getattr(fit, name), points.loss))
            for name in ("E", "A", "alpha", "B", "beta")
        },
        "allocation": {
            "n": _line(boot, points, doubted, "a", fit.a, fit.G * fit.k**-fit.a, lambda law, c: law.n_opt(c)),
            "d": _line(boot, points, doubted, "b", fit.b, fit.k**-fit.b / fit.G, lambda law, c: law.d_opt(c)),
        },
        "absent": list(fit.searched.absent),
    }
    if boot is not None:
        result["bootstrap"] = {
            "draws": boot.draws,
            "converged": boot.draws - boot.failed,
            "method": boot.method,
        }
    result["loss"] = frontier_curve(points, fit, boot) if doubted.has("loss_opt") else None
    result["profiles"] = profile_all(points, fit)
    return result, fit, boot


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
    boot: Bootstrap | None, points: Points, doubted: Doubts, name: str, exponent: float, coefficient: float,
    at: Callable[[Any, Any], Any],
) -> dict[str, Any]:  # fmt: skip
    """A power law in compute: exponent, coefficient, sd, intervals, its 95 % band over and beyond the budgets, doubts.

    The law's exponent is called ``name``; where it is not identified, all is None but the doubt, which says why.
    """
    keys = ("exponent", "coefficient", "sd", "band", "interval_80", "interval_95")
    line: dict[str, Any] = {**dict.fromkeys(keys), "doubt": doubted.about(name)}
    if not doubted.has(name):
        return line
    line |= {"exponent": float(exponent), "coefficient": float(coefficient)}
    of = attrgetter(name)
    line |= {f"interval_{round(100 * level)}": _interval(boot, of, level) for level in (0.80, 0.95)}
    if boot is not None and line["interval_95"] is not None:
        grid = np.geomspace(points.budgets[0] / 1.6, points.budgets[-1] * 1.6, BAND_POINTS)
        line["sd"] = boot.sd(of)
        low, high = boot.band(at, grid)
        line["band"] = {"c": grid.tolist(), "low": low.tolist(), "high": high.tolist()}
    line["doubt"] = "; ".join(filter(None, (line["doubt"], of_interval(name, line["interval_95"])))) or None
    return line


def _entry(
    law: str,
    size: str,
    loss: str,
    names: dict[str, str],
    fit: Any,
    boot: Bootstrap | None,
    doubted: Doubts,
    n: int,
    losses: np.ndarray | None = None,
) -> dict[str, Any]:
    """A law for the tables: parameters (by what tables call them), intervals, doubts, objective, convergence."""
    searched = getattr(fit, "searched", None)
    of = {shown: _parameter(name, losses) for name, shown in names.items() if doubted.has(name)}
    return {
        "law": law,
        "size": size,
        "loss": loss,
        "parameters": {shown: float(of[shown](fit)) if shown in of else None for shown in names.values()},
        "intervals": {
            name: {"80": _interval(boot, value, 0.80), "95": _interval(boot, value, 0.95)}
            for name, value in of.items()
        },
        "doubts": {shown: doubted.about(name) for name, shown in names.items()},
        "objective": searched.objective if searched else None,
        "n": n,
        "starts": searched.starts if searched else None,
        "converged": searched.converged if searched else None,
        "draws": boot.draws if boot else None,
        "draws_converged": boot.draws - boot.failed if boot else None,
        "method": boot.method if boot else None,
    }


def _parameter(name: str, losses: np.ndarray | None) -> Callable[[Any], Any]:
    if losses is None:
        return attrgetter(name)
    return lambda law: settled(name, getattr(law, name), losses)
