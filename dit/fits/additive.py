"""The additive law L(N, D) = E + A N^-alpha + B D^-beta ("approach 3") and the allocation it implies.

Source: Hoffmann et al. 2203.15556, section 3.3; Besiroglu et al. 2404.10102 for its objective.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dit.errors import InputError
from dit.fits import laws
from dit.fits.losses import chosen
from dit.fits.points import Points
from dit.fits.restrict import Equation, Fixed, RestrictedProblem
from dit.fits.search import Axis, Problem, Searched, search
from dit.fits.starts import STEEPEST, additive_starts

Array = np.ndarray
PARAMETERS = ("A", "alpha", "B", "beta", "E")


@dataclass(frozen=True)
class AdditiveLaw:
    """L = E + A N^-alpha + B D^-beta, and the allocation of compute C = k N D that it implies.

    Args:
        E: irreducible loss.
        A: coefficient of the size term, in the units of N; alpha: its exponent.
        B: coefficient of the data term, in the units of D; beta: its exponent.
        k: FLOPs per N D.

    The fields of a bootstrap are arrays with one entry per draw, and so is then every result.
    """

    E: Any
    A: Any
    alpha: Any
    B: Any
    beta: Any
    k: float

    @property
    def a(self) -> Any:
        """Exponent of N*(C): beta / (alpha + beta)."""
        return self.beta / (self.alpha + self.beta)

    @property
    def b(self) -> Any:
        """Exponent of D*(C): alpha / (alpha + beta) = 1 - a."""
        return self.alpha / (self.alpha + self.beta)

    @property
    def G(self) -> Any:
        """Coefficient of N* = G (C/k)^a: (alpha A / (beta B))^(1/(alpha + beta)); NaN without an optimum."""
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            return np.exp(np.log(self.alpha * self.A / (self.beta * self.B)) / (self.alpha + self.beta))

    def n_opt(self, c: Any) -> Any:
        """Size N that is best for compute ``c`` (FLOPs)."""
        return self.G * (c / self.k) ** self.a

    def d_opt(self, c: Any) -> Any:
        """Data D that is best for compute ``c`` (FLOPs)."""
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            return (c / self.k) ** self.b / self.G

    def loss_opt(self, c: Any) -> Any:
        """Loss at the best allocation of compute ``c`` (FLOPs)."""
        return self.predict(self.n_opt(c), self.d_opt(c))

    def predict(self, n: Any, d: Any) -> Any:
        """Loss at size ``n`` and data ``d``."""
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            return self.E + self.A * n ** (-self.alpha) + self.B * d ** (-self.beta)

    def predict_points(self, points: Points) -> Any:
        """Loss at the N and D of points: (n,), or (R, n) for the draws of a bootstrap."""
        n, d = points.get("n"), points.get("d")
        if not isinstance(self.E, np.ndarray):
            return self.predict(n, d)
        e, a, alpha, b, beta = (x[:, None] for x in (self.E, self.A, self.alpha, self.B, self.beta))
        return AdditiveLaw(e, a, alpha, b, beta, self.k).predict(n, d)


@dataclass(frozen=True)
class AdditiveFit(AdditiveLaw):
    """A fitted additive law.

    Args:
        searched: loss, objective, number of points, starts and how many agreed.
        fixed: parameters that were not fitted.
    """

    searched: Searched
    fixed: Fixed = ()

    @property
    def objective(self) -> float:
        """Sum of losses at the optimum (see Searched)."""
        return self.searched.objective

    def problem(self, points: Points) -> Problem:
        """This fit's optimisation problem on ``points``."""
        return additive_problem(points, self.searched.loss, self.searched.delta, self.fixed)


