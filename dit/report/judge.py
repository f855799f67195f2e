"""What judges a fit: profiles, the largest budget held out, and the same exponent under other choices."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from dit.errors import InputError
from dit.fits.choose import fit_law
from dit.fits.envelope import fit_envelope
from dit.fits.fitted import HELD, Fitted
from dit.fits.held import summary
from dit.fits.holdout import holdout
from dit.fits.profile import profiles
from dit.fits.sensitivity import Variant, sensitivity
from dit.report.material import LAWS
from dit.study.readings import Points, collect
from dit.study.records import Study

PROFILED = ("E", "alpha", "beta", "a", "R_D", "R_N")
BOOTSTRAPPED = {  # (law, size, loss) of fits that were bootstrapped -> how the sensitivity figure calls them
    ("additive", "n_flop", "mse"): "least squares of L",
    ("additive", "n_total", "huber"): "N counts all parameters",
    ("isoFLOP minima", "n_flop", "least squares"): "isoFLOP minima",
    ("isoFLOP minima", "n_total", "least squares"): "isoFLOP minima, N counts all parameters",
}
LOSSES = {"mse_log": "least squares of ln L", "lad": "least absolute deviations of ln L"}


def profile_all(law: Fitted) -> dict[str, Any]:
    """The profile of each parameter of a law of N and D, for the figure."""
    axes = law.fit.problem(law.points).axes(law.fit)
    return {
        name: {
            "estimate": one.estimate,
            "value": one.values,
            "deviance": one.deviance,
            "threshold": one.bars[0.95],
            "interval_95": one.intervals[0.95],
            "identified": one.identified,
        }
        for name, one in profiles(law.points, law.fit, [name for name in PROFILED if name in axes]).items()
    }


def hold_out(points: Points, draws: int, law: str = "additive") -> dict[str, Any]:
    """The largest budget predicted by the law of the smaller ones: ``holdout``, or None and why not."""
    try:
        held = holdout(points.for_fit(), law, draws=min(draws, HELD))
    except InputError as why:
        return {"holdout": None, "holdout_why_not": str(why)}
    where = np.flatnonzero(points.budget == points.budgets[-1])
    intervals = [None] * held.n
    if held.low is not None and held.high is not None:
        intervals = [[float(low), float(high)] for low, high in zip(held.low, held.high)]
    rows = [
        {"run": points.run[i], "n": float(points.n[i]), "d": float(points.images[i]), "measured": float(y),
         "predicted": float(f), "interval_95": interval}
        for i, y, f, interval in zip(where, held.measured, held.predicted, intervals)
    ]  # fmt: skip
    best = rows[int(np.argmin(held.measured))]
    found = {"budget_flops": held.budget, **summary(held), "rows": rows, "best": best}
    return {"holdout": found, "holdout_why_not": None}


def vary(study: Study, points: Points, primary: Fitted, fits: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The exponent of N*(C) with one choice changed at a time; the first row is the primary fit.

    Args:
        study: the records, for the other weights.
        points: the points of the primary fit.
        primary: the primary fit.
        fits: the laws fitted already (see ``analysis``), whose intervals are taken over.
    """
    told = primary.estimate("a")
    first = f"{LAWS[primary.law]}, Huber, N per token, {points.weights_name} weights"
    rows = [
        {
            "what": first,
            "a": told["value"],
            "doubt": primary.doubts.about("a"),
            "interval_95": told.get("interval_95"),
            "sd": told.get("sd"),
        }
    ]
    for entry in fits:
        what = _bootstrapped(primary.law, entry)
        if what is not None:
            key = "exponent of N*" if entry["law"] == "isoFLOP minima" else "a"
            interval = entry["intervals"].get(key, {}).get("95")
            rows.append({"what": what, "a": entry["parameters"][key], "interval_95": interval})
    for variant in sensitivity(primary.points, primary.fit, primary.law):
        what = _name(variant)
        if what is not None and all(row["what"] != what for row in rows):
            rows.append({"what": what, "a": variant.exponent, "interval_95": None})
    for what, refit in _refits(study, points, primary.law).items():
        try:
            a = float(refit().a)
        except InputError:
            a = None
        rows.append({"what": what, "a": a, "interval_95": None})
    return rows


def _name(variant: Variant) -> str | None:
    """How the figure calls a variant; None for the one that was bootstrapped and stands there already."""
    if variant.choice == "loss":
        return LOSSES.get(variant.value)
    if variant.choice == "delta":
        return f"Huber, delta {variant.value}"
    if variant.choice == "budgets":
        return f"only {variant.value}"
    return variant.value


def _bootstrapped(law: str, entry: dict[str, Any]) -> str | None:
    """How the figure calls a fit of ``fits``, where it differs from the primary law's by one choice."""
    if entry["law"] == "additive" != law:
        return "additive law" if (entry["size"], entry["loss"]) == ("n_flop", "huber") else None
    name = "additive" if entry["law"] == law else entry["law"]
    return BOOTSTRAPPED.get((name, entry["size"], entry["loss"]))


def _refits(study: Study, points: Points, law: str) -> dict[str, Callable[[], Any]]:
    """Refits that need more than the points of the primary fit."""
    refits: dict[str, Callable[[], Any]] = {
        "without the smallest size": lambda: fit_law(points.for_fit(keep=points.n > points.n.min()), law),
        "without the largest size": lambda: fit_law(points.for_fit(keep=points.n < points.n.max()), law),
        "lower envelope of the budgets": lambda: fit_envelope(replace(points.for_fit(), c=points.budget)),
    }
    other = "raw" if points.weights == "ema" else "ema"
    if any(row["weights"] == other for row in study.validation):
        name = "raw weights" if other == "raw" else "EMA weights"
        refits[name] = lambda: fit_law(collect(study, other).for_fit(), law)
    return refits
