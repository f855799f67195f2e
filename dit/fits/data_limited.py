"""The law of repeated data: L = E + A N'^-alpha + B D'^-beta, with effective N' and D' that saturate.

D' = U (1 + R_D (1 - exp(-(D/U - 1)/R_D))) for U unique samples seen D/U times, and likewise N' with R_N
beyond the size U_N that U would support at the best allocation. U is what was seen: at most D. With D = U and
N <= U_N the law is the additive one.

Source: Muennighoff et al. 2305.16264, equations 5 and 6. They fix the five other parameters from runs without
repetition, which ``fixed`` does here; by default all seven are fitted together, since a study may have no such runs.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dit.errors import InputError
from dit.fits.additive import additive_equations, check_design
from dit.fits.losses import chosen
from dit.fits.points import Points
from dit.fits.restrict import Equation, Fixed, RestrictedProblem
from dit.fits.search import Axis, Problem, Searched, search
from dit.fits.starts import STEEPEST, additive_starts

Array = np.ndarray
NAMES_OF = ("A", "alpha", "B", "beta", "E", "R_D", "R_N")
EPOCHS = (1.5, 6.0, 25.0, 100.0)  # starts of R_D and R_N; they count epochs, so they need no units
FEWEST_REPEATED = 2
MOST = 700.0  # ln of a number that is still one: a base used that often is used up, whatever R is
STEP = 1e-6  # of the differences that give the curvature


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
    """

    E: Any
    A: Any
    alpha: Any
    B: Any
    beta: Any
    R_D: Any
    R_N: Any
    k: float

    def predict(self, n: Any, d: Any, unique: Any) -> Any:
        """Loss at size ``n``, ``d`` samples seen, ``unique`` of them different."""
        with np.errstate(all="ignore"):
            supported = (self.A * self.alpha / (self.B * self.beta)) ** (1 / self.alpha)
            log_unique = np.log(np.minimum(unique, d))
            log_size = np.minimum(np.log(n), np.log(supported) + self.beta / self.alpha * log_unique)
            size = log_size + _saturated(np.log(n) - log_size, self.R_N)[0]
            data = log_unique + _saturated(np.log(d) - log_unique, self.R_D)[0]
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


