"""Points on known surfaces: what a fit must find is known."""

from dataclasses import dataclass, replace

import numpy as np

from dit.fits.points import Points


@dataclass(frozen=True)
class Truth:
    """L = e + a n^-alpha + b d^-beta with compute k n d."""

    e: float = 1.0
    a: float = 60.0
    alpha: float = 0.34
    b: float = 400.0
    beta: float = 0.37
    k: float = 6.0

    def loss(self, n, d):
        return self.e + self.a * n**-self.alpha + self.b * d**-self.beta

    def exponent(self) -> float:
        return self.beta / (self.alpha + self.beta)

    def n_opt(self, c):
        """From dL/dN = 0 along C = k N D (Hoffmann et al. 2203.15556, equation 4)."""
        g = (self.alpha * self.a / (self.beta * self.b)) ** (1 / (self.alpha + self.beta))
        return g * (c / self.k) ** self.exponent()

    def loss_opt(self, c):
        n = self.n_opt(c)
        return self.loss(n, c / (self.k * n))


def random_truth(rng: np.random.Generator) -> Truth:
    """Exponents from .25 to .5, and terms of 5 to 25 % of the floor at 1e7 parameters and 1e9 samples."""
    alpha, beta = rng.uniform(0.25, 0.5, 2)
    share = rng.uniform(0.05, 0.25)
    return Truth(1.0, share / alpha * 1e7**alpha, alpha, share / beta * 1e9**beta, beta)


def grid(truth: Truth, budgets: int = 6, sizes: int = 7, span: float = 8.0, centre: float = 6e16):
    """N, D and budget of an isoFLOP grid: budgets half a decade apart, sizes around each one's optimum."""
    flops = centre * 10 ** (0.5 * (np.arange(budgets) - (budgets - 1) / 2))
    spread = np.exp(np.linspace(-0.5, 0.5, sizes) * np.log(span))
    n = np.concatenate([truth.n_opt(c) * spread for c in flops])
    budget = np.repeat(flops, sizes)
    return n, budget / (truth.k * n), budget


def isoflop_points(truth: Truth, noise: float = 0.0, seed: int = 0, **design) -> Points:
    """One run per point of a grid, with relative noise."""
    n, d, budget = grid(truth, **design)
    loss = truth.loss(n, d) * np.exp(noise * np.random.default_rng(seed).standard_normal(len(n)))
    run = np.array([f"r{i}" for i in range(len(n))])
    return Points(loss, n=n, d=d, c=budget, run=run, budget=budget)


def one_off(points: Points, seed: int) -> Points:
    """The same points, one of their runs 2 to 5 % too high or too low."""
    rng = np.random.default_rng(30_000 + seed)
    runs = points.runs
    shift = rng.choice([-1, 1]) * rng.uniform(0.02, 0.05)
    return replace(points, loss=points.loss * np.exp(shift * (runs == rng.integers(runs.max() + 1))))


def short_runs_high(points: Points, share: float = 0.2, by: float = 0.02) -> Points:
    """The same points, those of least D (a share of them) too high."""
    d = points.get("d")
    return replace(points, loss=points.loss * np.where(d <= np.quantile(d, share), 1 + by, 1.0))


def walk(rng: np.random.Generator, run: np.ndarray, d: np.ndarray, sd: float) -> np.ndarray:
    """A random walk along each run from its first reading, of standard deviation ``sd`` per root e-fold of D."""
    out = np.zeros(len(d))
    for one in np.unique(run):
        here = np.flatnonzero(run == one)
        here = here[np.argsort(d[here])]
        steps = np.diff(np.log(d[here]))
        out[here[1:]] = np.cumsum(sd * np.sqrt(steps) * rng.standard_normal(len(steps)))
    return out


def ladder_points(
    truth: Truth,
    run_noise: float,
    reading_noise: float,
    seed: int = 0,
    sizes: int = 7,
    walk_noise: float = 0.0,
) -> Points:
    """A study with one run per size: sizes a factor 2 apart, each read at the budgets near its optimum.

    With 7 sizes it has 18 points from 7 runs at 4 budgets, the plan of the digits study.
    """
    rng = np.random.default_rng(seed)
    flops = 6e16 * 10 ** (0.5 * (np.arange(4) - 1.5))
    n_all = truth.n_opt(6e16) * 2.0 ** (np.arange(sizes) - (sizes - 1) / 2)
    windows = [(0, sizes - 3), (0, sizes - 2), (2, sizes), (3, sizes)]
    rows = [(i, c) for c, (low, high) in zip(flops, windows) for i in range(low, high)]
    run, budget = np.array([i for i, _ in rows]), np.array([c for _, c in rows])
    n = n_all[run]
    d = budget / (truth.k * n)
    noise = run_noise * rng.standard_normal(sizes)[run] + reading_noise * rng.standard_normal(len(rows))
    noise += walk(rng, run, d, walk_noise) if walk_noise else 0.0
    return Points(truth.loss(n, d) * np.exp(noise), n=n, d=d, c=budget, run=run.astype(str), budget=budget)


def curve_points(
    truth: Truth,
    run_noise: float,
    reading_noise: float,
    seed: int = 0,
    runs: int = 24,
    walk_noise: float = 0.0,
) -> Points:
    """Checkpoints: each run has its own size (a factor 32 over all) and is read 8 times over 1.5 decades of data."""
    rng = np.random.default_rng(seed)
    n_run = truth.n_opt(6e16) * np.geomspace(32**-0.5, 32**0.5, runs)
    d_run = 6e16 / (truth.k * n_run) * np.sqrt(n_run / truth.n_opt(6e16))
    run = np.repeat(np.arange(runs), 8)
    n, d = n_run[run], d_run[run] * np.tile(np.geomspace(0.05, 1.6, 8), runs)
    noise = run_noise * rng.standard_normal(runs)[run] + reading_noise * rng.standard_normal(len(run))
    noise += walk(rng, run, d, walk_noise) if walk_noise else 0.0
    return Points(truth.loss(n, d) * np.exp(noise), n=n, d=d, run=run.astype(str))
