"""A kernel fitted to points: the law, its allocation, and the problem behind it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dit.errors import InputError
from dit.fits.additive import check_design
from dit.fits.kernels.broken_power import BrokenPower
from dit.fits.kernels.farseer import Farseer
from dit.fits.kernels.kaplan import Kaplan
from dit.fits.kernels.kernel import Kernel
from dit.fits.kernels.width_depth import WidthDepth
from dit.fits.losses import chosen
from dit.fits.optimum import minimise
from dit.fits.points import Points
from dit.fits.search import Axis, Problem, Searched, search

Array = np.ndarray
BEYOND = 7.0  # how far N* is looked for below and above the sizes trained, in ln N
CELLS = 129  # of that range; the best is refined by sections
SECTIONS = 36
NEAR = 100  # Newton steps towards least squares
GOLDEN = (5**0.5 - 1) / 2

KERNELS: dict[str, Callable[[Points], Kernel]] = {
    "kaplan": lambda points: Kaplan(),
    "farseer": Farseer,
    "broken_power": BrokenPower,
    "width_depth": lambda points: WidthDepth(points, with_size=False),
    "width_depth_size": lambda points: WidthDepth(points, with_size=True),
}


@dataclass(frozen=True, eq=False)
class KernelLaw:
    """A law of a kernel; its parameters are attributes.

    Args:
        kernel: which.
        theta: (p,) the optimiser's coordinates, or (R, p) of the draws of a bootstrap.
        centre: means of the logarithms of the regressors, about which theta is written.
    """

    kernel: Kernel
    theta: Array
    centre: tuple[float, ...]

    def __getattr__(self, name: str) -> Any:
        """The parameter of that name: a scalar, or (R,)."""
        if name.startswith("_") or name not in self.kernel.parameters:
            raise AttributeError(name)
        return self._parameters[..., self.kernel.parameters.index(name)]

    @property
    def x(self) -> str:
        """Of a law of one variable: which of C, N and D it is (c, n or d)."""
        return self.kernel.x  # type: ignore[attr-defined]

    @cached_property
    def _parameters(self) -> Array:
        return self.kernel.read(self.theta, self.centre)

    def log_loss(self, columns: Any) -> Array:
        """Ln L (R, n) at logarithms of the regressors that broadcast to (R, n)."""
        x = [column - mean for column, mean in zip(columns, self.centre)]
        with np.errstate(all="ignore"):
            return self.kernel.value(np.atleast_2d(self.theta), x, self.centre)

    def predict_points(self, points: Points) -> Array:
        """Loss at points: (n,), or (R, n) for the draws of a bootstrap."""
        found = np.exp(self.log_loss(self.kernel.columns(points)))
        return found if self.theta.ndim == 2 else found[0]


@dataclass(frozen=True, eq=False)
class AllocatedLaw(KernelLaw):
    """A law of N and D, with the best N for given compute found by search.

    Args:
        k: FLOPs per N D.
        span: ln of the smallest and the largest N, and of the largest compute, of the points.
    """

    k: float
    span: tuple[float, float, float]

    def n_opt(self, c: Any) -> Any:
        """Size N that is best for compute ``c`` (FLOPs, scalar or array); NaN where the loss has no minimum there."""
        if np.ndim(c):
            return np.stack([self.n_opt(float(one)) for one in np.ravel(c)], -1)
        c = float(c)
        if c not in self._found:
            self._found[c] = self._search(c)
        found = np.exp(self._found[c])
        return found if self.theta.ndim == 2 else found[0]

    def d_opt(self, c: Any) -> Any:
        """Data D that is best for compute ``c`` (FLOPs)."""
        return c / (self.k * self.n_opt(c))

    def loss_opt(self, c: Any) -> Any:
        """Loss at the best allocation of compute ``c`` (FLOPs)."""
        n = self.n_opt(c)
        return self.predict(n, c / (self.k * n))

    def predict(self, n: Any, d: Any) -> Any:
        """Loss at size ``n`` and data ``d`` (scalars, or one per draw)."""
        n, d = (np.atleast_1d(np.asarray(one, float)) for one in (n, d))
        found = np.exp(self.log_loss(self.kernel.at(np.log(n)[:, None], np.log(d)[:, None])))[:, 0]
        return found if self.theta.ndim == 2 else found[0]

    @property
    def a(self) -> Any:
        """Slope of ln N* in ln C at the largest compute of the points, over a factor e of it."""
        c = float(np.exp(self.span[2]))
        with np.errstate(all="ignore"):
            return np.log(self.n_opt(c * np.exp(0.5)) / self.n_opt(c * np.exp(-0.5)))

    @property
    def b(self) -> Any:
        """Slope of ln D* in ln C there: 1 - a."""
        return 1 - self.a

    @cached_property
    def _found(self) -> dict[float, Array]:
        return {}

    def _search(self, c: float) -> Array:
        """Ln N* (R,): the lowest valley of a grid in ln N, refined by golden sections.

        A valley, since far from the sizes trained some laws fall without end.
        """
        total = np.log(c / self.k)
        low, high = self.span[0] - BEYOND, self.span[1] + BEYOND + max(0.0, np.log(c) - self.span[2])

        def loss(u: Array) -> Array:
            return self.log_loss(self.kernel.at(u, total - u))

        grid = np.linspace(low, high, CELLS)
        values = loss(grid[None])
        valley = (values[:, 1:-1] < values[:, :-2]) & (values[:, 1:-1] <= values[:, 2:])
        best = 1 + np.argmin(np.where(valley, values[:, 1:-1], np.inf), axis=1)
        left, right = grid[best - 1], grid[best + 1]
        for _ in range(SECTIONS):
            one, other = right - GOLDEN * (right - left), left + GOLDEN * (right - left)
            lower = loss(one[:, None])[:, 0] < loss(other[:, None])[:, 0]
            left, right = np.where(lower, left, one), np.where(lower, other, right)
        return np.where(valley.any(1), 0.5 * (left + right), np.nan)


@dataclass(frozen=True, eq=False)
class KernelFit(KernelLaw):
    """A fitted kernel; ``searched`` tells how it was found, ``fixed`` that nothing was given."""

    searched: Searched
    fixed: tuple[()] = ()

    @property
    def objective(self) -> float:
        """Sum of losses at the optimum (see Searched)."""
        return self.searched.objective

    def problem(self, points: Points) -> "KernelProblem":
        """This fit's optimisation problem on ``points``."""
        return KernelProblem(self.kernel, points, self.searched.loss, self.searched.delta, self.centre)


