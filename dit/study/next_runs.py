"""The next runs of a study: those that shrink the interval of its answer most for what they cost.

The problem is that of 2604.22753 (a sequential design of experiments under a budget, judged where the law is wanted).
The criterion here is the classic one of a single quantity (c-optimality) at the law fitted so far: the answer's
variance by the delta method, under the report's fit (as in ``dit.study.forecast``). A run is worth the fall of its
logarithm per FLOP, and runs are taken one after another.

Legend: p parameters of the law, m readings of a run, q candidates. Imports no torch.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dit.fits import laws
from dit.fits.additive import AdditiveLaw, AdditiveProblem
from dit.fits.points import Points
from dit.network.counting import Counts
from dit.study.forecast import DELTA, STEP, Noise, clipped
from dit.study.further import Read, run_name
from dit.study.planned import Plan

Array = np.ndarray
AIMS = {"n_opt": "N*", "loss": "L*"}  # answers, and what they are called
SPAN = 8.0  # of a candidate's size over the best one of its budget, to either side
SEEDS = 3  # of one width
LEAST_NOISE = 1e-5  # relative sd of a reading: below it, rounding


@dataclass(frozen=True)
class Candidate:
    """A run that could be made next, or be continued.

    Args:
        run: its name; of a run that is there, that one goes on.
        n: its size.
        d: (m,) images at its new readings, rising.
        flops: what it costs, what it has cost already left out.
        cell: (width, budget, seed), as ``study.cells`` has it.
    """

    run: str
    n: float
    d: tuple[float, ...]
    flops: float
    cell: tuple[int, float, int]


@dataclass(frozen=True)
class Chosen:
    """A chosen run, and the answer's relative standard deviation once it is made."""

    candidate: Candidate
    sd: float


@dataclass(frozen=True)
class Choice:
    """The answer now, and the runs that sharpen it.

    Args:
        value: of the answer at the law fitted so far.
        sd: its relative standard deviation now.
        steps: the runs, in the order of their worth.
    """

    value: float
    sd: float
    steps: tuple[Chosen, ...]


def choose(
    points: Points,
    law: AdditiveLaw,
    noise: Noise,
    candidates: Sequence[Candidate],
    answer: Callable[[Any], Any],
    runs: int,
) -> Choice:
    """The runs that shrink the interval of an answer most per FLOP, one after another.

    Args:
        points: the readings so far.
        law: fitted to them.
        noise: of their losses.
        candidates: what can be run; each at most once.
        answer: a positive number of a law, such as N* at some compute.
        runs: how many to choose.
    """
    gradient = _gradient(points, law, answer)
    told, gains = _told(points, law, noise, candidates)
    left, steps = list(range(len(candidates))), []
    now = first = _variance(told, gradient)
    while left and len(steps) < runs:
        after = np.array([_variance(told + gains[i], gradient) for i in left])
        worth = np.log(now / after) / [candidates[i].flops for i in left]
        best = int(np.argmax(worth))
        chosen, now = left[best], float(after[best])
        told = told + gains[chosen]
        steps.append(Chosen(candidates[chosen], math.sqrt(now)))
        left = [i for i in left if candidates[i].run != candidates[chosen].run]
    return Choice(float(answer(law)), math.sqrt(first), tuple(steps))


def candidates(
    plan: Plan,
    law: AdditiveLaw,
    budgets: Sequence[float],
    widths: Sequence[tuple[int, Counts]],
    read: Read,
) -> list[Candidate]:
    """What could be run next: a width at a budget, within SPAN of its best size.

    A width that the plan has not is a run of its own; one that it has is continued, or repeated under another seed, up
    to SEEDS of them: a law that does not quite hold would be paid for with many cheap runs of one cell.

    Args:
        plan: its runs are there, or will be.
        law: fitted so far.
        budgets: that runs may end at, rising.
        widths: and their networks.
        read: a run's readings at budgets, see ``dit.study.further``.
    """
    found = []
    planned = {run.name: run for run in plan.runs}
    for width, counts in widths:
        served = read(counts, width, budgets)
        seeds = [run.seed for run in plan.runs if run.width == width]
        free = next(seed for seed in range(len(seeds) + 1) if seed not in seeds)
        for seed in (*seeds, *([free] if len(seeds) < SEEDS else [])):
            run = planned.get(run_name(width, seed))
            seen = run.readings[-1] if run else None
            for last in served:
                far = abs(math.log(counts.macs_per_token / float(law.n_opt(last.budget_flops)))) > math.log(
                    SPAN
                )
                if far or (seen and last.budget_flops <= seen.budget_flops):
                    continue
                begin = seen.budget_flops if seen else 0.0
                new = [one for one in served if begin < one.budget_flops <= last.budget_flops]
                cost = last.flops - (seen.flops if seen else 0.0)
                images = tuple(float(one.images) for one in new)
                cell = (width, last.budget_flops, seed)
                found.append(Candidate(run_name(width, seed), counts.macs_per_token, images, cost, cell))
    return found


def _gradient(points: Points, law: AdditiveLaw, answer: Callable[[Any], Any]) -> Array:
    """(p,) slope of the answer's logarithm in the parameters of the fit to these points, by central differences."""
    problem = AdditiveProblem(points, "huber", DELTA)
    theta = problem.to_theta(law)
    high, low = (problem.to_law(theta + sign * STEP * np.eye(len(theta))) for sign in (1, -1))
    return (np.log(answer(high)) - np.log(answer(low))) / (2 * STEP)


def _told(
    points: Points, law: AdditiveLaw, noise: Noise, candidates: Sequence[Candidate]
) -> tuple[Array, Array]:
    """What the readings so far tell, and what each candidate adds: (2, p, p) and (q, 2, p, p), see ``_of_run``."""
    problem = AdditiveProblem(points, "huber", DELTA)
    theta = problem.to_theta(law)[None]
    own, shared = clipped(Noise(max(noise.reading, LEAST_NOISE), noise.run))

    def slopes_at(n: Array, d: Array) -> Array:
        """(..., p) slopes of ln L."""
        centred = laws.additive(np.log(n) - problem.mean_n, np.log(d) - problem.mean_d)
        return centred.jacobian(theta)[0]

    rows = slopes_at(points.get("n"), points.get("d"))
    names = points.run if points.run is not None else points.runs.astype(str)
    known = {name: rows[names == name] for name in np.unique(names)}
    gains = []
    for one in candidates:
        before = known.get(one.run, rows[:0])
        after = np.concatenate([before, slopes_at(np.full(len(one.d), one.n), np.array(one.d))])
        gains.append(_of_run(after, own, shared) - _of_run(before, own, shared))
    return np.sum([_of_run(slopes, own, shared) for slopes in known.values()], axis=0), np.array(gains)


def _of_run(slopes: Array, own: float, shared: float) -> Array:
    """J'J and J'SJ (2, p, p) of a run's readings, S the covariance of their influence on the fit."""
    total, squares = slopes.sum(axis=0), slopes.T @ slopes
    return np.stack([squares, (own - shared) * squares + shared * np.outer(total, total)])


def _variance(told: Array, gradient: Array) -> float:
    """G' (J'J)^-1 J'SJ (J'J)^-1 g: linearised M-estimation; parameters scaled first, since theirs differ by orders."""
    kept = np.diag(told[0]) > 0  # a term that is absent moves nothing
    scale = 1 / np.sqrt(np.diag(told[0])[kept])
    squares, spread = told[:, kept][:, :, kept] * np.outer(scale, scale)
    root = np.linalg.lstsq(squares, gradient[kept] * scale, rcond=1e-13)[0]
    return float(root @ spread @ root)
