"""Learning rate and batch as part of a law: the best ones of each cell, how they move with N and D, and what they cost.

A cell is a size and an amount of data; a sweep trains it at several rates, and perhaps batches. Legend: m rates.

    lr*(N, D) = c N^x D^y        B*(D) = c D^z

Source: Step law (2503.04715), which has these forms and fits them to the best settings of each cell; 2411.17470, which
finds that settings held fixed move N*.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from dit.errors import InputError
from dit.fits.fitted import Fitted, fitted
from dit.fits.points import Points

Array = np.ndarray
FEWEST = 3  # rates or batches of a parabola
BESIDE = 2  # rates on either side of the lowest loss that its parabola goes through: far above it the loss runs away
SAME = 1e-6  # of ln N, ln D or a rate: written with other digits


@dataclass(frozen=True)
class Sweep:
    """Runs of cells at several rates.

    Args:
        points: N, D, C and the loss of each run.
        rate: (n,) peak learning rate.
        batch: (n,) images per step; None where it is one for all.
    """

    points: Points
    rate: Array
    batch: Array | None = None


@dataclass(frozen=True)
class Best:
    """The best rate of a cell, at its best batch where that is told.

    Args:
        n, d, c: of the cell.
        rate: the minimum of the parabola in ln rate; NaN where it was rejected.
        loss: there.
        batch: the best one; NaN where it is not told.
        rejected: why there is no minimum; None where there is one.
    """

    n: float
    d: float
    c: float
    rate: float
    loss: float
    batch: float
    rejected: str | None = None


@dataclass(frozen=True)
class PowerLaw:
    """ln y = k + sum of exponents times ln x, by least squares over cells.

    Args:
        names: of the exponents.
        exponents: one per name.
        intervals: 95 % intervals of them (Student's, so that scatter about the law counts); None without a residual.
        log_coefficient: k.
        scatter: sd of ln y about the law; NaN without a residual.
    """

    names: tuple[str, ...]
    exponents: tuple[float, ...]
    intervals: tuple[tuple[float, float], ...] | None
    log_coefficient: float
    scatter: float

    def at(self, **values: float) -> float:
        """The value at its variables, by name."""
        logs = (e * math.log(values[name]) for name, e in zip(self.names, self.exponents, strict=True))
        return math.exp(self.log_coefficient + sum(logs))


@dataclass(frozen=True)
class Tuning:
    """What a sweep tells.

    Args:
        cells: the best settings of each cell.
        rate: lr*(N, D).
        batch: B*(D); None where fewer than two amounts of data tell a batch.
        tuned: the additive law of the cells' lowest losses; None where they carry none.
        untuned: the same at one rate (and batch) for all.
        fixed_rate: that rate: the best in the mean of those that every cell has; None where there is none.
    """

    cells: tuple[Best, ...]
    rate: PowerLaw
    batch: PowerLaw | None
    tuned: Fitted | None
    untuned: Fitted | None
    fixed_rate: float | None


def fit_tuning(sweep: Sweep, draws: int = 1000, seed: int = 0) -> Tuning:
    """The laws of the best rate and batch, and N* with and without them.

    Args:
        sweep: runs of each cell at three or more rates.
        draws: bootstrap draws of the additive laws.
        seed: of the draws.

    Raises:
        InputError: too few cells with a minimum, or cells whose N and D do not vary independently.
    """
    groups, cells = _cells(sweep), best_settings(sweep)
    found = [one for one in cells if one.rejected is None]
    if len(found) < FEWEST:
        why = next((one.rejected for one in cells if one.rejected), "too few cells")
        allowed = f"{FEWEST} or more cells with a minimum inside their rates"
        raise InputError("columns.lr", f"({len(found)} of {len(cells)} cells have a minimum; {why})", allowed)
    log_n, log_d, log_rate = (np.log([getattr(one, name) for one in found]) for name in ("n", "d", "rate"))
    rate = power_law({"N": log_n, "D": log_d}, log_rate)
    told = [one for one in found if math.isfinite(one.batch)]
    has_batch = len({round(math.log(one.d) / SAME) for one in told}) > 1
    batch = None
    if has_batch:
        batch = power_law({"D": np.log([one.d for one in told])}, np.log([one.batch for one in told]))
    losses = np.array([one.loss for one in found])
    fixed_rate, untuned = _at_one_rate(
        sweep, [group for group, one in zip(groups, cells) if one.rejected is None]
    )
    laws = [None if y is None else _law(found, y, draws, seed) for y in (losses, untuned)]
    return Tuning(cells, rate, batch, laws[0], laws[1], fixed_rate)


def best_settings(sweep: Sweep) -> tuple[Best, ...]:
    """The best rate, and batch, of each cell, in the order of N and D."""
    return tuple(_best(sweep, group) for group in _cells(sweep))


def power_law(x: dict[str, Array], y: Array) -> PowerLaw:
    """A power law by least squares.

    Args:
        x: ln of each variable, (n,).
        y: (n,) ln of what it gives.

    Raises:
        InputError: variables that do not vary independently.
    """
    means = {name: column.mean() for name, column in x.items()}
    design = np.stack([np.ones_like(y), *(column - means[name] for name, column in x.items())], axis=1)
    values = np.linalg.svd(design, compute_uv=False)
    if values[-1] < 1e-3 * values[0] or len(y) < design.shape[1]:
        got = f"({len(y)} cells in which {' and '.join(x)} do not vary independently)"
        raise InputError(
            "data", got, "cells at two or more sizes, and two or more amounts of data at one of them"
        )
    theta = np.linalg.lstsq(design, y, rcond=None)[0]
    free, residual = len(y) - len(theta), y - design @ theta
    scatter = math.sqrt(residual @ residual / free) if free else math.nan
    intervals = None
    if free:
        half = stdtrit(free, 0.975) * scatter * np.sqrt(np.diag(np.linalg.inv(design.T @ design)))[1:]
        intervals = tuple((float(e - h), float(e + h)) for e, h in zip(theta[1:], half))
    k = float(theta[0] - sum(e * means[name] for e, name in zip(theta[1:], x)))
    return PowerLaw(tuple(x), tuple(map(float, theta[1:])), intervals, k, scatter)


def _cells(sweep: Sweep) -> list[Array]:
    """The runs of each cell, as positions."""
    logs = np.stack([np.log(sweep.points.get(name)) for name in ("n", "d")], axis=1)
    index = np.unique(np.round(logs / SAME), axis=0, return_inverse=True)[1].ravel()
    return [np.flatnonzero(index == i) for i in range(index.max() + 1)]


def _best(sweep: Sweep, group: Array) -> Best:
    """The best rate of a cell; where it has three batches or more, at the best of them."""
    points = sweep.points
    n, d, c = (float(points.get(name)[group].mean()) for name in ("n", "d", "c"))
    batches = np.zeros(len(group)) if sweep.batch is None else np.log(sweep.batch[group])
    minima, why = [], None
    for batch in np.unique(batches):
        part = group[batches == batch]
        found = _minimum(np.log(sweep.rate[part]), points.loss[part])
        if isinstance(found, str):
            why = found
        else:
            minima.append((batch, *found))
    if not minima:
        return Best(n, d, c, math.nan, math.nan, math.nan, why)
    log_batch, log_rate, loss = (np.array(column) for column in zip(*minima, strict=True))
    lowest = int(np.argmin(loss))
    best = _minimum(log_batch, loss)
    if isinstance(best, str):
        return Best(n, d, c, math.exp(log_rate[lowest]), float(loss[lowest]), math.nan)
    slope = np.polyfit(log_batch - best[0], log_rate, 1)
    return Best(n, d, c, math.exp(slope[1]), best[1], math.exp(best[0]))


def _minimum(x: Array, loss: Array) -> tuple[float, float] | str:
    """Where the parabola through the lowest losses has its minimum, and the loss there; or why it has none."""
    order = np.argsort(x)
    x, loss = x[order], loss[order]
    values = np.unique(np.round(x / SAME))
    if len(values) < FEWEST:
        return f"{len(values)} values, where {FEWEST} make a parabola"
    best = int(np.argmin(loss))
    if x[best] - x[0] < SAME or x[-1] - x[best] < SAME:
        return "its lowest loss is at an end"
    near = np.abs(
        np.searchsorted(values, np.round(x / SAME)) - np.searchsorted(values, np.round(x[best] / SAME))
    )
    kept = near <= BESIDE
    curve, slope, level = np.polyfit(x[kept] - x[best], np.log(loss[kept]), 2)
    at = -slope / (2 * curve) if curve > 0 else math.inf
    if not x[kept][0] <= x[best] + at <= x[kept][-1]:
        return "its parabola has no minimum inside"
    return float(x[best] + at), float(np.exp(level - slope**2 / (4 * curve)))


def _at_one_rate(sweep: Sweep, groups: Sequence[Array]) -> tuple[float | None, Array | None]:
    """The best of the settings that every cell has, by the mean of ln loss; its rate, and the cells' losses there."""
    batch = np.ones_like(sweep.rate) if sweep.batch is None else sweep.batch
    keys = np.round(np.log(np.stack([sweep.rate, batch], axis=1)) / SAME)
    by_cell = [{tuple(keys[i]): i for i in group} for group in groups]
    common = set.intersection(*(set(cell) for cell in by_cell))
    if not common:
        return None, None
    losses = {key: np.array([sweep.points.loss[cell[key]] for cell in by_cell]) for key in common}
    best = min(losses, key=lambda key: (float(np.log(losses[key]).mean()), key))
    return float(sweep.rate[by_cell[0][best]]), losses[best]


def _law(cells: Sequence[Best], losses: Array, draws: int, seed: int) -> Fitted | None:
    """The additive law of cells; None where they carry none."""
    n, d, c = (np.array([getattr(one, name) for one in cells]) for name in ("n", "d", "c"))
    try:
        return fitted(Points(losses, n=n, d=d, c=c), "additive", draws=draws, seed=seed)
    except InputError:
        return None


def as_dict(found: Tuning, at_flops: Sequence[float] = ()) -> dict[str, Any]:
    """What a sweep tells, as JSON values; N* with and without tuning at budgets, the largest cell's where none is."""
    budgets = list(at_flops) or [max(one.c for one in found.cells)]
    laws = {"tuned": found.tuned, "untuned": found.untuned}
    return {
        "law": "tuning",
        "cells": [
            {name: None if value != value else value for name, value in vars(one).items()}
            for one in found.cells
        ],
        "rate": _of_power(found.rate),
        "batch": found.batch and _of_power(found.batch),
        "fixed_rate": found.fixed_rate,
        "laws": {name: law and _of_law(law, budgets) for name, law in laws.items()},
    }


def _of_power(law: PowerLaw) -> dict[str, Any]:
    intervals = law.intervals or [None] * len(law.names)
    exponents = {
        name: {"value": value, "interval_95": interval}
        for name, value, interval in zip(law.names, law.exponents, intervals, strict=True)
    }
    scatter = None if law.intervals is None else law.scatter
    return {"coefficient": math.exp(law.log_coefficient), "exponents": exponents, "scatter": scatter}


def _of_law(law: Fitted, budgets: Sequence[float]) -> dict[str, Any]:
    places = [{"flops": c, **law.estimate("n_opt", lambda one, c=c: one.n_opt(c))} for c in budgets]
    return {"a": law.estimate("a"), "n_opt": places}
