"""Profile likelihoods: how much worse the best fit becomes as one parameter is moved and all others follow.

The rise of the objective is turned into a deviance by the factor that makes it chi-square for the residuals
found (2 E psi'/E psi^2, psi being the loss's slope), then divided by the design effect where readings of a
run share their noise. A side on which the deviance never reaches its bar, as far as the parameter makes
sense, is not identified: it has no end, and is said so.

Source: Huber & Ronchetti, Robust Statistics (2009), section 13.6, for the likelihood-ratio factor.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.special import stdtrit

from dit.errors import check_choice
from dit.fits.bootstrap import LEVELS
from dit.fits.laws import settled
from dit.fits.losses import smooth_loss
from dit.fits.noise import noise_of
from dit.fits.optimum import minimise
from dit.fits.points import Points
from dit.fits.search import Axis, Problem

Array = np.ndarray
WIDE, NEAR = 48, 33  # values over the whole range, and around the estimate
TINY = 1e-290  # in place of the spread of residuals that are all zero
STEPS = 100  # of Newton per value and start: three starts are made


@dataclass(frozen=True)
class Profile:
    """The profile of one parameter.

    Args:
        parameter: its name.
        estimate: its value at the optimum.
        values: (m,) values it was held at, rising.
        deviance: (m,) rise of the objective in units of chi-square with one degree of freedom.
        bars: level -> deviance at which an interval of that level ends.
        intervals: level -> (low, high); None for a side that is not identified.
    """

    parameter: str
    estimate: float
    values: Array
    deviance: Array
    bars: dict[float, float]
    intervals: dict[float, tuple[float | None, float | None]]

    @property
    def identified(self) -> bool:
        """Whether the 95 % interval has two ends."""
        return None not in self.intervals[0.95]


def profile(points: Points, fit: Any, parameter: str) -> Profile:
    """The profile of ``parameter`` of a fit by ``fit_additive``, ``fit_power`` or ``fit_data_limited``.

    Raises:
        InputError: a parameter that the law does not have.
    """
    check_choice("parameter", parameter, list(fit.problem(points).axes(fit)))
    return profiles(points, fit, (parameter,))[parameter]


def profiles(points: Points, fit: Any, names: Sequence[str] = ()) -> dict[str, Profile]:
    """The profiles of several parameters, all of the law's by default, found side by side."""
    problem: Problem = fit.problem(points)
    axes, theta = problem.axes(fit), problem.to_theta(fit)
    axes = {name: axes[name] for name in names or axes}
    held = {name: _values(problem, axis, theta, points) for name, axis in axes.items()}
    objective = _objective(problem, [(axes[name], held[name]) for name in axes], theta)
    bars = {level: _bar(level, problem, fit, points) for level in LEVELS}
    factor = _factor(problem, fit)
    found = {}
    for (name, axis), value in zip(axes.items(), objective):
        rise = np.maximum(value - fit.objective, 0.0)
        deviance = rise * factor / _design_effect(problem, fit, axis, points)
        centre = float(axis.position(theta[None])[0])
        intervals = {level: _ends(axis, centre, held[name], deviance, bar) for level, bar in bars.items()}
        shown = axis.shown(held[name])
        order = np.argsort(shown)
        estimate = float(settled(name, axis.shown(centre), points.loss))
        found[name] = Profile(name, estimate, shown[order], deviance[order], bars, intervals)
    return found


def _values(problem: Problem, axis: Axis, theta: Array, points: Points) -> Array:
    """Positions (m,) at which the parameter is held: over its whole range, and close to the estimate."""
    centre = float(axis.position(theta[None])[0])
    slopes = problem.law.jacobian(theta[None])[0]
    residual = problem.y - problem.law.value(theta[None])[0]
    scale = np.sqrt(residual @ residual / max(1, len(residual) - slopes.shape[1]))
    variance = axis.slope(theta) @ np.linalg.pinv(slopes.T @ slopes) @ axis.slope(theta)
    width = 4 * scale * np.sqrt(max(0.0, variance))  # rounding of a singular matrix can leave it negative
    near = centre + width * np.linspace(-1, 1, NEAR)
    both = np.concatenate(
        [np.linspace(axis.low, axis.high, WIDE), near[(near > axis.low) & (near < axis.high)]]
    )
    return np.unique(both)


