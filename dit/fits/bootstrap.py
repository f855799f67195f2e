"""Intervals of a fit by resampling whole runs, or by drawing their noise anew where runs are few.

Legend: R draws, n points. Two ways, because no one way covers everywhere (docs/fits.md has the figures).

pairs: whole runs are drawn with replacement, within each budget where runs belong to one (rescaled, so that small
    strata do not narrow the spread); intervals are bias-corrected percentiles.
parametric: the fitted law plus noise with the variances of runs and of readings found in the residuals; what covers
    where runs are few, since drawing among them leaves out whole sizes. Intervals are percentiles.
seeds: as parametric, with variances from repeats of the same point under other seeds.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from dit.errors import InputError, check_choice, check_number
from dit.fits.noise import noise_of
from dit.fits.points import Points
from dit.fits.variance import Components, components

Array = np.ndarray
FEW = 25  # runs below which noise is drawn anew instead of runs
FEWEST = 3  # runs below which nothing can be said about their noise
FEW_SHARED = 40  # the same where runs are read more than once
LEVELS = (0.80, 0.95)
METHODS = ("auto", "pairs", "parametric", "seeds")


@dataclass(frozen=True)
class Bootstrap:
    """Refits of a law to resampled data.

    Args:
        estimate: the fit to all data.
        law: the same law with arrays (R,) in its fields, converged draws only.
        draws: how many draws were made; ``failed`` how many of them did not converge and were left out.
        improved: how many moved to a better optimum from the second start.
        by: what was resampled: run or point.
        method: pairs, parametric or seeds.
        noise: variances used by the parametric methods.
    """

    estimate: Any
    law: Any
    draws: int
    failed: int
    improved: int
    by: str
    method: str
    noise: Components | None = None

    @property
    def converged(self) -> int:
        """How many draws are in ``law``."""
        return self.draws - self.failed

    def values(self, of: Callable[[Any], Any]) -> Array:
        """``of`` (a function of a law) on every draw, where it is defined."""
        values = np.asarray(of(self.law), float)
        return values[np.isfinite(values)]

    def sd(self, of: Callable[[Any], Any]) -> float:
        """Standard deviation of ``of`` over the draws."""
        with np.errstate(over="ignore"):  # coefficients of terms that all but vanished
            return float(np.std(self.values(of), ddof=1))

    def percentiles(self, of: Callable[[Any], Any], level: float = 0.95) -> tuple[float, float]:
        """Plain percentile interval of ``of`` at ``level``; NaN where no draw has a value."""
        values = self.values(of)
        if not len(values):
            return float("nan"), float("nan")
        low, high = np.percentile(values, [50 * (1 - level), 50 * (1 + level)])
        return float(low), float(high)

    def interval(self, of: Callable[[Any], Any], level: float = 0.95) -> tuple[float, float]:
        """Interval of ``of`` at ``level``: bias-corrected percentiles (pairs), or plain ones (parametric, mixed laws).

        Source: Efron, JASA 82 (1987) 171, the BC interval.
        """
        if self.method != "pairs" or not len(self.values(of)) or getattr(self.law, "mixed", False):
            return self.percentiles(of, level)
        return self._corrected(self.values(of), float(of(self.estimate)), level)

    def band(self, of: Callable[[Any, Any], Any], at: Array, level: float = 0.95) -> tuple[Array, Array]:
        """Interval of ``of(law, x)`` at each x: two arrays like ``at``."""
        ends = [self.interval(lambda law, x=x: of(law, x), level) for x in np.asarray(at, float)]
        return np.array([low for low, _ in ends]), np.array([high for _, high in ends])

    @staticmethod
    def _corrected(values: Array, estimate: float, level: float) -> tuple[float, float]:
        below = (np.sum(values < estimate) + 0.5 * np.sum(values == estimate)) / len(values)
        shift = 2 * ndtri(np.clip(below, 1e-3, 1 - 1e-3))
        z = ndtri(0.5 + level / 2)
        low, high = np.percentile(values, [100 * ndtr(shift - z), 100 * ndtr(shift + z)])
        return float(low), float(high)


def bootstrap(
    points: Points, fit: Any, draws: int = 4000, seed: int = 0, by: str = "auto", method: str = "auto"
) -> Bootstrap:
    """Refits of ``fit`` to resampled ``points``.

    Args:
        points: the points that were fitted.
        fit: what a ``fit_...`` function returned for them.
        draws: number of draws.
        seed: of the draws.
        by: what is resampled together: run (all readings of a run), point, or auto: run where a run column is given.
        method: pairs, parametric, seeds, or auto: parametric below 25 runs and for isoFLOP parabolas, else pairs.

    Raises:
        InputError: an unknown choice; no repeats for ``seeds``; fewer than 20 draws or 3 runs.
    """
    check_number("bootstrap", draws, low=20, integer=True)
    check_number("seed", seed, low=0, integer=True)
    check_choice("by", by, ("auto", "run", "point"))
    check_choice("method", method, METHODS)
    if by == "auto":
        by = "run" if points.run is not None else "point"
    units = points.runs if by == "run" else np.arange(len(points))
    if units.max() + 1 < FEWEST:
        got = f"({units.max() + 1} in the column of runs)"
        raise InputError(
            "columns.run", got, f"{FEWEST} or more runs", "Leave the column out if it names no runs."
        )
    problem = fit.problem(points)
    if method == "auto":
        method = problem.resampling
    if method == "auto":
        count = int(units.max()) + 1
        method = "parametric" if count < (FEW if count == len(points) else FEW_SHARED) else "pairs"
    if method != "pairs" and problem.resampling == "pairs":
        allowed = "auto or pairs for this law"
        raise InputError("method", method, allowed, "It predicts no loss to add noise to.")
    rng = np.random.RandomState(seed)  # its streams are frozen across versions of numpy
    if method == "pairs":
        return refit(points, fit, resampled(points, by, draws, rng, problem.stratified), by)
    noise = _repeats(points) if method == "seeds" else noise_of(problem, fit, points, by)
    elapsed = points.elapsed if by == "run" else None
    y = problem.noisy(fit, noise.draw(rng, draws, units, elapsed))
    return _collect(fit, problem.refit(fit, np.ones((1, len(points))), y), draws, by, method, noise)


def refit(points: Points, fit: Any, weights: Array, by: str = "point") -> Bootstrap:
    """The bootstrap with the given multiplicities (R, n) of the points."""
    problem = fit.problem(points)
    return _collect(fit, problem.refit(fit, weights, problem.y[None]), len(weights), by, "pairs", None)


def resampled(
    points: Points, by: str, draws: int, rng: np.random.RandomState, stratified: bool = False
) -> Array:
    """Multiplicities (draws, n) of the points.

    By point, each draw is one ``rng.choice(n, n)``, the protocol of published bootstraps. By run, or where
    ``stratified``, units are drawn within their budget if every one was read at one budget and every budget
    has at least 3: m - 1 of m weighted m/(m - 1); otherwise all are drawn together.

    Source: Rao & Wu, JASA 83 (1988) 231, for the rescaling.
    """
    units = points.runs if by == "run" else np.arange(len(points))
    count = int(units.max()) + 1
    strata = _strata(points, units) if by == "run" or stratified else np.zeros(count, int)
    sizes = np.bincount(strata)
    weights = np.zeros((draws, count))
    for stratum, m in enumerate(sizes):
        members, take = np.flatnonzero(strata == stratum), m - 1 if len(sizes) > 1 else m
        for row in range(draws):
            chosen = rng.choice(m, take, True)
            weights[row, members] = np.bincount(chosen, minlength=m) * (m / take)
    return weights[:, units]


def _strata(points: Points, units: Array) -> Array:
    """Budget of each unit where units have one each and budgets at least 3; else one stratum."""
    pairs = (
        np.unique(np.stack([units, points.budgets]), axis=1)
        if _has_budgets(points)
        else np.zeros((2, 0), int)
    )
    if pairs.shape[1] == units.max() + 1 and np.bincount(pairs[1]).min() >= 3:
        return pairs[1]
    return np.zeros(units.max() + 1, int)


def _has_budgets(points: Points) -> bool:
    return points.budget is not None or points.c is not None


def _repeats(points: Points) -> Components:
    """Noise of repeats: readings of the same N and D by runs of other seeds, about their mean."""
    cells = np.unique(np.stack([points.get("n"), points.get("d")]), axis=1, return_inverse=True)[1].ravel()
    if len(points) == cells.max() + 1 or points.run is None:
        raise InputError(
            "method", "seeds", "points with the same N and D under other runs", "There are no repeats."
        )
    member = np.eye(cells.max() + 1)[cells]
    log_loss = np.log(points.loss)
    return components(log_loss - member @ (member.T @ log_loss / member.sum(0)), member, points.runs)


def _collect(fit: Any, found: Any, draws: int, by: str, method: str, noise: Components | None) -> Bootstrap:
    failed = int((~found.converged).sum())
    return Bootstrap(fit, _kept(found.law, found.converged), draws, failed, found.improved, by, method, noise)


def _kept(law: Any, rows: Array) -> Any:
    """The law with some of its draws, and so of the laws that it consists of."""
    if not is_dataclass(law):
        return law[rows] if isinstance(law, np.ndarray) else law
    values = {item.name: getattr(law, item.name) for item in fields(law)}
    return type(law)(  # type: ignore[operator]
        **{
            name: tuple(_kept(one, rows) for one in value) if isinstance(value, tuple) else _kept(value, rows)
            for name, value in values.items()
        }
    )