class AdditiveProblem(Problem):
    """The additive law on given points in centred ln N and ln D: theta = (ln A, alpha, ln B, beta, ln E).

    Raises:
        InputError: fewer points than parameters, or N and D that do not vary independently.
    """

    terms, intercepts = ("A", "B", "E"), (0, 2, 4)

    def __init__(self, points: Points, loss: str, delta: float, n_fixed: int = 0) -> None:
        points = points.completed()
        log_n, log_d = np.log(points.get("n")), np.log(points.get("d"))
        check_design(log_n, log_d, len(PARAMETERS) - n_fixed)
        self.mean_n, self.mean_d, self.k = float(log_n.mean()), float(log_d.mean()), points.k
        self.n, self.d = log_n - self.mean_n, log_d - self.mean_d
        super().__init__(laws.additive(self.n, self.d), np.log(points.loss), loss, delta)

    def starts(self) -> Array:
        """Starts (S, 5) made of the data."""
        return additive_starts(self.n, self.d, np.exp(self.y), self.loss)

    def axes(self, law: Any) -> dict[str, Axis]:
        """a, alpha, beta and E; exponents up to a term that falls by e^30 over the points."""
        steepest_n, steepest_d = STEEPEST / np.ptp(self.n), STEEPEST / np.ptp(self.d)
        return {
            "a": Axis(3, 0.01, 0.99, other=1),
            "alpha": Axis(1, 0.0, steepest_n),
            "beta": Axis(3, 0.0, steepest_d),
            "E": self.level_axis(4),
        }

    def equations(self) -> dict[str, Equation]:
        """How the parameters follow from theta."""
        return additive_equations(self.mean_n, self.mean_d, len(PARAMETERS))

    def to_law(self, theta: Array) -> AdditiveLaw:
        """The law of rows ``theta`` (R, 5), with array fields (R,)."""
        log_a, alpha, log_b, beta, log_e = theta.T
        with np.errstate(over="ignore"):
            a, b = np.exp(log_a + alpha * self.mean_n), np.exp(log_b + beta * self.mean_d)
        return AdditiveLaw(np.exp(log_e), a, alpha, b, beta, self.k)

    def to_theta(self, law: AdditiveLaw) -> Array:
        """Coordinates (5,) of a law with scalar fields."""
        log_a, log_b = np.log(law.A) - law.alpha * self.mean_n, np.log(law.B) - law.beta * self.mean_d
        return np.array([log_a, law.alpha, log_b, law.beta, np.log(law.E)])


def additive_equations(mean_n: float, mean_d: float, p: int) -> dict[str, Equation]:
    """Of A, alpha, B, beta and E in p parameters that begin with (ln A, alpha, ln B, beta, ln E), N and D centred."""
    unit = np.eye(p)
    return {
        "A": Equation(0, unit[0] + mean_n * unit[1], log=True),
        "alpha": Equation(1, unit[1], log=False),
        "B": Equation(2, unit[2] + mean_d * unit[3], log=True),
        "beta": Equation(3, unit[3], log=False),
        "E": Equation(4, unit[4], log=True),
    }


def additive_problem(points: Points, loss: str, delta: float, fixed: Fixed = ()) -> Problem:
    """The additive law on given points, some of its parameters fixed."""
    problem = AdditiveProblem(points, loss, delta, len(fixed))
    return RestrictedProblem(problem, problem.equations(), fixed) if fixed else problem


def fit_additive(points: Points, loss: str = "huber", delta: float = 1e-3, fixed: Fixed = ()) -> AdditiveFit:
    """The additive law's global optimum on these points, from 25 starts made of the data.

    Args:
        points: needs two of N, D and C (C = 6 N D fills in the third).
        loss: huber (of ln L, summed), lad (least absolute deviations of ln L, exact), mse_log, or mse (of L).
        delta: Huber's delta, in log loss.
        fixed: parameters that are not fitted, see ``restrict.checked``.

    Raises:
        InputError: an unknown loss, fewer points than parameters, N and D on one line (a single budget).
    """
    loss = chosen(loss, delta)
    problem = additive_problem(points, loss, delta, fixed)
    theta, searched = search(problem)
    law = problem.to_law(theta[None])
    e, a, alpha, b, beta = (float(x[0]) for x in (law.E, law.A, law.alpha, law.B, law.beta))
    return AdditiveFit(e, a, alpha, b, beta, law.k, searched, fixed)


def check_design(log_n: Array, log_d: Array, parameters: int) -> None:
    """Raises InputError unless ln N and ln D (n,) can tell that many parameters of a law in N and D apart."""
    if len(log_n) <= parameters:
        allowed = f"more points than the {parameters} parameters"
        raise InputError("data", f"({len(log_n)} points)", allowed)
    for key, values in (("columns.n", log_n), ("columns.d", log_d)):
        if len(np.unique(np.round(values, 6))) < 3:
            got = f"({len(np.unique(values))} different values)"
            raise InputError(key, got, "at least 3 different values", "An exponent needs them.")
    spread = np.linalg.svd(np.stack([log_n - log_n.mean(), log_d - log_d.mean()]), compute_uv=False)
    if spread[1] < 1e-2 * spread[0]:
        raise InputError(
            "data", "(one budget only: ln N and ln D lie on one line)", "points at two or more budgets",
            "One budget cannot tell the size term from the data term.",
        )  # fmt: skip