def _objective(problem: Problem, lines: Sequence[tuple[Axis, Array]], theta: Array) -> list[Array]:
    """Best objective (m,) with a parameter held at each of its positions, for each axis and its positions (m,)."""
    starts, bases = (
        np.concatenate(parts) for parts in zip(*(axis.hold(theta, held) for axis, held in lines))
    )
    ends = np.cumsum([0, *(len(held) for _, held in lines)])
    parts = [slice(low, high) for low, high in pairwise(ends)]
    one = np.ones((1, len(problem.y)))

    def solve(start: Array) -> tuple[Array, Array]:
        found = minimise(problem.law, problem.loss, problem.delta, problem.y, one, start, bases, STEPS)
        return found.theta, np.where(np.isfinite(found.objective), found.objective, np.inf)

    best, objective = solve(starts)
    for shift in (1, -1):  # again from each neighbour's optimum
        moved = best.copy()
        for (axis, held), part in zip(lines, parts):
            neighbour = np.clip(np.arange(len(held)) + shift, 0, len(held) - 1)
            moved[part] = axis.project(best[part][neighbour], held)
        other, value = solve(moved)
        better = value < objective
        best, objective = np.where(better[:, None], other, best), np.minimum(objective, value)
    return [objective[part] for part in parts]


def _factor(problem: Problem, fit: Any) -> float:
    """What makes a rise of the objective a deviance: 2 E psi' / E psi^2, per unit of the objective."""
    f = problem.fitted(fit)
    r, n = problem.y - f, len(problem.y)
    freedom = (n - len(problem.to_theta(fit))) / n
    if problem.loss in ("mse_log", "mse"):
        _, first, second = smooth_loss(problem.loss, problem.delta).derivatives(f, problem.y)
        return float(freedom * 2 * np.mean(second) / max(np.mean(first**2), TINY))
    quartiles = np.percentile(r, [25, 75])
    width = 0.9 * min(float(np.std(r)), float(np.diff(quartiles)[0]) / 1.349) * n**-0.2
    delta = problem.delta if problem.loss == "huber" else 0.0
    width = max(width, delta, TINY)
    slope = np.mean(np.abs(r) < width) / width  # twice the density of the residuals at zero
    squared = max(np.mean(np.clip(r / delta, -1, 1) ** 2), TINY) if delta else 1.0
    return float(freedom * 2 * slope / squared / (delta or 1.0))


def _design_effect(problem: Problem, fit: Any, axis: Axis, points: Points) -> float:
    """By how much a run's shared noise inflates the parameter's variance over independent readings'."""
    if points.runs.max() + 1 == len(points):
        return 1.0
    noise = noise_of(problem, fit, points)
    to_parameter = axis.slope(problem.to_theta(fit)) @ np.linalg.pinv(problem.jacobian(fit))
    alone = noise.run + noise.walk * float(np.mean(points.elapsed)) + noise.reading
    independent = alone * to_parameter @ to_parameter
    together = noise.of_sum(to_parameter, points.runs, points.elapsed)
    return float(together / independent) if independent > 0 else 1.0


def _bar(level: float, problem: Problem, fit: Any, points: Points) -> float:
    """Deviance at the ends of an interval: the square of Student's t at the residuals' degrees of freedom."""
    freedom = noise_of(problem, fit, points).freedom
    return float(stdtrit(freedom, 0.5 + level / 2)) ** 2


def _ends(
    axis: Axis, centre: float, held: Array, deviance: Array, bar: float
) -> tuple[float | None, float | None]:
    """Where the deviance crosses ``bar`` on either side of the estimate; None where it does not."""
    ends = []
    for side in (-1, 1):
        keep = (held - centre) * side > 0
        x = np.concatenate([[centre], held[keep][::side]])
        root = np.sqrt(np.concatenate([[0.0], deviance[keep][::side]]))
        above = np.flatnonzero(root >= np.sqrt(bar))
        if not len(above):
            ends.append(None)
            continue
        i = int(above[0])
        part = (np.sqrt(bar) - root[i - 1]) / (root[i] - root[i - 1])
        ends.append(float(axis.shown(x[i - 1] + part * (x[i] - x[i - 1]))))
    low, high = ends if not axis.falling else ends[::-1]
    return low, high
