"""Everything that ``dit fit`` says about a set of points, as one dictionary of plain values."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from dit.errors import InputError, check_number
from dit.files import plain
from dit.fits.bootstrap import LEVELS, Bootstrap, bootstrap
from dit.fits.choose import fit_law
from dit.fits.compare import compare
from dit.fits.doubts import Doubts, doubts, of_interval, of_parabola
from dit.fits.holdout import Holdout, holdout, holdout_by_budget, holdout_minimum
from dit.fits.laws import settled
from dit.fits.points import Points
from dit.fits.profile import Profile, profiles
from dit.fits.remarks import remarks
from dit.fits.sensitivity import exponent, sensitivity

PARAMETERS = {
    "additive": ("E", "A", "alpha", "B", "beta", "a", "b", "G"),
    "isoflop": ("n_coefficient", "a", "d_coefficient", "b", "loss_coefficient", "loss_exponent"),
    "envelope": ("n_coefficient", "a", "d_coefficient", "b", "loss_coefficient", "loss_exponent"),
    "power": ("coefficient", "exponent"),
    "power_floor": ("coefficient", "exponent", "floor"),
    "data_limited": ("E", "A", "alpha", "B", "beta", "R_D", "R_N"),
}
SURFACES = ("additive", "data_limited", "power", "power_floor")  # laws that predict the loss of any point
RIVALS = {"power": ("power", "power_floor"), "additive": ("additive", "data_limited")}
HELD = 400  # draws behind the intervals of the held-out budget
ENOUGH = 20  # draws below which nothing is said about an interval


def fit_points(
    points: Points,
    law: str = "additive",
    loss: str = "huber",
    delta: float = 1e-3,
    draws: int = 1000,
    seed: int = 0,
    by: str = "auto",
    method: str = "auto",
    at_flops: Iterable[float] = (),
    others: Mapping[str, Mapping[str, Points]] | None = None,
    told: Iterable[str] = (),
) -> dict[str, Any]:
    """A law's parameters with intervals, its allocation, and all that tells how far to trust them.

    Args:
        points: what was measured.
        law: additive, isoflop, envelope, power, power_floor or data_limited.
        loss: huber, lad, mse_log or mse (isoflop and envelope are least squares).
        delta: Huber's delta, in log loss.
        draws: bootstrap draws; 0 for none.
        seed: of the draws.
        by: what is resampled together: run, point or auto.
        method: pairs, parametric, seeds or auto (see bootstrap.py).
        at_flops: budgets to allocate; the largest budget and 10 and 100 times that if empty.
        others: other selections of the points for the sensitivity table, by choice and name.
        told: what is known already about where the points are from; warnings begin with it.

    Returns:
        Plain values: numbers, strings, lists, dictionaries; None where a number does not exist.

    Raises:
        InputError: an unknown choice, or points that cannot carry the law.
    """
    check_number("bootstrap", draws, low=0, integer=True)
    points = points.completed()
    if len(points) > 1 and np.ptp(points.loss) == 0:
        raise InputError("columns.loss", f"({points.loss[0]:g} in every row)", "losses that differ")
    fit = fit_law(points, law, loss, delta)
    boot = bootstrap(points, fit, draws, seed, by, method) if draws else None
    doubted = doubts(points, fit)
    result = {
        "law": law,
        "points": _points(points),
        "fit": _search(fit),
        "parameters": {
            name: _estimate(fit, boot, doubted, name, partial(_parameter, name=name, losses=points.loss))
            for name in PARAMETERS[law]
        },
        "bootstrap": _bootstrap(boot, seed),
        "allocation": _allocation(points, fit, boot, doubted, list(at_flops)),
    }
    if law in SURFACES:
        result["profiles"] = {name: _profile(one) for name, one in profiles(points, fit).items()}
        result["holdout"], result["holdout_by_budget"] = _holdouts(points, law, loss, delta, draws, seed)
        rivals = next((names for names in RIVALS.values() if law in names), (law,))
        result["models"] = [asdict(one) for one in compare(points, rivals, loss, delta)]
        result["residuals"] = _residuals(points, fit)
    if law == "isoflop":
        result["valleys"] = [_valley(fit, boot, i) for i in range(len(fit.valleys))]
        result["holdout"] = _held_minimum(points)
    if law == "envelope":
        result["frontier"] = fit.frontier.tolist()
    result["sensitivity"] = _sensitivity(points, fit, boot, law, loss, delta, others)
    result["warnings"] = [*told, *remarks(points, fit, boot, loss, delta)]
    return plain(result)


def _points(points: Points) -> dict[str, Any]:
    found: dict[str, Any] = {"n": len(points), "runs": int(points.runs.max()) + 1}
    if points.c is not None:
        found |= {"budget_kind": points.budget_kind, "budgets_flops": points.budget_flops}
        if points.n is not None and points.d is not None:
            found |= {"flops_per_nd": points.k, "flops_per_nd_spread": points.k_spread}
    return found


def _search(fit: Any) -> dict[str, Any]:
    searched = getattr(fit, "searched", None)
    found = {"loss": "least squares", "n": getattr(fit, "n", None)} if searched is None else asdict(searched)
    return found | {name: getattr(fit, name) for name in ("stderr", "correlation") if hasattr(fit, name)}


def _estimate(
    fit: Any, boot: Bootstrap | None, doubted: Doubts, name: str, of: Callable[[Any], Any]
) -> dict[str, Any]:
    """Value, standard deviation, intervals, plain percentiles and doubts of a function of the law."""
    found: dict[str, Any] = {
        "value": float(of(fit)) if doubted.has(name) else None,
        "doubt": doubted.about(name),
    }
    if found["value"] is None or boot is None or len(boot.values(of)) < ENOUGH:
        return found
    found["sd"] = boot.sd(of)
    found |= {f"interval_{level:.0%}".rstrip("%"): boot.interval(of, level) for level in LEVELS}
    wide = of_interval(name, found["interval_95"])
    found["doubt"] = "; ".join(filter(None, (found["doubt"], wide))) or None
    return found | {f"percentiles_{level:.0%}".rstrip("%"): boot.percentiles(of, level) for level in LEVELS}


def _parameter(law: Any, name: str, losses: np.ndarray) -> Any:
    return settled(name, getattr(law, name), losses)


def _bootstrap(boot: Bootstrap | None, seed: int) -> dict[str, Any] | None:
    if boot is None:
        return None
    noise = None
    if boot.noise is not None:
        sds = {"sd_of_runs": boot.noise.run**0.5, "sd_of_readings": boot.noise.reading**0.5}
        noise = {**sds, "degrees_of_freedom": boot.noise.freedom}
    return {
        "draws": boot.draws, "converged": boot.draws - boot.failed, "failed": boot.failed,
        "improved": boot.improved, "resampled": boot.by, "method": boot.method, "seed": seed, "noise": noise,
    }  # fmt: skip


def _allocation(
    points: Points, fit: Any, boot: Bootstrap | None, doubted: Doubts, at_flops: list[float]
) -> list[dict[str, Any]] | None:
    """N*, D* and L* at each budget, and what it costs to be off N* by a factor of 2."""
    if not hasattr(fit, "n_opt"):
        return None
    for flops in at_flops:
        check_number("at_flops", flops, above=0.0)
    top = float(points.budget_flops[-1])
    rows = []
    for flops in at_flops or [top, 10 * top, 100 * top]:
        row: dict[str, Any] = {"flops": flops}
        for name in ("n_opt", "d_opt", "loss_opt"):
            of = partial(_at, name=name, flops=flops)
            row[name] = _estimate(fit, boot, doubted, name, of)
        if hasattr(fit, "predict") and doubted.has("n_opt"):
            best, n, d = fit.loss_opt(flops), fit.n_opt(flops), fit.d_opt(flops)
            row["loss_ratio_at_twice_n"] = _ratio(fit.predict(2 * n, d / 2), best)
            row["loss_ratio_at_half_n"] = _ratio(fit.predict(n / 2, 2 * d), best)
        rows.append(row)
    return rows


def _at(law: Any, name: str, flops: float) -> Any:
    return getattr(law, name)(flops)


def _ratio(value: float, best: float) -> float | None:
    """None where the law has no optimum."""
    return float(value / best) if np.isfinite(value) and np.isfinite(best) else None


def _profile(found: Profile) -> dict[str, Any]:
    shown = {f"interval_{level:.0%}".rstrip("%"): list(ends) for level, ends in found.intervals.items()}
    low, high = found.intervals[0.95]
    sides = [side for side, end in (("below", low), ("above", high)) if end is None]
    verdict = f"not identified {' and '.join(sides)}" if sides else "identified"
    return {"estimate": found.estimate, **shown, "verdict": verdict, "bars": found.bars,
            "values": found.values, "deviance": found.deviance}  # fmt: skip


def _holdouts(
    points: Points, law: str, loss: str, delta: float, draws: int, seed: int
) -> tuple[dict[str, Any] | None, list[dict[str, Any]] | None]:
    """The largest budget held out, with intervals where draws are made, and every budget in turn."""
    if points.c is None or len(points.budget_flops) < 2:
        return None, None
    each = [_held(one) for one in holdout_by_budget(points, law, loss, delta)]
    try:
        largest = _held(holdout(points, law, loss, delta, min(draws or HELD, HELD), seed))
    except InputError as error:
        largest = {"impossible": str(error)}
    return largest, each


def _held(one: Holdout) -> dict[str, Any]:
    found = {"budget": one.budget, "n": one.n, "bias": one.bias, "rms": one.rms, "covered": one.covered}
    if one.low is None:
        return found
    return found | {name: getattr(one, name) for name in ("predicted", "measured", "low", "high")}


def _valley(fit: Any, boot: Bootstrap | None, i: int) -> dict[str, Any]:
    """A budget's parabola, with the interval of its minimum."""
    found = {**asdict(fit.valleys[i]), "doubt": of_parabola(fit.valleys[i].sizes)}
    if boot is not None and not found["rejected"]:
        for j, name in enumerate(("n_opt", "d_opt", "loss_opt")):
            of = partial(_minimum, i=i, j=j)
            found[f"{name}_interval_95"] = boot.interval(of) if len(boot.values(of)) >= ENOUGH else None
    return found


