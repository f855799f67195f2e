"""Power laws in one variable, with and without a floor: L(C), FID(C), N*(C).

Source: the two-parameter form of 2410.08184 (L = 2.3943 C^-.0273) and its three-parameter form with a floor E.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dit.errors import InputError
from dit.fits import laws
from dit.fits.losses import chosen
from dit.fits.points import Points
from dit.fits.search import Axis, Problem, Searched, search
from dit.fits.starts import STEEPEST, power_floor_starts

Array = np.ndarray


@dataclass(frozen=True)
class PowerLaw:
    """y = floor + coefficient x^exponent.

    Args:
        coefficient: in the units of x and y.
        exponent: signed: negative where y falls.
        floor: what is left at infinite x; 0 for the law without a floor.
    """

    coefficient: Any
    exponent: Any
    floor: Any = 0.0

    def at(self, x: Any) -> Any:
        """The law's value at ``x``."""
        with np.errstate(over="ignore", invalid="ignore"):
            return self.floor + self.coefficient * x**self.exponent

    def predict_points(self, points: Points) -> Any:
        """The law at the regressor of points: (n,), or (R, n) for the draws of a bootstrap."""
        x = regressor(points)[1]
        if not isinstance(self.coefficient, np.ndarray):
            return self.at(x)
        floor = self.floor[:, None] if isinstance(self.floor, np.ndarray) else self.floor
        return PowerLaw(self.coefficient[:, None], self.exponent[:, None], floor).at(x)


@dataclass(frozen=True)
class PowerFit(PowerLaw):
    """A fitted power law.

    Args:
        x: which of C, N and D it runs over (c, n or d).
        searched: loss, objective, number of points, starts and how many agreed.
        stderr: standard error of the exponent of a straight line through ln x and ln y by least squares (NaN
            with a floor).
        correlation: of y with log10 x.
    """

    x: str = "c"
    searched: Searched | None = None
    stderr: float = float("nan")
    correlation: float = float("nan")

    @property
    def objective(self) -> float:
        """Sum of losses at the optimum (see Searched)."""
        assert self.searched is not None
        return self.searched.objective

    def problem(self, points: Points) -> "PowerProblem":
        """This fit's optimisation problem on ``points``."""
        assert self.searched is not None
        return PowerProblem(points, len(self.searched.terms) == 2, self.searched.loss, self.searched.delta)


class PowerProblem(Problem):
    """The power law on given points in centred ln x: theta = (ln K, p), and ln E where there is a floor.

    Raises:
        InputError: no regressor, or fewer different values of it than parameters.
    """

    def __init__(self, points: Points, floor: bool, loss: str, delta: float) -> None:
        self.terms, self.intercepts = (("K", "E"), (0, 2)) if floor else (("K",), (0,))
        self.name, x = regressor(points)
        self.floor, self.mean = floor, float(np.log(x).mean())
        self.x = np.log(x) - self.mean
        needed = 3 if floor else 2
        distinct = len(np.unique(np.round(self.x, 9)))
        if distinct <= needed or len(x) <= needed:
            got = f"({len(x)} points, {distinct} different values)"
            raise InputError("data", got, f"more than the {needed} parameters of the law")
        law = laws.power_floor(self.x) if floor else laws.power(self.x)
        super().__init__(law, np.log(points.loss), loss, delta)

    def starts(self) -> Array:
        """Starts (S, p): least squares in ln y, other exponents through its centre; a grid with a floor."""
        if self.floor:
            return power_floor_starts(self.x, np.exp(self.y), self.loss)
        slope = -(self.x @ self.y) / (self.x @ self.x)
        return np.array([[self.y.mean(), slope * factor] for factor in (1.0, 0.5, 2.0, 0.0)])

    def axes(self, law: Any) -> dict[str, Axis]:
        """The exponent, and the floor where there is one."""
        steepest = STEEPEST / np.ptp(self.x)
        exponent = {"exponent": Axis(1, -steepest, steepest, falling=True)}
        return {**exponent, "floor": self.level_axis(2)} if self.floor else exponent

    def to_law(self, theta: Array) -> PowerLaw:
        """The law of rows ``theta`` (R, p), with array fields (R,)."""
        with np.errstate(over="ignore"):
            coefficient = np.exp(theta[:, 0] + theta[:, 1] * self.mean)
        return PowerLaw(coefficient, -theta[:, 1], np.exp(theta[:, 2]) if self.floor else 0.0)

    def to_theta(self, law: PowerLaw) -> Array:
        """Coordinates (p,) of a law with scalar fields."""
        theta = [np.log(law.coefficient) + law.exponent * self.mean, -law.exponent]
        return np.array([*theta, np.log(law.floor)] if self.floor else theta)


def fit_power(points: Points, floor: bool = False, loss: str = "huber", delta: float = 1e-3) -> PowerFit:
    """The power law of the loss over compute (or over the one of C, N, D that the points have).

    Args:
        points: losses (or distances) and a regressor.
        floor: whether a constant is added.
        loss: huber, lad, mse_log (least squares in ln y) or mse.
        delta: Huber's delta, in log loss.

    Raises:
        InputError: an unknown loss, no regressor, fewer points than parameters.
    """
    loss = chosen(loss, delta)
    problem = PowerProblem(points, floor, loss, delta)
    theta, searched = search(problem)
    law = problem.to_law(theta[None])
    stderr = float("nan") if floor else _stderr(problem)
    correlation = float(np.corrcoef(problem.x, points.loss)[0, 1])
    level = float(law.floor[0]) if floor else 0.0
    return PowerFit(
        float(law.coefficient[0]), float(law.exponent[0]), level, problem.name, searched, stderr, correlation
    )


def regressor(points: Points) -> tuple[str, Array]:
    """Name and values of what a power law runs over: C where it is known, else the one of N and D given."""
    if points.c is not None:
        return "c", points.c
    given = [(name, value) for name in ("n", "d") if (value := getattr(points, name)) is not None]
    if len(given) == 1:
        return given[0]
    raise InputError("columns.c", None, "the column of compute (or exactly one of columns.n and columns.d)")


def _stderr(problem: PowerProblem) -> float:
    from scipy.stats import linregress  # half a second that no other law needs

    line: Any = linregress(problem.x, problem.y)
    return float(line.stderr)