class Saturating:
    """ln L of the law on points, in theta = (ln A, alpha, ln B, beta, ln E, ln R_D, ln R_N), N and D centred.

    Args:
        n: (points,) centred ln N.
        d: (points,) centred ln D.
        u: (points,) ln of unique samples, centred as ``d``, at most ``d``.
    """

    def __init__(self, n: Array, d: Array, u: Array) -> None:
        self.n, self.d, self.u = n, d, u

    def value(self, theta: Array) -> Array:
        """Predicted ln L (R, n) for parameters (R, 7)."""
        return self._terms(theta)[0]

    def shares(self, theta: Array) -> list[Array]:
        """Each term's share of L, three arrays (R, n)."""
        return self._terms(theta)[1]

    def value_and_shares(self, theta: Array) -> tuple[Array, Array]:
        """Predicted ln L (R, n), and theta itself, at which ``contract`` takes differences."""
        return self.value(theta), theta

    def jacobian(self, theta: Array) -> Array:
        """D ln L / d theta, (R, n, 7)."""
        _, (size_share, data_share, floor), size, data = self._terms(theta)
        alpha, beta = theta[:, 1:2], theta[:, 3:4]
        effective_n, size_slope, size_by_r, at_supported = size
        effective_d, data_by_r = data
        # N' moves with the supported size, which moves with A, alpha, B and beta
        pull = -alpha * size_share * size_slope
        supported = at_supported
        by_alpha = (1 / alpha - supported) / alpha
        by_beta = (self.u - 1 / beta) / alpha
        out = np.empty((*size_share.shape, 7))
        out[..., 0] = size_share + pull / alpha
        out[..., 1] = -effective_n * size_share + pull * by_alpha
        out[..., 2] = data_share - pull / alpha
        out[..., 3] = -effective_d * data_share + pull * by_beta
        out[..., 4] = floor
        out[..., 5] = -beta * data_share * data_by_r
        out[..., 6] = -alpha * size_share * size_by_r
        return out

    def contract(self, shares: Array, first: Array, second: Array) -> tuple[Array, Array]:
        """Gradient (R, 7) and Hessian (R, 7, 7) of sum rho at theta ``shares``; w rho', w rho'': (R, n)."""
        slopes = self.jacobian(shares)
        gradient = np.einsum("rn,rnp->rp", first, slopes)
        hessian = slopes.transpose(0, 2, 1) @ (second[..., None] * slopes)
        for j in range(7):
            step = np.zeros(7)
            step[j] = STEP
            hessian[:, j] += np.einsum("rn,rnp->rp", first, self.jacobian(shares + step) - slopes) / STEP
        return gradient, 0.5 * (hessian + hessian.transpose(0, 2, 1))

    def _terms(
        self, theta: Array
    ) -> tuple[Array, list[Array], tuple[Array, Array, Array, Array], tuple[Array, Array]]:
        log_a, alpha, log_b, beta, log_e, log_rd, log_rn = (theta[:, i : i + 1] for i in range(7))
        with np.errstate(all="ignore"):  # a trial with a negative exponent is refused by its objective
            supported = (log_a + np.log(alpha) - log_b - np.log(beta) + beta * self.u) / alpha
            base = np.minimum(self.n, supported)
            above, by_gap, by_rn = _saturated(self.n - base, np.exp(log_rn))
            repeated, _, by_rd = _saturated(self.d - self.u, np.exp(log_rd))
            size_slope = np.where(supported < self.n, 1 - by_gap, 0.0)
            size, data = base + above, self.u + repeated
            terms = [log_a - alpha * size, log_b - beta * data, log_e + 0 * size]
            top = np.maximum(np.maximum(terms[0], terms[1]), terms[2])
            shares = [np.exp(term - top) for term in terms]
            total = shares[0] + shares[1] + shares[2]
        return (
            top + np.log(total),
            [s / total for s in shares],
            (size, size_slope, by_rn, supported),
            (data, by_rd),
        )


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
        repeated = int(np.sum(log_d > log_u + 1e-9))
        if repeated < FEWEST_REPEATED:
            got, allowed = f"({repeated} points with D above it)", "points that see their data more than once"
            raise InputError("columns.unique", got, allowed, "Use law=additive.")
        self.mean_n, self.mean_d, self.k = float(log_n.mean()), float(log_d.mean()), points.k
        self.n, self.d, self.u = log_n - self.mean_n, log_d - self.mean_d, log_u - self.mean_d
        super().__init__(Saturating(self.n, self.d, self.u), np.log(points.loss), loss, delta)

    def starts(self) -> Array:
        """Starts (32, 7): for R_D and R_N on a grid, the two best additive starts on effective D."""
        starts = []
        for r_d in EPOCHS:
            effective = self.u + _saturated(self.d - self.u, np.array(r_d))[0]
            shift = effective.mean()
            base = additive_starts(self.n, effective - shift, np.exp(self.y), self.loss)[:2]
            base[:, 2] += base[:, 3] * shift
            starts += [np.append(row, np.log([r_d, r_n])) for r_n in EPOCHS for row in base]
        return np.array(starts)

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
            return DataLimitedLaw(np.exp(log_e), a, alpha, b, beta, np.exp(log_rd), np.exp(log_rn), self.k)

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
    """The law of repeated data's best optimum on these points, from 32 starts made of the data.

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
    return DataLimitedFit(e, a, alpha, b, beta, r_d, r_n, law.k, searched, fixed)


def _saturated(gap: Array, limit: Any) -> tuple[Array, Array, Array]:
    """ln(1 + R (1 - exp(-(e^gap - 1)/R))), and its slopes in the gap and in ln R.

    Args:
        gap: ln of how many times the base is used, >= 0.
        limit: R.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        extra = np.expm1(np.minimum(gap, MOST))
        left = np.exp(-extra / limit)
        used = 1 + limit * -np.expm1(-extra / limit)
        return (
            np.log(used),
            (1 + extra) * left / used,
            (limit * -np.expm1(-extra / limit) - extra * left) / used,
        )
