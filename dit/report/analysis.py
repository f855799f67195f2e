"""All fits of a report, as plain values: what fits.json holds and figures and tables show.

Keys of the result:
isoflop: by size measure (``n_flop``, ``n_total``): ``budgets`` (minimum, intervals, verdict) and
    ``law`` (``n``, ``d``, ``loss``: exponent, coefficient, sd, intervals, band), null where there is none.
additive: the primary law of N and D, whose name is ``law`` (data_limited where data are seen more than 4 times):
    ``primary`` (N_flop, Huber), ``why_not``, ``bootstrap``, ``profiles``, ``loss`` (L* over compute); ``beside``,
    the allocation of the additive law where that is not primary.
frontier: laws of the least loss in compute.
holdout: the largest budget predicted.
sensitivity: exponents under other choices.
fits: one entry per law for the tables.
targets, bins, frechet, cooldowns: see derived.py; comparison: see compare.py.
"""

from itertools import product
from typing import Any

import numpy as np

from dit.errors import InputError
from dit.files import plain
from dit.fits.choose import primary_law
from dit.fits.doubts import of_minimum
from dit.fits.fitted import Fitted, fitted
from dit.fits.isoflop import AT_LEAST, window_of
from dit.report.derived import (
    BAND_POINTS,
    cooldowns,
    frechet,
    frontier,
    frontier_curve,
    noise_bins,
    targets,
)
from dit.report.judge import hold_out, profile_all, vary
from dit.report.material import Material
from dit.study.readings import Points, readings, why_none
from dit.study.records import Study
from dit.study.sampled import Samples, collect_samples

SIZES = {"n_flop": "multiply-adds per token", "n_total": "parameters"}
ISOFLOP = {"a": "exponent of N*", "n_coefficient": "coefficient of N*", "b": "exponent of D*",
           "d_coefficient": "coefficient of D*"}  # fmt: skip
TERMS = ("E", "A", "alpha", "B", "beta")
PARAMETERS = {
    "additive": {name: name for name in (*TERMS, "a", "b", "G")},
    "data_limited": {name: name for name in (*TERMS, "R_D", "R_N", "a", "b")},
}
BY = {"additive": ("huber", "mse"), "data_limited": ("huber",)}  # the losses that each law is fitted by


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
    additive, primary = _surface(points, draws, fits)
    n_train, largest = study.runs[0]["data"].get("n_train"), float(points.budgets[-1])
    found = {
        "weights": points.weights,
        "isoflop": isoflop,
        "additive": additive,
        "frontier": frontier(isoflop["n_flop"]),
        **hold_out(points, draws, additive["law"]),
        "sensitivity": vary(study, points, primary, fits) if primary else [],
        "fits": fits,
        "targets": targets(primary.fit, primary.drawn(), largest, n_train)
        if primary and additive["loss"]
        else [],
        "bins": noise_bins(points),
        "frechet": frechet(samples),
        "cooldowns": cooldowns(study, points, primary.fit) if primary else [],
    }
    return Material(study, points, samples, plain(found), primary)


def _without_points(points: Points, samples: list[Samples]) -> dict[str, Any]:
    """The same where no reading counts: nothing, and why."""
    why = f"no reading counts. {why_none(points)}".rstrip(".")
    law = {
        "law": "additive",
        "primary": None,
        "why_not": why,
        "bootstrap": None,
        "profiles": None,
        "loss": None,
    }
    isoflop = {size: {"budgets": [], "law": None, "why_not": why} for size in SIZES}
    return {
        "weights": points.weights, "isoflop": isoflop, "additive": law, "frontier": None, "holdout": None,
        "holdout_why_not": why, "sensitivity": [], "fits": [], "targets": [], "bins": None,
        "frechet": frechet(samples), "cooldowns": [],
    }  # fmt: skip


def _isoflop(points: Points, size: str, draws: int, fits: list[dict[str, Any]]) -> dict[str, Any]:
    """IsoFLOP minima and the lines through them; appends the lines to ``fits``."""
    rows = [_row(points, budget, size) for budget in points.budgets]
    try:
        found = fitted(points.for_fit(size), "isoflop", draws=draws)
    except InputError as why:  # no line through minima; a minimum of its own a budget may have
        alone = [_alone(points, row, size) for row in rows]
        return {"budgets": _doubted(alone), "law": None, "why_not": str(why)}
    fit = found.fit
    for index, (row, valley) in enumerate(zip(rows, fit.valleys)):
        row["edge"] = valley.rejected or None
        if np.isfinite(valley.coefficients).all():
            row["parabola"] = {"centre": valley.centre, "coefficients": valley.coefficients}
        if not valley.rejected:
            row |= {"n_opt": valley.n_opt, "d_opt": valley.d_opt, "loss": valley.loss_opt}
            for name, column in (("interval_95", 0), ("d_interval_95", 1)):
                row[name] = found.interval(lambda law, i=index, j=column: law.minima[..., i, j])
    law = {
        "n": _line(found, points, "a", fit.n_coefficient, "n_opt"),
        "d": _line(found, points, "b", fit.d_coefficient, "d_opt"),
        "loss": _line(found, points, "loss_exponent", fit.loss_coefficient, "loss_opt"),
    }
    fits.append(_entry("isoFLOP minima", size, "least squares", ISOFLOP, found))
    return {"budgets": _doubted(rows), "law": law, "why_not": None}