def _minimum(law: Any, i: int, j: int) -> Any:
    return law.minima[..., i, j]


def _held_minimum(points: Points) -> dict[str, Any]:
    try:
        return asdict(holdout_minimum(points))
    except InputError as error:
        return {"impossible": str(error)}


def _residuals(points: Points, fit: Any) -> list[dict[str, Any]]:
    predicted = fit.predict_points(points)
    columns = {name: getattr(points, name) for name in ("run", "n", "d", "c", "loss")}
    columns = {name: value for name, value in columns.items() if value is not None}
    residual = np.log(points.loss / predicted)
    return [
        {
            **{name: value[i] for name, value in columns.items()},
            "predicted": predicted[i],
            "residual": residual[i],
        }
        for i in range(len(points))
    ]


def _sensitivity(
    points: Points, fit: Any, boot: Bootstrap | None, law: str, loss: str, delta: float, others: Any
) -> dict[str, Any]:
    rows = [asdict(variant) for variant in sensitivity(points, fit, law, loss, delta, others)]
    sd = None if boot is None or boot.draws - boot.failed < ENOUGH else boot.sd(lambda x: exponent(x, law))
    shifts = [abs(row["shift"]) for row in rows if np.isfinite(row["shift"])]
    return {
        "exponent": exponent(fit, law),
        "sd": sd,
        "largest_shift": max(shifts, default=None),
        "variants": rows,
    }
