"""Leverage: how far a number moves when one size, one budget or one run is left out.

A bootstrap of noise cannot see that an exponent rests on one network; leaving it out can.

Source: Efron & Stein, The jackknife estimate of variance, Annals of Statistics 9 (1981) 586.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dit.fits.points import Points

Array = np.ndarray
FEWEST = 3  # groups below which leaving one out says nothing
OFTEN = 2.0  # times the bootstrap's sd: above, a number is doubted


@dataclass(frozen=True)
class Leverage:
    """A number without each of the groups that the points fall into.

    Attributes:
        by: what was left out: size, budget or run.
        groups: (g,) the sizes N, budgets in FLOPs, or numbers of runs.
        values: (g,) the number without each; NaN where the law cannot be fitted without it.
        estimate: the number of all points.
    """

    by: str
    groups: Array
    values: Array
    estimate: float

    @property
    def sd(self) -> float:
        """The jackknife's standard deviation, sqrt((g - 1)/g sum (value - mean)^2), over groups that have a value."""
        values = self.values[np.isfinite(self.values)]
        return float(np.sqrt((len(values) - 1) * np.var(values))) if len(values) else float("nan")

    @property
    def most(self) -> tuple[float, float]:
        """The group without which the number moves most, and the number without it."""
        place = int(np.nanargmax(np.abs(self.values - self.estimate)))
        return float(self.groups[place]), float(self.values[place])


def leverages(points: Points, fit: Any, of: Callable[[Any], Any]) -> list[Leverage]:
    """The leverage of sizes, budgets and runs on a number of a fit; of those groups that are three or more.

    Args:
        points: the points that were fitted.
        fit: their fit.
        of: the number of a law, also of many laws side by side.
    """
    groups, problem = _groups(points), fit.problem(points)
    if not groups:
        return []
    weights = [labels[None] != np.arange(len(names))[:, None] for _, labels, names in groups]
    refitted = problem.refit(fit, np.concatenate(weights).astype(float), problem.y[None])
    values = np.where(refitted.converged, np.asarray(of(refitted.law), float), np.nan)
    parts = np.split(values, np.cumsum([len(names) for _, _, names in groups])[:-1])
    return [
        Leverage(by, names, part, float(of(fit)))
        for (by, _, names), part in zip(groups, parts)
        if np.isfinite(part).sum() >= FEWEST
    ]


def doubt(found: list[Leverage], sd: float) -> str | None:
    """What to say beside a number whose jackknife exceeds twice its bootstrap's ``sd``; None where none does."""
    largest = max(found, key=lambda one: float(f"{one.sd:.6g}"), default=None)  # sizes before runs, if alike
    if largest is None or not largest.sd > OFTEN * sd:
        return None
    group, value = largest.most
    named = {"size": f"N = {group:.3g}", "budget": f"{group:.3g} FLOPs", "run": f"run {group:.0f}"}[
        largest.by
    ]
    return f"{value:.3g} without {named}: jackknife sd {largest.sd:.2g} over {largest.by}s"


def _groups(points: Points) -> list[tuple[str, Array, Array]]:
    """(what, label of each point, name of each group) of groups of several points."""
    groups = []
    if points.n is not None:
        names, labels = np.unique(points.n, return_inverse=True)
        groups.append(("size", labels, names))
    if points.budget is not None or points.c is not None:
        groups.append(("budget", points.budgets, points.budget_flops))
    groups.append(("run", points.runs, np.arange(points.runs.max() + 1)))
    return [one for one in groups if FEWEST <= len(one[2]) < len(points)]
