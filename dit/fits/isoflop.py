"""Approach 2: a parabola of the loss in ln N per budget, its minimum, and lines through the minima.

The parabola goes through the sizes within a factor ``window`` of the lowest loss, since a loss is no parabola in ln N
over a wide row; through the nearest FEWEST sizes where that are more. A budget whose lowest point is its first or last
size has no minimum and is rejected.

Source: Hoffmann et al. 2203.15556, section 3.2; the window of e^1.1: Porian et al. 2406.19146.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dit.errors import InputError, check_number
from dit.fits.allocation import AllocationLaw, lines
from dit.fits.lack import lack_of_fit
from dit.fits.points import Points
from dit.fits.search import Refitted

Array = np.ndarray
AT_LEAST = 4  # sizes per budget: a parabola through three points has no residual
FEWEST = 5  # sizes of a window, where the row has them: of four, one residual is left
WINDOW = float(np.exp(1.1))  # factor of N on either side of the lowest loss


@dataclass(frozen=True)
class Valley:
    """The parabola of one budget.

    Args:
        flops: the budget.
        n_points: how many points it has.
        sizes: how many different sizes among them.
        used: how many points lie in the window; widened: whether more sizes than those within its factor were needed.
        n_opt: size at the minimum; d_opt: data at the minimum (of the parabola in ln D).
        loss_opt: loss at the minimum.
        centre: mean ln N, about which ``coefficients`` (constant, linear, quadratic, in ln N) are written.
        coefficients: of the parabola in ln N.
        rms: root mean square of the relative misses in the window, on ``used`` - 3 degrees of freedom.
        p_value: of those misses by the noise of repeats, or of the other budgets' parabolas (see lack.py); NaN where
            there is nothing to compare.
        rejected: why the budget does not count; empty where it does.
    """

    flops: float
    n_points: int
    sizes: int
    used: int
    widened: bool
    n_opt: float
    d_opt: float
    loss_opt: float
    centre: float
    coefficients: tuple[float, float, float]
    rms: float
    p_value: float
    rejected: str = ""

    def at(self, n: Any) -> Any:
        """Loss of the parabola at size ``n``."""
        x = np.log(n) - self.centre
        return self.coefficients[0] + x * (self.coefficients[1] + x * self.coefficients[2])


@dataclass(frozen=True)
class IsoflopLaw(AllocationLaw):
    """Lines through the minima, and the minima themselves.

    Args:
        minima: (..., budgets, 3) N*, D* and L* of every budget; NaN where it was rejected.
    """

    minima: Array


@dataclass(frozen=True)
class IsoflopFit(IsoflopLaw):
    """Fitted isoFLOP parabolas.

    Args:
        valleys: one per budget, rejected ones included.
        n: number of points.
        window: factor of N about the lowest loss.
    """

    valleys: tuple[Valley, ...]
    n: int
    window: float

    def problem(self, points: Points) -> "IsoflopProblem":
        """This fit's problem on ``points``."""
        return IsoflopProblem(points, self.window)