@dataclass(frozen=True, eq=False)
class AllocatedFit(AllocatedLaw):
    """The same of a law of N and D."""

    searched: Searched
    fixed: tuple[()] = ()
    objective, problem = KernelFit.objective, KernelFit.problem


class KernelProblem(Problem):
    """A kernel on given points.

    Raises:
        InputError: too few points, or regressors that do not vary.
    """

    def __init__(
        self, kernel: Kernel, points: Points, loss: str, delta: float, centre: tuple[float, ...] | None = None
    ) -> None:
        points = points.completed()
        columns = kernel.columns(points)
        if kernel.allocates:
            check_design(np.log(points.get("n")), np.log(points.get("d")), len(kernel.parameters))
            self.span = (
                *np.log([points.get("n").min(), points.get("n").max()]),
                np.log(points.get("c").max()),
            )
            self.k = points.k
        distinct = min(len(np.unique(np.round(one, 9))) for one in columns)
        needed = 3 if len(columns) > 1 else len(kernel.parameters) + 1
        if distinct < needed or len(points) <= len(kernel.parameters):
            got = f"({len(points)} points, {distinct} different values)"
            parameters = f"the {len(kernel.parameters)} parameters of {kernel.name}"
            allowed = f"more points than {parameters}, {needed} values or more"
            raise InputError("data", got, allowed)
        self.kernel, self.terms, self.intercepts = kernel, kernel.terms, kernel.intercepts
        self.centre = centre or tuple(float(one.mean()) for one in columns)
        self.x = [one - mean for one, mean in zip(columns, self.centre)]
        super().__init__(kernel.law(self.x, self.centre), np.log(points.loss), loss, delta)

    def starts(self) -> Array:
        """The kernel's, brought near by least squares of ln L: other losses have curvature at few points only."""
        starts = self.kernel.starts(self.x, self.y, self.centre)
        found = minimise(self.law, "mse_log", 1.0, self.y, np.ones((1, len(self.y))), starts, None, NEAR)
        return np.where(np.isfinite(found.objective)[:, None], found.theta, starts)

    def axes(self, law: Any) -> dict[str, Axis]:
        """The kernel's."""
        return self.kernel.axes(self.x, self.level_axis)

    def to_law(self, theta: Array) -> KernelLaw:
        """The law of rows ``theta`` (R, p)."""
        if self.kernel.allocates:
            return AllocatedLaw(self.kernel, theta, self.centre, self.k, self.span)
        return KernelLaw(self.kernel, theta, self.centre)

    def to_theta(self, law: Any) -> Array:
        """Coordinates (p,) of a fit on these points."""
        return law.theta


def fit_kernel(
    points: Points, name: str, loss: str = "huber", delta: float = 1e-3
) -> KernelFit | AllocatedFit:
    """The kernel's best optimum on these points.

    Args:
        points: with the columns that the kernel is a law of.
        name: of KERNELS.
        loss: huber, lad, mse_log or mse.
        delta: Huber's delta, in log loss.

    Raises:
        InputError: a missing column, too few points.
    """
    loss = chosen(loss, delta)
    points = points.completed()
    problem = KernelProblem(KERNELS[name](points), points, loss, delta)
    theta, searched = search(problem)
    law = problem.to_law(theta)
    if isinstance(law, AllocatedLaw):
        return AllocatedFit(law.kernel, theta, law.centre, law.k, law.span, searched)
    return KernelFit(law.kernel, theta, law.centre, searched)
