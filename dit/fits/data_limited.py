"""The law of repeated data: L = E + A N'^-alpha + B D'^-beta, with effective N' and D' that saturate.

D' = U (1 + R_D (1 - exp(-(D/U - 1)/R_D))) for U unique samples seen D/U times, and likewise N' with R_N
beyond the size U_N that U would support at the best allocation. U is what was seen: at most D. With D = U and
N <= U_N the law is the additive one.

Source: Muennighoff et al. 2305.16264, equations 5 and 6. They fix the five other parameters from runs without
repetition, which ``fixed`` does here; by default all seven are fitted together, since a study may have no such runs.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dit.errors import InputError
from dit.fits import repeated
from dit.fits.additive import additive_equations, check_design
from dit.fits.losses import chosen
from dit.fits.points import Points
from dit.fits.restrict import Equation, Fixed, RestrictedProblem
from dit.fits.saturating import LN_R_D, MOST, Saturating, saturated
from dit.fits.search import Axis, Problem, Searched, search
from dit.fits.starts import STEEPEST, additive_starts

Array = np.ndarray
NAMES_OF = ("A", "alpha", "B", "beta", "E", "R_D", "R_N")
EPOCHS = (1.5, 6.0, 25.0, 100.0)  # starts of R_D and R_N; they count epochs, so they need no units
STARTS = 12
USUAL = 15.0  # R_D of language models (Muennighoff et al., section 6), about which data are centred
FEWEST_REPEATED = 2


@dataclass(frozen=True)
class DataLimitedLaw:
    """Parameters of the law of repeated data (scalars, or arrays with one entry per bootstrap draw).

    Args:
        E: irreducible loss.
        A: coefficient of the size term; alpha: its exponent.
        B: coefficient of the data term; beta: its exponent.
        R_D: repetitions after which data stops helping (e-folding).
        R_N: the same for size beyond what the unique data supports.
        k: FLOPs per N D.
        unique: unique samples of an allocation; without end where nothing is repeated.
        flops: compute at which the exponents a and b of the allocation are told.
    """

    E: Any
    A: Any
    alpha: Any
    B: Any
    beta: Any
    R_D: Any
    R_N: Any
    k: float
    unique: float = field(default=math.inf, kw_only=True)
    flops: float = field(default=math.inf, kw_only=True)

    @property
    def a(self) -> Any:
        """Exponent of N* at ``flops``: it falls or rises with compute where data are repeated (see repeated.py)."""
        return repeated.exponent(self, self.flops, self.unique)

    @property
    def b(self) -> Any:
        """Exponent of D* at ``flops``: 1 - a."""
        return 1 - self.a

    @property
    def turning_flops(self) -> Any:
        """Compute above which more unique data gain more than a larger network (see repeated.py)."""
        return repeated.turning_flops(self, self.unique)

    def n_opt(self, c: Any) -> Any:
        """Size N that is best for compute ``c`` (FLOPs) with ``unique`` samples."""
        return repeated.n_opt(self, c, self.unique)

    def d_opt(self, c: Any) -> Any:
        """Samples seen D that are best for compute ``c`` (FLOPs): ``unique`` of them seen D/U times."""
        return c / (self.k * self.n_opt(c))

    def loss_opt(self, c: Any) -> Any:
        """Loss at the best allocation of compute ``c`` (FLOPs)."""
        n = self.n_opt(c)
        return self.predict(n, c / (self.k * n))

    def flops_for(self, loss: Any) -> Any:
        """Compute (FLOPs) with which the best size reaches ``loss``; infinite where none does."""
        return repeated.flops_for(self, loss)

    def predict(self, n: Any, d: Any, unique: Any = None) -> Any:
        """Loss at size ``n``, ``d`` samples seen, ``unique`` of them different (the law's, unless given)."""
        unique = self.unique if unique is None else unique
        with np.errstate(all="ignore"):
            supported = (self.A * self.alpha / (self.B * self.beta)) ** (1 / self.alpha)
            log_unique = np.log(np.minimum(unique, d))
            log_size = np.minimum(np.log(n), np.log(supported) + self.beta / self.alpha * log_unique)
            size = log_size + _used(np.log(n) - log_size, self.R_N)
            data = log_unique + _used(np.log(d) - log_unique, self.R_D)
            return self.E + self.A * np.exp(-self.alpha * size) + self.B * np.exp(-self.beta * data)

    def predict_points(self, points: Points) -> Any:
        """Loss at the N, D and unique samples of points: (n,), or (R, n) for the draws of a bootstrap."""
        columns = (points.get("n"), points.get("d"), points.get("unique"))
        if not isinstance(self.E, np.ndarray):
            return self.predict(*columns)
        e, a, alpha, b, beta, r_d, r_n = (
            value[:, None] for value in (self.E, self.A, self.alpha, self.B, self.beta, self.R_D, self.R_N)
        )
        return DataLimitedLaw(e, a, alpha, b, beta, r_d, r_n, self.k).predict(*columns)

    def effective_data(self, d: Any, unique: Any = None) -> Any:
        """D': what ``d`` samples seen, ``unique`` of them different, are worth in samples that are all new."""
        unique = np.minimum(self.unique if unique is None else unique, d)
        return unique * np.exp(_used(np.log(d / unique), self.R_D))


@dataclass(frozen=True)
class DataLimitedFit(DataLimitedLaw):
    """A fitted law of repeated data.

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
        return data_limited_problem(points, self.searched.loss, self.searched.delta, self.fixed)


class DataLimitedProblem(Problem):
    """The law of repeated data on given points.

    Raises:
        InputError: no unique counts, too few points, or fewer than 2 points that repeat data.
    """

    terms, intercepts = ("A", "B", "E"), (0, 2, 4)

    def __init__(self, points: Points, loss: str, delta: float, n_fixed: int = 0) -> None:
        points = points.completed()
        log_n, log_d = np.log(points.get("n")), np.log(points.get("d"))
        log_u = np.minimum(np.log(points.get("unique")), log_d)
        check_design(log_n, log_d, len(NAMES_OF) - n_fixed)
        twice = int(np.sum(log_d > log_u + 1e-9))
        if twice < FEWEST_REPEATED:
            got, allowed = f"({twice} points with D above it)", "points that see their data more than once"
            raise InputError("columns.unique", got, allowed, "Use law=additive.")
        self.mean_n, self.k = float(log_n.mean()), points.k
        self.told = {"unique": float(points.get("unique").max()), "flops": float(points.get("c").max())}
        self.mean_d = float((log_u + _used(log_d - log_u, USUAL)).mean())  # of effective data: B varies least
        self.n, self.d, self.u = log_n - self.mean_n, log_d - self.mean_d, log_u - self.mean_d
        super().__init__(Saturating(self.n, self.d, self.u), np.log(points.loss), loss, delta)

    def starts(self) -> Array:
        """Starts (12, 7): of R_D and R_N on a grid and the two best additive starts on effective D, the best."""
        starts = []
        for r_d in EPOCHS[1:]:
            effective = self.u + _used(self.d - self.u, r_d)
            shift = effective.mean()
            base = additive_starts(self.n, effective - shift, np.exp(self.y), self.loss)[:2]
            base[:, 2] += base[:, 3] * shift
            starts += [np.append(row, np.log([r_d, r_n])) for r_n in EPOCHS for row in base]
        misses = np.abs(self.law.value(np.array(starts)) - self.y).sum(1)
        return np.array(starts)[np.argsort(misses, kind="stable")[:STARTS]]

    def lifted(self, theta: Array) -> Array:
        """As of any law; R_D and R_N start where their slope shows, too."""
        theta = super().lifted(theta)
        theta[LN_R_D:] = np.minimum(theta[LN_R_D:], np.log(EPOCHS[-1]))
        return theta

    def axes(self, law: Any) -> dict[str, Axis]:
        """alpha, beta, E, and R_D and R_N from a hundredth of an epoch to ten thousand."""
        steepest_n, steepest_d = STEEPEST / np.ptp(self.n), STEEPEST / np.ptp(self.d)
        low, high = float(np.log(1e-2)), float(np.log(1e4))
        return {
            "alpha": Axis(1, 1e-3 * steepest_n, steepest_n),
            "beta": Axis(3, 1e-3 * steepest_d, steepest_d),
            "E": self.level_axis(4),
            "R_D": Axis(5, low, high, log=True),
            "R_N": Axis(6, low, high, log=True),
        }

    def equations(self) -> dict[str, Equation]:
        """How the parameters follow from theta."""
        unit = np.eye(len(NAMES_OF))
        of_repetition = {"R_D": Equation(5, unit[5], log=True), "R_N": Equation(6, unit[6], log=True)}
        return additive_equations(self.mean_n, self.mean_d, len(NAMES_OF)) | of_repetition

    def to_law(self, theta: Array) -> DataLimitedLaw:
        """The law of rows ``theta`` (R, 7), with array fields (R,)."""
        log_a, alpha, log_b, beta, log_e, log_rd, log_rn = theta.T
        with np.errstate(over="ignore"):
            a, b = np.exp(log_a + alpha * self.mean_n), np.exp(log_b + beta * self.mean_d)
            r_d, r_n = np.exp(log_rd), np.exp(log_rn)
            return DataLimitedLaw(np.exp(log_e), a, alpha, b, beta, r_d, r_n, self.k, **self.told)

    def to_theta(self, law: DataLimitedLaw) -> Array:
        """Coordinates (7,) of a law with scalar fields."""
        log_a, log_b = np.log(law.A) - law.alpha * self.mean_n, np.log(law.B) - law.beta * self.mean_d
        return np.array([log_a, law.alpha, log_b, law.beta, np.log(law.E), np.log(law.R_D), np.log(law.R_N)])


def data_limited_problem(points: Points, loss: str, delta: float, fixed: Fixed = ()) -> Problem:
    """The law of repeated data on given points, some of its parameters fixed."""
    problem = DataLimitedProblem(points, loss, delta, len(fixed))
    return RestrictedProblem(problem, problem.equations(), fixed) if fixed else problem


def fit_data_limited(
    points: Points, loss: str = "huber", delta: float = 1e-3, fixed: Fixed = ()
) -> DataLimitedFit:
    """The law of repeated data's best optimum on these points, from 12 starts made of the data.

    Args:
        points: needs two of N, D and C, and the unique samples of each point.
        loss: huber, lad, mse_log or mse.
        delta: Huber's delta, in log loss.
        fixed: parameters that are not fitted, see ``restrict.checked``.

    Raises:
        InputError: an unknown loss, no unique counts, too few points, or no repetition in them.
    """
    loss = chosen(loss, delta)
    problem = data_limited_problem(points, loss, delta, fixed)
    theta, searched = search(problem)
    law = problem.to_law(theta[None])
    values = (law.E, law.A, law.alpha, law.B, law.beta, law.R_D, law.R_N)
    e, a, alpha, b, beta, r_d, r_n = (float(value[0]) for value in values)
    told = {"unique": law.unique, "flops": law.flops}
    return DataLimitedFit(e, a, alpha, b, beta, r_d, r_n, law.k, searched, fixed, **told)


def _used(gap: Array, limit: Any) -> Array:
    """Of a base that is used e^gap times, ln of how many uses that is worth, for R = ``limit``."""
    return saturated(np.expm1(np.minimum(gap, MOST)), limit).value
