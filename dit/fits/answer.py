"""Everything that ``dit fit`` says about a set of points, as one dictionary of plain values."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from operator import attrgetter, methodcaller
from typing import Any

import numpy as np

from dit.errors import InputError, check_number
from dit.files import plain
from dit.fits.approaches import disagreement
from dit.fits.choice import LAWS as CHOSEN
from dit.fits.choice import choice_of_law
from dit.fits.compare import compare
from dit.fits.doubts import of_parabola
from dit.fits.fitted import Fitted
from dit.fits.held import Holdout, summary
from dit.fits.holdout import holdout_by_budget, holdout_by_size, holdout_minimum
from dit.fits.kernels.fit import KERNELS
from dit.fits.lack import lack_of_law
from dit.fits.points import Points
from dit.fits.profile import Profile, profiles
from dit.fits.remarks import lack_in_words, remarks
from dit.fits.sensitivity import exponent, sensitivity

PARAMETERS = {
    "additive": ("E", "A", "alpha", "B", "beta", "a", "b", "G"),
    "isoflop": ("n_coefficient", "a", "d_coefficient", "b", "loss_coefficient", "loss_exponent"),
    "envelope": ("n_coefficient", "a", "d_coefficient", "b", "loss_coefficient", "loss_exponent"),
    "power": ("coefficient", "exponent"),
    "power_floor": ("coefficient", "exponent", "floor"),
    "data_limited": ("E", "A", "alpha", "B", "beta", "R_D", "R_N", "a", "b"),
}
SURFACES = (
    "additive",
    "data_limited",
    "power",
    "power_floor",
    *KERNELS,
)  # laws that predict the loss of any point
RIVALS = (
    ("power", "power_floor", "broken_power"),
    ("additive", "kaplan", "data_limited"),
    ("farseer", "additive", "kaplan"),
    ("width_depth", "width_depth_size", "additive"),
)


def answer(
    found: Fitted,
    at_flops: Iterable[float] = (),
    others: Mapping[str, Mapping[str, Points]] | None = None,
    told: Iterable[str] = (),
    cut: str | None = None,
) -> dict[str, Any]:
    """A law's parameters with intervals, its allocation, and all that tells how far to trust them.

    Args:
        found: the law.
        at_flops: budgets to allocate; the largest budget and 10 and 100 times that if empty.
        others: other selections of the points for the sensitivity table, by choice and name.
        told: what is known already about where the points are from; warnings begin with it.
        cut: which readings are held out, see cuts.py; the largest budget if None.

    Raises:
        InputError: a cut that cannot be held out.

    Returns:
        Plain values: numbers, strings, lists, dictionaries; None where a number does not exist.
    """
    law, at_flops = found.law, list(at_flops)
    result = {
        "law": law,
        "points": _points(found.points),
        "fit": _search(found.fit),
        "parameters": {name: found.estimate(name) for name in _parameters(found)},
        "bootstrap": _bootstrap(found),
        "allocation": _allocation(found, at_flops),
    }
    if hasattr(found.fit, "turning_flops"):
        turning = found.estimate("turning_flops", attrgetter("turning_flops"))
        result |= {"unique": found.fit.unique, "turning_flops": turning}
    result |= _of_surface(found, cut) if law in SURFACES else {}
    result |= _of_stack(found) if law == "stacked" else {}
    if law == "isoflop":
        result["window"] = found.fit.window if np.isfinite(found.fit.window) else None
        result["valleys"] = [_valley(found, i) for i in range(len(found.fit.valleys))]
        result["holdout"] = _possible(lambda: asdict(holdout_minimum(found.points, found.fit.window)))
    if law == "envelope":
        result["frontier"] = found.fit.frontier
    result["sensitivity"] = _sensitivity(found, others)
    said = remarks(found.points, found.fit, found.boot, found.loss, found.delta)
    result["warnings"] = [*told, *said, *disagreement(found)]
    if law in CHOSEN:
        result["choice"] = choice_of_law(
            found, at_flops[-1] if at_flops else 10 * float(found.points.budget_flops[-1])
        )
        result["warnings"] += [result["choice"]["said"]] if result["choice"] else []
    return plain(result)


def _of_surface(found: Fitted, cut: str | None) -> dict[str, Any]:
    """What judges a law that predicts the loss of any point: profiles, hold-out, rivals, residuals."""
    points, law, loss, delta = found.points, found.law, found.loss, found.delta
    rivals = next(names for names in RIVALS if law in names)
    one_budget = points.c is None or len(points.budget_flops) < 2
    return {
        "profiles": {name: _profile(one) for name, one in profiles(points, found.fit).items()},
        "holdout": _of_cut(found, cut) if cut or not one_budget else None,
        "holdout_by_budget": None
        if one_budget
        else [_held(one) for one in holdout_by_budget(points, law, loss, delta, found.fixed)],
        "holdout_by_size": None
        if one_budget or points.n is None
        else [_held(one) for one in holdout_by_size(points, found.fit)],
        "lack_of_fit": (lack := lack_of_law(points, found.fit)) and asdict(lack),
        "lack_of_fit_in_words": lack_in_words(lack),
        "models": [asdict(one) for one in compare(points, rivals, loss, delta, found.fixed)],
        "residuals": _residuals(points, found.fit),
    }


def _parameters(found: Fitted) -> tuple[str, ...]:
    if found.law in PARAMETERS:
        return PARAMETERS[found.law]
    if found.law == "stacked":
        return "a", "b"
    kernel = found.fit.kernel
    return (*kernel.parameters, *(("a", "b") if kernel.allocates else ()))


def _of_cut(found: Fitted, cut: str | None) -> dict[str, Any]:
    """What was held out; a cut that was asked for is refused where it is none."""
    return _possible(lambda: _held(found.held_out())) if cut is None else _held(found.held_out(cut))


def _of_stack(found: Fitted) -> dict[str, Any]:
    """What judges laws that are weighted: their weights, each by itself, and the residuals of their mean."""
    fit, points = found.fit, found.points
    return {
        "weights": dict(zip(fit.names, fit.weights)),
        "models": [asdict(one) for one in compare(points, fit.names, found.loss, found.delta)],
        "residuals": _residuals(points, fit),
    }


def _possible(made: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A value, or why it cannot be made."""
    try:
        return made()
    except InputError as error:
        return {"impossible": str(error)}