def _doubted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the budgets, with the doubts about those minima that count."""
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
    centre, y = float(x.mean()), points.loss[here]
    near = window_of(x, y[None], np.ones((1, len(x)), bool))[0]
    quadratic, linear, constant = (float(c) for c in np.polyfit(x[near] - centre, y[near], 2))
    lowest = -linear / (2 * quadratic)
    if quadratic <= 0 or not x.min() < centre + lowest < x.max():
        return {**row, "edge": "its parabola has no minimum inside the sizes trained"}
    return {
        **row,
        "parabola": {"centre": centre, "coefficients": [constant, linear, quadratic]},
        "n_opt": float(np.exp(centre + lowest)),
        "loss": constant + linear * lowest / 2,
    }


def _surface(points: Points, draws: int, fits: list[dict[str, Any]]) -> tuple[dict[str, Any], Fitted | None]:
    """The laws of N and D by several losses and both sizes, appended to ``fits``; the first is the primary one."""
    found: dict[str, Fitted] = {}
    why_not = None
    for law in dict.fromkeys((primary_law(points.for_fit()), "additive")):
        for size, loss in product(SIZES, BY[law]):
            try:
                one = fitted(points.for_fit(size), law, loss, draws=draws)
            except InputError as why:
                why_not = why_not or str(why)
                continue
            found.setdefault(law, one)
            fits.append(_entry(law, size, loss, PARAMETERS[law], one))
    primary = next(iter(found.values()), None)
    result = {
        "law": "additive",
        "primary": None,
        "why_not": why_not,
        "bootstrap": None,
        "profiles": None,
        "loss": None,
    }
    if primary is None:
        return result, None
    boot = primary.drawn()
    names = [name for name in PARAMETERS[primary.law] if name not in ("a", "b", "G")]
    result["law"] = primary.law
    result["primary"] = {
        "parameters": {name: float(primary.parameter(name)(primary.fit)) for name in names},
        "allocation": _allocation(primary, points),
        "absent": primary.fit.searched.absent,
    }
    if boot is not None:
        result["bootstrap"] = {"draws": boot.draws, "converged": boot.converged, "method": boot.method}
    result["loss"] = frontier_curve(points, primary) if primary.doubts.has("loss_opt") else None
    result["profiles"] = profile_all(primary)
    if primary.law != "additive":
        result["beside"] = _allocation(found["additive"], points) if "additive" in found else None
    return result, primary


def _allocation(law: Fitted, points: Points) -> dict[str, Any]:
    """N*(C) and D*(C) as power laws; that of repeated data has none, so these are its tangents at its compute."""
    fit = law.fit
    if law.law == "additive":
        lines = ("n", "a", fit.G * fit.k**-fit.a, "n_opt"), ("d", "b", fit.k**-fit.b / fit.G, "d_opt")
        return {x: _line(law, points, name, coefficient, at) for x, name, coefficient, at in lines}
    grid, found = np.geomspace(points.budgets[0] / 10, points.budgets[-1] * 10, BAND_POINTS), {}
    for x, name, at in (("n", "a", "n_opt"), ("d", "b", "d_opt")):
        of = getattr(fit, at)
        found[x] = _line(law, points, name, of(fit.flops) / fit.flops ** getattr(fit, name), at)
        found[x]["curve"] = {"c": grid, "value": of(grid)}
    return found


def _line(found: Fitted, points: Points, name: str, coefficient: float, at: str) -> dict[str, Any]:
    """A power law in compute: exponent, coefficient, sd, intervals, its 95 % band over and beyond the budgets, doubts.

    The law calls its exponent ``name``, and its value ``at``; where the exponent is not identified, all is None but the
    doubt, which says why.
    """
    told = found.estimate(name)
    line = {"exponent": told["value"], "coefficient": None, "sd": told.get("sd"), "band": None}
    line |= {key: told.get(key) for key in ("interval_80", "interval_95", "doubt")}
    if told["value"] is not None:
        line["coefficient"] = float(coefficient)
    if found.boot is not None and line["interval_95"] is not None:
        grid = np.geomspace(points.budgets[0] / 1.6, points.budgets[-1] * 1.6, BAND_POINTS)
        low, high = found.boot.band(lambda law, c: getattr(law, at)(c), grid)
        line["band"] = {"c": grid, "low": low, "high": high}
    return line


def _entry(law: str, size: str, loss: str, names: dict[str, str], found: Fitted) -> dict[str, Any]:
    """A law for the tables: parameters (by what tables call them), intervals, doubts, objective, convergence."""
    searched, boot, doubts = getattr(found.fit, "searched", None), found.drawn(), found.doubts
    told = {shown: found.estimate(name) for name, shown in names.items()}
    return {
        "law": law,
        "size": size,
        "loss": loss,
        "parameters": {shown: one["value"] for shown, one in told.items()},
        "intervals": {
            shown: {level: one.get(f"interval_{level}") for level in ("80", "95")}
            for shown, one in told.items()
            if one["value"] is not None
        },
        "doubts": {shown: doubts.about(name) for name, shown in names.items()},
        "objective": searched and searched.objective,
        "n": len(found.points),
        "starts": searched and searched.starts,
        "converged": searched and searched.converged,
        "draws": boot and boot.draws,
        "draws_converged": boot and boot.converged,
        "method": boot and boot.method,
    }
