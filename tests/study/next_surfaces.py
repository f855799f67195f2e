"""Studies on known surfaces that choose their next runs, beside the fixed grid that they are to match.

The fixed grid: five budgets half a decade apart, sizes over a factor 16 around the best of each (as ``study.span``),
one run per size read at every budget on its way. The other begins with the lowest three budgets of the same grid, and
takes the next runs two at a time, refitted in between, until its interval at ten times the largest budget is as narrow.
"""

import math

import numpy as np

from dit.fits.additive import AdditiveLaw, fit_additive
from dit.fits.points import Points
from dit.study.forecast import Noise
from dit.study.next_runs import SEEDS, SPAN, Candidate, choose
from tests.fits.surfaces import Truth, random_truth

CAP = 1e18  # the largest budget, of both
BUDGETS = CAP * 10.0 ** np.array([-2, -1.5, -1, -0.5, 0])
TARGET = 10 * CAP
GAP = math.log(16) / 6  # between sizes, in ln N: seven over a factor 16
NOISE = Noise(0.001, 0.002)
ANSWERS = {"n_opt": lambda law: law.n_opt(TARGET), "loss": lambda law: law.loss_opt(TARGET)}


class Lab:
    """Trains, by drawing noise: of a run once, of each reading anew."""

    def __init__(self, truth: Truth, seed: int) -> None:
        self.truth, self.rng = truth, np.random.default_rng(seed)
        self.shifts: dict[str, float] = {}
        self.seen: dict[str, int] = {}  # the last budget of a run
        self.rows: list[tuple[str, float, float, float]] = []

    @property
    def flops(self) -> float:
        return float(sum(BUDGETS[last] for last in self.seen.values()))

    def train(self, run: str, n: float, budgets: list[int]) -> None:
        shift = self.shifts.setdefault(run, NOISE.run * self.rng.standard_normal())
        for index in budgets:
            noise = shift + NOISE.reading * self.rng.standard_normal()
            loss = self.truth.loss(n, BUDGETS[index] / (6 * n)) * math.exp(noise)
            self.rows.append((run, n, BUDGETS[index], loss))
        self.seen[run] = budgets[-1]

    def points(self) -> Points:
        run, n, c, loss = (np.array(column) for column in zip(*self.rows, strict=True))
        return Points(loss, n=n, d=c / (6 * n), c=c, run=run, budget=c)


def grid(lab: Lab, sizes: np.ndarray, budgets: int) -> Lab:
    """Trains the lowest budgets of the fixed grid."""
    half = 0.5 * math.log(16) + 0.5 * GAP
    for i, n in enumerate(sizes):
        row = [k for k in range(budgets) if abs(math.log(n / lab.truth.n_opt(BUDGETS[k]))) <= half]
        if row:
            lab.train(f"w{i}", n, row)
    return lab


def possible(lab: Lab, sizes: np.ndarray, law: AdditiveLaw) -> list[Candidate]:
    """The candidates of ``dit.study.next_runs.candidates`` on sizes that are numbers."""
    found = []
    for i, n in enumerate(sizes):
        near = [k for k, c in enumerate(BUDGETS) if abs(math.log(n / law.n_opt(c))) <= math.log(SPAN)]
        seeds = [f"w{i}" + (f"-s{seed}" if seed else "") for seed in range(SEEDS)]
        free = [run for run in seeds if run not in lab.seen][:1]
        for run in [run for run in seeds if run in lab.seen] + free:
            seen = lab.seen.get(run, -1)
            for last in (k for k in near if k > seen):
                d = tuple(BUDGETS[k] / (6 * n) for k in near if seen < k <= last)
                cost = float(BUDGETS[last] - (BUDGETS[seen] if seen >= 0 else 0.0))
                found.append(Candidate(run, n, d, cost, (i, float(BUDGETS[last]), 0)))
    return found


def fitted(lab: Lab) -> AdditiveLaw:
    fit = fit_additive(lab.points())
    return AdditiveLaw(fit.E, fit.A, fit.alpha, fit.B, fit.beta, fit.k)


def saved(seed: int, aim: str) -> tuple[float, float, float]:
    """The share of the fixed grid's FLOPs, and errors of ln answer over its sd: of the chosen runs, and of the grid."""
    truth, answer = random_truth(np.random.default_rng(500 + seed)), ANSWERS[aim]
    low, high = (math.log(truth.n_opt(BUDGETS[k]) * factor) for k, factor in ((0, 1 / SPAN), (-1, SPAN)))
    sizes = np.exp(np.arange(low, high, GAP))
    fixed, lab = grid(Lab(truth, seed), sizes, len(BUDGETS)), grid(Lab(truth, 1000 + seed), sizes, 3)
    whole = fitted(fixed)
    goal = choose(fixed.points(), whole, NOISE, possible(lab, sizes, whole), answer, 0).sd
    while True:
        law = fitted(lab)
        found = choose(lab.points(), law, NOISE, possible(lab, sizes, law), answer, 2)
        if found.sd <= goal or not found.steps:
            break
        for step in found.steps:
            one = step.candidate
            at = [int(np.argmin(np.abs(np.log(BUDGETS / (6 * one.n * d))))) for d in one.d]
            lab.train(one.run, one.n, at)
    true = answer(AdditiveLaw(truth.e, truth.a, truth.alpha, truth.b, truth.beta, truth.k))
    chosen, of_grid = (
        math.log(float(answer(one)) / true) / sd for one, sd in ((law, found.sd), (whole, goal))
    )
    return (lab.flops / fixed.flops if found.sd <= goal else math.inf, chosen, of_grid)
