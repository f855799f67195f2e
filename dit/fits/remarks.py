"""Remarks on a fit, in sentences: a reader needs them before quoting a number."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from dit.fits.bootstrap import Bootstrap
from dit.fits.choose import epochs, primary_law
from dit.fits.lack import LackOfFit, lack_of_law, short_runs
from dit.fits.losses import NARROWEST, WIDEST
from dit.fits.noise import FAR, off
from dit.fits.points import Points
from dit.fits.search import Problem

K_TOLERANCE = 0.01  # spread of C/(N D) above which the allocation's geometric mean is worth a warning
TINY = 1e9  # FLOPs that no training run stays below
LACK = 0.01  # probability of misses by noise below which a parabola does not fit; budgets are several
RUNS = ("run", "runs", "run_name", "run_id", "run name", "run id")  # headers that are likely to name runs


def remarks(points: Points, fit: Any, boot: Bootstrap | None, loss: str, delta: float) -> list[str]:
    """All warnings about a fit by a loss that was asked for, with Huber's delta, and its bootstrap."""
    said = [*other_loss(fit, loss, delta), *_of_repetition(points, fit), *_of_fit(points, fit, boot)]
    return [*said, *misfits(points, fit)]


def misfits(points: Points, fit: Any) -> list[str]:
    """What residuals say against a law that predicts losses: runs that are off, short runs, lack of fit."""
    problem = fit.problem(points)
    if not isinstance(problem, Problem):  # minima, and laws that are a mean of others
        return []
    found: list[str] = []
    residual = problem.residual(fit)
    for i in np.flatnonzero(off(problem, fit, points.runs)):
        first = int(np.flatnonzero(points.runs == i)[0])
        named = f"run {points.run[first]}" if points.run is not None else f"reading {first + 1}"
        found.append(
            f"{named} lies {np.mean(residual[points.runs == i]):+.1%} off the law, more than {FAR:g} times the robust "
            "spread of the others: the noise behind intervals leaves it out; look at it, or leave it out"
        )
    short = short_runs(points, fit)
    if short is not None and short.p_value < LACK and short.by > 0:
        found.append(
            f"the {short.n} readings of least D (up to {short.below:.3g}) lie {short.by:.1%} above the law of "
            f"the others (p {short.p_value:.2g}): short runs may still be warming up; fit without them, or train longer"
        )
    lack = lack_of_law(points, fit)
    if lack is not None and lack.p_value < LACK:
        found.append(f"{lack_in_words(lack)}: the law or a cell is wrong, which intervals do not know")
    return found


def lack_in_words(lack: LackOfFit | None) -> str:
    """The lack-of-fit test of a law in a clause."""
    if lack is None:
        return "lack of fit not tested: no N and D was trained under two seeds"
    verdict = "more than repeats explain" if lack.p_value < LACK else "no more than repeats explain"
    return (
        f"lack of fit: the law misses by {verdict} (F {lack.f:.3g} on {lack.lack} and {lack.pure} degrees of freedom, "
        f"p {lack.p_value:.2g})"
    )


def other_loss(fit: Any, loss: str, delta: float) -> list[str]:
    """Says which loss was fitted where it is not the one that was asked for."""
    searched = getattr(fit, "searched", None)
    if searched is None or searched.loss == loss:
        return []
    side = f"below {NARROWEST:g}" if delta < NARROWEST else f"above {WIDEST:g}"
    return [f"delta {delta:g} lies {side}, where {loss} is {searched.loss}: that was fitted"]


def _of_repetition(points: Points, fit: Any) -> list[str]:
    """Says so where the law fitted takes repeated data for new, and the points repeat theirs often."""
    named, seen = primary_law(points), epochs(points)
    if named == "additive" or hasattr(fit, "R_D") or not hasattr(fit, "predict"):
        return []
    return [
        f"data are seen up to {seen:.3g} times, which this law takes for new: law={named} is the primary law of "
        "these points"
    ]


def _of_fit(points: Points, fit: Any, boot: Bootstrap | None) -> list[str]:
    """The remarks that a reader needs before quoting a number."""
    found = []
    searched = getattr(fit, "searched", None)
    if searched is not None and searched.absent:
        found.append(
            f"zero at the optimum: {', '.join(searched.absent)}; the law has fewer terms than it could"
        )
    if searched is not None and not searched.converged:
        found.append("no start converged: parameters are where the search stopped, in a flat valley")
    elif searched is not None and searched.agreed < 0.5 * searched.starts:
        found.append(f"only {searched.agreed} of {searched.starts} starts reached the optimum")
    if hasattr(fit, "alpha") and min(fit.alpha, fit.beta) <= 0:
        found.append(
            "an exponent is not positive: loss rises with size or data, and there is no best allocation"
        )
    if points.n is not None and points.d is not None and points.get("c").max() < TINY:
        found.append(
            f"compute is {points.get('c').max():.3g} FLOPs at most: if N or D are counted in millions or billions, "
            "set flops_per_nd to 6 times these units (6e15 for millions of parameters and billions of tokens)"
        )
    if points.n is not None and points.d is not None and points.k_spread > K_TOLERANCE:
        found.append(
            f"C/(N D) varies by up to {np.expm1(points.k_spread):.1%}: allocation uses its geometric mean"
        )
    found += _of_valleys(getattr(fit, "valleys", ()))
    if boot is not None and boot.failed:
        found.append(f"{boot.failed} of {boot.draws} bootstrap draws did not converge and were left out")
    given = [value for value in (points.n, points.d, points.c, points.loss) if value is not None]
    copies = len(points) - np.unique(np.stack(given), axis=1).shape[1]
    if copies:
        found.append(f"{copies} points repeat another in every column: remove copies, or they count twice")
    return found


def _of_valleys(valleys: Iterable[Any]) -> list[str]:
    """What is to be said about parabolas: those left out, those through far sizes, and those that do not fit."""
    found = [f"budget {one.flops:.3g} left out: {one.rejected}" for one in valleys if one.rejected]
    kept = [one for one in valleys if not one.rejected]
    if wide := [f"{one.flops:.3g}" for one in kept if one.widened]:
        found.append(
            f"too few sizes near the best for the window, the nearest are used: budget {', '.join(wide)}"
        )
    for one in kept:
        if one.p_value < LACK:
            found.append(
                f"the parabola of budget {one.flops:.3g} misses by {one.rms:.2%}, more than noise explains "
                f"(p {one.p_value:.2g}): a size may be badly trained, or the window too wide"
            )
    return found


def independent(points: Points, header: Iterable[str] = (), size: str | None = None) -> list[str]:
    """Asks for the column of runs where readings of one N at several D are taken as independent.

    It offers the one that a header names, else the column ``size`` of N where no N and D is read twice: one run a size.
    """
    if points.run is not None or points.n is None or points.d is None:
        return []
    pairs = np.unique(np.stack([points.n, points.d]), axis=1)
    sizes, times = np.unique(pairs[0], return_counts=True)
    if not (times > 1).any():
        return []
    named = [name for name in header if name.strip().casefold() in RUNS]
    column = f"the file has {named[0]!r}: add columns.run={named[0]}" if named else "add columns.run=COLUMN"
    if not named and size and pairs.shape[1] == len(points):
        column += f", or columns.run={size} if each size was trained once"
    return [
        f"{(times > 1).sum()} of {len(sizes)} sizes N are read at several D and no column of runs is named: readings "
        f"are taken as independent. Those of one run are not, and intervals of 95 % would cover 85 %; {column}"
    ]