def _points(points: Points) -> dict[str, Any]:
    found: dict[str, Any] = {"n": len(points), "runs": int(points.runs.max()) + 1}
    if points.c is not None:
        found |= {"budget_kind": points.budget_kind, "budgets_flops": points.budget_flops}
        if points.n is not None and points.d is not None:
            found |= {"flops_per_nd": points.k, "flops_per_nd_spread": points.k_spread}
    return found


def _search(fit: Any) -> dict[str, Any]:
    searched = getattr(fit, "searched", None)
    if hasattr(fit, "names"):
        return {"loss": "laws weighted by held-out error"}
    found = {"loss": "least squares", "n": getattr(fit, "n", None)} if searched is None else asdict(searched)
    return found | {name: getattr(fit, name) for name in ("stderr", "correlation") if hasattr(fit, name)}


def _bootstrap(found: Fitted) -> dict[str, Any] | None:
    boot, noise = found.boot, None
    if boot is None:
        return None
    if boot.noise is not None:
        sds = {"sd_of_runs": boot.noise.run**0.5, "sd_of_readings": boot.noise.reading**0.5}
        sds["sd_of_walk_per_root_efold"] = boot.noise.walk**0.5
        noise = {**sds, "degrees_of_freedom": boot.noise.freedom}
    return {
        "draws": boot.draws, "converged": boot.converged, "failed": boot.failed, "improved": boot.improved,
        "resampled": boot.by, "method": boot.method, "seed": found.seed, "noise": noise,
    }  # fmt: skip


def _allocation(found: Fitted, at_flops: list[float]) -> list[dict[str, Any]] | None:
    """N*, D* and L* at each budget, and what it costs to be off N* by a factor of 2."""
    fit = found.fit
    if not hasattr(fit, "n_opt"):
        return None
    for flops in at_flops:
        check_number("at_flops", flops, above=0.0)
    top = float(found.points.budget_flops[-1])
    rows = []
    for flops in at_flops or [top, 10 * top, 100 * top]:
        row: dict[str, Any] = {"flops": flops}
        for name in ("n_opt", "d_opt", "loss_opt"):
            row[name] = found.estimate(name, methodcaller(name, flops))
        if hasattr(fit, "predict") and found.doubts.has("n_opt"):
            best, n, d = fit.loss_opt(flops), fit.n_opt(flops), fit.d_opt(flops)
            row["loss_ratio_at_twice_n"] = _ratio(fit.predict(2 * n, d / 2), best)
            row["loss_ratio_at_half_n"] = _ratio(fit.predict(n / 2, 2 * d), best)
        rows.append(row)
    return rows


def _ratio(value: float, best: float) -> float | None:
    """None where the law has no optimum."""
    return float(value / best) if np.isfinite(value) and np.isfinite(best) else None


def _profile(found: Profile) -> dict[str, Any]:
    shown = {f"interval_{round(100 * level)}": list(ends) for level, ends in found.intervals.items()}
    low, high = found.intervals[0.95]
    sides = [side for side, end in (("below", low), ("above", high)) if end is None]
    verdict = f"not identified {' and '.join(sides)}" if sides else "identified"
    return {"estimate": found.estimate, **shown, "verdict": verdict, "bars": found.bars,
            "values": found.values, "deviance": found.deviance}  # fmt: skip


def _held(one: Holdout) -> dict[str, Any]:
    found = summary(one)
    if one.low is None:
        return found
    return found | {name: getattr(one, name) for name in ("predicted", "measured", "low", "high")}


def _valley(found: Fitted, i: int) -> dict[str, Any]:
    """A budget's parabola, with the interval of its minimum."""
    valley = found.fit.valleys[i]
    row = {**asdict(valley), "doubt": of_parabola(valley.sizes)}
    if found.boot is not None and not valley.rejected:
        for j, name in enumerate(("n_opt", "d_opt", "loss_opt")):
            row[f"{name}_interval_95"] = found.interval(lambda law, j=j: law.minima[..., i, j])
    return row


def _residuals(points: Points, fit: Any) -> list[dict[str, Any]]:
    columns = {name: getattr(points, name) for name in ("run", "n", "d", "c", "loss")}
    columns = {name: value for name, value in columns.items() if value is not None}
    predicted = fit.predict_points(points)
    columns |= {"predicted": predicted, "residual": np.log(points.loss / predicted)}
    return [{name: value[i] for name, value in columns.items()} for i in range(len(points))]


def _sensitivity(found: Fitted, others: Mapping[str, Mapping[str, Points]] | None) -> dict[str, Any]:
    law, boot = found.law, found.drawn()
    variants = sensitivity(found.points, found.fit, law, found.loss, found.delta, others)
    shifts = [abs(one.shift) for one in variants if np.isfinite(one.shift)]
    return {
        "exponent": exponent(found.fit, law),
        "sd": boot and boot.sd(lambda x: exponent(x, law)),
        "largest_shift": max(shifts, default=None),
        "leverage": [
            {
                "by": one.by,
                "groups": len(one.groups),
                "sd": one.sd,
                "without": one.most[0],
                "value": one.most[1],
            }
            for one in found.leverages
        ],
        "variants": [asdict(one) for one in variants],
    }