class IsoflopProblem:
    """All parabolas on given points; resampling stays within budgets.

    Args:
        points: of two budgets or more.
        window: factor of N about the lowest loss; infinite for whole rows.

    Raises:
        InputError: one budget only, or no two budgets with enough sizes.
    """

    stratified = True
    resampling = "parametric"  # few sizes per budget: drawing among them often leaves no parabola

    def __init__(self, points: Points, window: float = WINDOW) -> None:
        points = points.completed()
        self.y, self.points, self.window = points.loss, points, window
        self.members = [np.flatnonzero(points.budgets == i) for i in range(len(points.budget_flops))]
        if len(self.members) < 2:
            got = f"(one budget only: {points.budget_flops[0]:.3g} FLOPs)"
            raise InputError(
                "data", got, "points at two or more budgets", "A line through minima needs them."
            )
        self.log_n, self.log_d = np.log(points.get("n")), np.log(points.get("d"))
        self.log_c = np.log(points.budget_flops)
        self.sizes = [len(np.unique(np.round(self.log_n[m], 9))) for m in self.members]
        self.wide = [sizes >= AT_LEAST for sizes in self.sizes]
        one = np.ones((1, len(self.y)))
        self.near = [self.within(m, one, self.y[None])[0] for m in self.members]
        scattered = points.budget_kind == "grouped" and sum(self.wide) < 0.5 * len(self.wide)
        if points.budget_kind == "binned" or scattered:
            got, allowed = "(compute is scattered)", "the column of budgets, or C within 10 % of one"
            if points.budget_kind == "grouped" and min(self.sizes) > 1:
                got, allowed = (
                    f"(budgets of {max(self.sizes)} sizes)",
                    f"{AT_LEAST} or more sizes at most budgets",
                )
            raise InputError("columns.budget", got, allowed, "Or law=additive, which needs no budgets.")

    def within(self, member: Array, weights: Array, y: Array) -> Array:
        """(R, m) which points of a budget lie in the window, for rows of weights (R, n) and losses (R, n)."""
        return window_of(self.log_n[member], y[:, member], weights[:, member] > 0, self.window)

    def parabola(self, log_x: Array, member: Array, weights: Array, y: Array) -> tuple[Array, Array]:
        """Coefficients (R, 3) in ln x about its mean, and the abscissa of the minimum (R,), NaN without one.

        ``weights`` (R, m) are those of the budget's points.

        There is none where the curve is not convex or turns outside of the sizes trained.
        """
        x = log_x[member] - log_x[member].mean()
        design, w = np.stack([np.ones_like(x), x, x * x], 1), weights
        gram = np.einsum("rm,mi,mj->rij", w, design, design)
        moment = np.einsum("rm,rm,mi->ri", w, np.broadcast_to(y[:, member], w.shape), design)
        singular = np.linalg.cond(gram) > 1e12
        gram[singular] = np.eye(3)
        c = np.where(singular[:, None], np.nan, np.linalg.solve(gram, moment[..., None])[..., 0])
        with np.errstate(invalid="ignore", divide="ignore"):
            lowest = -c[:, 1] / (2 * c[:, 2])
            inside = (c[:, 2] > 0) & (lowest > x.min()) & (lowest < x.max())
        return c, np.where(inside, lowest, np.nan) + log_x[member].mean()

    def minima(self, weights: Array, y: Array) -> Array:
        """(R, budgets, 3) N*, D* and L* for rows of weights (R, n) and losses (R, n); NaN where there is none."""
        minima = np.full((len(weights), len(self.members), 3), np.nan)
        for i, member in enumerate(self.members):
            if not self.wide[i]:
                continue
            near = weights[:, member] * self.within(member, weights, y)
            c, log_n = self.parabola(self.log_n, member, near, y)
            log_d = self.parabola(self.log_d, member, near, y)[1]
            lowest = c[:, 0] - c[:, 1] ** 2 / (4 * c[:, 2])
            minima[:, i] = np.stack([np.exp(log_n), np.exp(log_d), lowest], 1)
        return minima

    def through(self, minima: Array) -> IsoflopLaw:
        """Lines through minima (R, budgets, 3), budgets with a NaN left out."""
        use = np.asarray(np.isfinite(minima).all(2))
        with np.errstate(invalid="ignore"):
            fitted = [lines(self.log_c, np.log(minima[..., j]), use) for j in range(3)]
        return IsoflopLaw(*fitted[0], *fitted[1], *fitted[2], minima)

    def refit(self, law: Any, weights: Array, y: Array) -> Refitted:
        """Parabolas and lines of each row of weights (R or 1, n) and losses (R or 1, n).

        Budgets that ``law`` (the fit to all points) rejected stay out.
        """
        rows = max(len(weights), len(y))
        minima = self.minima(
            np.broadcast_to(weights, (rows, len(self.y))), np.broadcast_to(y, (rows, len(self.y)))
        )
        minima[:, np.isnan(law.minima[:, 0])] = np.nan
        found = self.through(minima)
        return Refitted(found, np.isfinite(found.a), 0)

    def fitted(self) -> Array:
        """Losses (n,) of the parabolas, those of rejected budgets included; outside of a window the measured ones."""
        design = self._design()
        return design @ (np.linalg.pinv(design) @ self.y)

    def residual(self, law: Any) -> Array:
        """Misses (n,) of the parabolas, relative to the loss."""
        return self.y / self.fitted() - 1

    def noisy(self, law: Any, noise: Array) -> Array:
        """Losses (R, n) of the parabolas with relative ``noise`` (R, n)."""
        return self.fitted() * (1 + noise)

    def jacobian(self, law: Any) -> Array:
        """(n, 3 budgets + points outside) relative slopes of the losses in the coefficients."""
        return self._design() / self.fitted()[:, None]

    def _design(self) -> Array:
        """Columns of the parabolas, and one of its own for each point outside of its window: it has no residual."""
        out, outside = np.zeros((len(self.y), 3 * len(self.members))), []
        for i, (member, near) in enumerate(zip(self.members, self.near)):
            x = self.log_n[member] - self.log_n[member].mean()
            out[member[near], 3 * i : 3 * i + 3] = np.stack([np.ones_like(x), x, x * x], 1)[near]
            outside += list(member[~near])
        return np.concatenate([out, np.eye(len(self.y))[:, outside]], 1)


