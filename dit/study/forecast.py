"""What a grid of runs will tell before it is paid for: the standard deviations of the exponents that it will give.

The loss is taken to follow an additive law, of a pilot study or assumed. Legend: n readings, p parameters.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dit.errors import InputError, check_number
from dit.fits.additive import AdditiveLaw, AdditiveProblem, fit_additive
from dit.fits.isoflop import fit_isoflop
from dit.fits.points import Points
from dit.fits.variance import components

Array = np.ndarray
DELTA = 1e-3  # of Huber's loss, as the report's primary fit has it
STEP = 1e-5  # of central differences
DRAWS = 2000  # of noise for the parabolas: their sd to 2 %
NODES = 80  # of Gauss-Hermite quadrature: the clipped normal's moments to 1 %
LOSS_NOISE = 1e-3  # assumed relative sd of a reading, and of what a run's readings share
BEYOND = 10.0  # times the largest budget: where the predicted loss is judged


@dataclass(frozen=True)
class Noise:
    """Relative standard deviations of a loss.

    Args:
        reading: of each reading by itself.
        run: of what all readings of a run share.
    """

    reading: float
    run: float

    def __post_init__(self) -> None:
        check_number("study.loss_noise", self.reading, low=0.0)
        check_number("study.run_noise", self.run, low=0.0)
        if self.reading == self.run == 0:
            raise InputError("study.loss_noise", 0, "a positive number here or in study.run_noise")


@dataclass(frozen=True)
class Expectation:
    """What a plan is judged by.

    Args:
        law: the loss of N multiply-adds per token and D images.
        noise: of the loss.
        source: where the two come from, in words.
        located: whether the law knows where the optimum lies; else only its exponents count.
    """

    law: AdditiveLaw
    noise: Noise
    source: str
    located: bool = True


@dataclass(frozen=True)
class Surface:
    """An additive law by what is known of it before a study.

    Args:
        alpha: exponent of the size term.
        beta: exponent of the data term.
        slope: -d ln L*/d ln C at the optimum.
        n_opt: expected best size in multiply-adds per token; None where unknown.
        at_flops: the compute at which it is best; None where unknown.
    """

    alpha: float
    beta: float
    slope: float
    n_opt: float | None = None
    at_flops: float | None = None

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "slope"):
            check_number(f"study.surface.{name}", getattr(self, name), above=0.0)
        if (self.n_opt is None) != (self.at_flops is None):
            raise InputError(
                "study.surface.n_opt, study.surface.at_flops", (self.n_opt, self.at_flops), "both or neither"
            )
        for name in ("n_opt", "at_flops"):
            if getattr(self, name) is not None:
                check_number(f"study.surface.{name}", getattr(self, name), above=0.0)
        if self.slope * (1 / self.alpha + 1 / self.beta) >= 1:
            raise InputError("study.surface.slope", self.slope, "below alpha beta / (alpha + beta)")

    def law(self, k: float, n_opt: float, at_flops: float) -> AdditiveLaw:
        """The law in units of its loss at the optimum of ``at_flops``, with C = k N D.

        There dL/dN = 0 along constant compute makes alpha A N^-alpha = beta B D^-beta = slope x L.
        """
        d = at_flops / (k * n_opt)
        a, b = self.slope / self.alpha, self.slope / self.beta
        return AdditiveLaw(1 - a - b, a * n_opt**self.alpha, self.alpha, b * d**self.beta, self.beta, k)


@dataclass(frozen=True)
class Outlook:
    """What a study is expected to find, as its configuration says.

    Args:
        surface: the law by its exponents, where there is no pilot.
        loss_noise: relative sd of a reading; None: the pilot's, or LOSS_NOISE.
        run_noise: relative sd of what readings of a run share; None: the same.
        pilot: directory of a study whose records give law and noise.
    """

    surface: Surface
    loss_noise: float | None = None
    run_noise: float | None = None
    pilot: str | None = None

    @property
    def is_located(self) -> bool:
        """Whether it says where the best size lies."""
        return self.pilot is not None or self.surface.n_opt is not None

    def expectation(self, tokens: int, centre: tuple[float, float] | None = None) -> Expectation:
        """Law and noise for images of that many tokens.

        Args:
            tokens: per image, so that C = 6 tokens N D.
            centre: where the best size is taken to lie if nothing else says it: (N, FLOPs).
        """
        if self.pilot is not None:
            found = from_pilot(self.pilot, tokens)
            measured = found.noise
        else:
            n_opt, at_flops = self.surface.n_opt, self.surface.at_flops
            source = f"assumed exponents alpha {self.surface.alpha:g}, beta {self.surface.beta:g}"
            if n_opt is None or at_flops is None:
                assert centre is not None, "an outlook without a place needs the grid's centre"
                (n_opt, at_flops), source = centre, source + ", the best size at the middle of the grid"
            measured = Noise(LOSS_NOISE, LOSS_NOISE)
            law = self.surface.law(6.0 * tokens, n_opt, at_flops)
            found = Expectation(law, measured, source, self.is_located)
        asked = (self.loss_noise, self.run_noise)
        kept = [
            known if value is None else value for value, known in zip(asked, (measured.reading, measured.run))
        ]
        return replace(found, noise=Noise(*kept))


def from_pilot(directory: str | Path, tokens: int) -> Expectation:
    """The law and the noise of another study's records.

    Raises:
        InputError: no usable records, another number of tokens per image, or points that carry no law.
    """
    return from_records(directory, tokens, "study.pilot")[0]


def from_records(directory: str | Path, tokens: int, key: str) -> tuple[Expectation, Points]:
    """The same, and the readings that it stands on; ``key`` is the setting that names the directory."""
    from dit.study.readings import collect
    from dit.study.records import load_study

    if not Path(directory).is_dir():
        raise InputError(key, str(directory), "the directory of a study")
    study = load_study(directory)
    measured = collect(study)
    if measured.tokens != tokens:
        got = f"({measured.tokens} tokens per image)"
        raise InputError(key, got, f"a study at {tokens} tokens per image")
    points = measured.for_fit()
    fit = fit_additive(points)
    problem = fit.problem(points)
    noise = components(problem.residual(fit), problem.jacobian(fit), points.runs)
    law = AdditiveLaw(fit.E, fit.A, fit.alpha, fit.B, fit.beta, fit.k)
    spread = Noise(math.sqrt(noise.reading), math.sqrt(noise.run))
    told = f"fitted to the {len(points)} readings of the {'pilot' if key == 'study.pilot' else 'study'}"
    if study.damaged:
        told += f", without what is damaged: {', '.join(study.damaged)}"
    return Expectation(law, spread, told), points


def forecast(points: Points, expected: Expectation) -> dict[str, Any]:
    """The standard deviations that a study of these points will give, as JSON values.

    Args:
        points: N, D, C, run and budget of every reading; their losses do not matter.
        expected: the law and the noise of the loss.

    Returns:
        ``additive`` (Huber, the report's primary fit: sd of a, alpha, beta, and relative of L* at ten times the
        largest budget) and ``isoflop`` (sd of a); None in place of one that the points do not carry, with the reason
        under ``additive_why_not`` and ``isoflop_why_not``. Beside them what was assumed.
    """
    law, noise = expected.law, expected.noise
    found: dict[str, Any] = {"source": expected.source, "loss_noise": noise.reading, "run_noise": noise.run}
    found["law"] = {name: float(getattr(law, name)) for name in ("E", "A", "alpha", "B", "beta", "a")}
    found["n_opt"] = {f"{c:.6g}": float(law.n_opt(c)) for c in points.budget_flops}
    for name, of in (("additive", _additive), ("isoflop", _isoflop)):
        try:
            found[name] = of(_measured(points, law), expected)
        except InputError as why:
            found[name], found[f"{name}_why_not"] = None, str(why)
    return found


def _measured(points: Points, law: AdditiveLaw) -> Points:
    loss = law.predict(points.get("n"), points.get("d"))
    return Points(loss, points.n, points.d, points.c, points.run, points.budget)


def _additive(points: Points, expected: Expectation) -> dict[str, float]:
    """Linearised M-estimation: theta's covariance is (J'J)^-1 J' S J (J'J)^-1 with S that of the clipped noise."""
    problem = AdditiveProblem(points, "huber", DELTA)
    law = expected.law
    theta, inverse = problem.to_theta(law), np.linalg.pinv(problem.jacobian(law))  # (p,), (p, n)
    root = inverse @ _cholesky(_clipped(points.runs, expected.noise))  # (p, n)
    moved = [problem.to_law(theta + sign * STEP * np.eye(len(theta))) for sign in (1, -1)]

    def sd(of: Callable[[Any], Array]) -> float:
        gradient = (of(moved[0]) - of(moved[1])) / (2 * STEP)
        return float(np.linalg.norm(gradient @ root))

    target = BEYOND * float(points.budget_flops[-1])
    return {
        "sd_a": sd(lambda x: x.a),
        "sd_alpha": sd(lambda x: x.alpha),
        "sd_beta": sd(lambda x: x.beta),
        "sd_loss_beyond": sd(lambda x: np.log(x.loss_opt(target))),
    }


def _isoflop(points: Points, expected: Expectation) -> dict[str, float]:
    """Parabolas and the line through their minima, of drawn noise: at .5 % they are no longer linear in it."""
    fit, noise = fit_isoflop(points), expected.noise
    rng = np.random.RandomState(0)
    shared = rng.standard_normal((DRAWS, int(points.runs.max()) + 1))[:, points.runs]
    drawn = noise.run * shared + noise.reading * rng.standard_normal((DRAWS, len(points)))
    refitted = fit.problem(points).refit(fit, np.ones((1, len(points))), points.loss * (1 + drawn))
    return {"sd_a": float(np.std(refitted.law.a[refitted.converged]))}


def clipped(noise: Noise) -> tuple[float, float]:
    """Covariance of Huber's influence clip(e, -delta, delta) / P(|e| < delta): of one reading, of two of a run."""
    total = math.hypot(noise.reading, noise.run)
    inside = math.erf(DELTA / (total * math.sqrt(2)))
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    weights = weights / weights.sum()

    def moment(correlation: float) -> float:
        other = correlation * nodes[:, None] + math.sqrt(1 - correlation**2) * nodes
        first, second = (np.clip(total * x, -DELTA, DELTA) for x in (nodes, other))
        return float(np.einsum("i,j,i,ij", weights, weights, first, second)) / inside**2

    return moment(1.0), moment(noise.run**2 / total**2)


def _clipped(runs: Array, noise: Noise) -> Array:
    """Covariance (n, n) of that influence on every reading."""
    own, shared = clipped(noise)
    return shared * _same_run(runs) + (own - shared) * np.eye(len(runs))


def _same_run(runs: Array) -> Array:
    return (runs[:, None] == runs).astype(float)


def _cholesky(covariance: Array) -> Array:
    """A root (n, n) of a covariance that may be singular: readings that share all of their noise."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0))