def window_of(log_n: Array, loss: Array, present: Array, window: float = WINDOW) -> Array:
    """(R, m) which points lie within a factor ``window`` of the N of lowest loss, or are of the FEWEST nearest sizes.

    Args:
        log_n: (m,) ln N.
        loss: (R, m) losses.
        present: (R, m) which points there are.
        window: factor of N.
    """
    sizes, of = np.unique(np.round(log_n, 9), return_inverse=True)
    centre = log_n[np.argmin(np.where(present, loss, np.inf), axis=1)][:, None]
    there = np.stack([present[:, of == i].any(1) for i in range(len(sizes))], 1)
    apart = np.sort(np.where(there, np.abs(sizes - centre), np.inf), axis=1)
    enough = apart[:, min(FEWEST, len(sizes)) - 1][:, None]
    return present & (np.abs(log_n - centre) <= np.maximum(np.log(window), enough) + 1e-8)


def fit_isoflop(points: Points, window: float = WINDOW) -> IsoflopFit:
    """Parabolas per budget and the lines N*(C), D*(C), L*(C) through the minima of those that have one.

    Args:
        points: needs two of N, D and C; budgets are given or read off C.
        window: factor of N about the lowest loss through which each parabola goes; infinite for whole rows.

    Raises:
        InputError: one budget only; fewer than two budgets with a minimum inside their sizes; a window below 1.
    """
    if window != np.inf:
        check_number("window", window, above=1.0)
    problem = IsoflopProblem(points, window)
    every = problem.minima(np.ones_like(problem.y[None]), problem.y[None])[0]
    reasons = [_rejected(problem, i, every[i]) for i in range(len(problem.members))]
    minima = every[None].copy()
    minima[0, [bool(reason) for reason in reasons]] = np.nan
    if np.isfinite(minima[0, :, 0]).sum() < 2:
        listed = "; ".join(f"{c:.3g} FLOPs: {r}" for c, r in zip(problem.points.budget_flops, reasons) if r)
        edges = all(reasons) and any(problem.wide)
        raise InputError(
            "data", f"({listed})", "two or more budgets with a minimum inside their sizes",
            "All optima at the edge: train smaller or larger models at these budgets." if edges else "",
        )  # fmt: skip
    judged = lack_of_fit(problem.residual(None), problem.points, problem.members, problem.near)
    valleys = tuple(_valley(problem, i, every[i], *judged[i], reasons[i]) for i in range(len(reasons)))
    law = problem.through(minima)
    scalars = (law.n_coefficient, law.a, law.d_coefficient, law.b, law.loss_coefficient, law.loss_exponent)
    n, a, d, b, level, exponent = (float(value[0]) for value in scalars)
    return IsoflopFit(n, a, d, b, level, exponent, minima[0], valleys, len(points), window)


def _rejected(problem: IsoflopProblem, i: int, minimum: Array) -> str:
    member = problem.members[i]
    if not problem.wide[i]:
        return f"fewer than {AT_LEAST} sizes"
    order = member[np.argsort(problem.log_n[member], kind="stable")]
    lowest = int(np.argmin(problem.y[order]))
    if lowest in (0, len(order) - 1):
        return f"its best size is the {'smallest' if lowest == 0 else 'largest'} trained"
    return "" if np.isfinite(minimum).all() else "its parabola has no minimum inside the sizes trained"


def _valley(
    problem: IsoflopProblem, i: int, minimum: Array, rms: float, p_value: float, rejected: str
) -> Valley:
    member, near = problem.members[i], problem.near[i]
    c = (np.nan, np.nan, np.nan)
    if problem.wide[i]:
        found = problem.parabola(problem.log_n, member, near[None].astype(float), problem.y[None])[0][0]
        c = (float(found[0]), float(found[1]), float(found[2]))
    n, d, loss = (float(value) for value in minimum)
    used = problem.log_n[member[near]]
    apart = np.abs(used - problem.log_n[member[np.argmin(problem.y[member])]]).max()
    widened = bool(apart > np.log(problem.window) + 1e-8)
    return Valley(
        float(problem.points.budget_flops[i]), len(member), problem.sizes[i], len(used), widened, n, d, loss,
        float(problem.log_n[member].mean()), c, rms, p_value, rejected,
    )  # fmt: skip
