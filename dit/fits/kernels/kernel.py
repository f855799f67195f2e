"""What a law says of itself, so that one search, one bootstrap and one allocation serve them all.

Legend: R rows (starts or draws), n points, p parameters, q regressors; theta are the optimiser's coordinates, x the
centred logarithms of the regressors. Every function takes x as q arrays that broadcast to (R, n).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dit.fits.newton import TINY, Law, Straight
from dit.fits.points import Points
from dit.fits.search import Axis
from dit.fits.starts import nonnegative

Array = np.ndarray
STEP = 1e-6  # of the differences that give the curvature
OVER = 600.0  # ln of a term beyond which a start is of no use


class Kernel(ABC):
    """A law of ln L in regressors of a point.

    Attributes:
        name: of ``law=``.
        parameters: what is reported, in order.
        exponent: the one of them, or of the allocation, that a study is made for.
        allocates: whether it is a law of N and D, which has a best N for given compute.
        terms: those of its coefficients that may vanish; intercepts: which coordinates are their logarithms.
    """

    name: str
    parameters: tuple[str, ...]
    exponent: str = "a"
    allocates: bool = True
    terms: tuple[str, ...] = ()
    intercepts: tuple[int, ...] = ()

    @abstractmethod
    def columns(self, points: Points) -> tuple[Array, ...]:
        """Logarithms of the regressors (n,) of points."""

    def at(self, log_n: Array, log_d: Array) -> tuple[Array, ...]:
        """Logarithms of the regressors at sizes and data."""
        return log_n, log_d

    @abstractmethod
    def value(self, theta: Array, x: Sequence[Array], centre: Sequence[float]) -> Array:
        """Ln L (R, n) for rows ``theta`` (R, p)."""

    @abstractmethod
    def slopes(self, theta: Array, x: Sequence[Array], centre: Sequence[float]) -> Array:
        """D ln L / d theta, (R, n, p)."""

    def shares(self, theta: Array, x: Sequence[Array]) -> list[Array]:
        """The share of L of each of ``terms``, arrays (R, n)."""
        return []

    @abstractmethod
    def starts(self, x: Sequence[Array], y: Array, centre: Sequence[float]) -> Array:
        """Starts (S, p) for losses with logarithms ``y`` (n,)."""

    @abstractmethod
    def read(self, theta: Array, centre: Sequence[float]) -> Array:
        """The parameters (..., number of parameters) at theta (..., p), in the units of the regressors."""

    def law(self, x: Sequence[Array], centre: Sequence[float]) -> Law:
        """What the optimiser works with: by default with curvature from differences of the slopes."""
        return Curve(self, x, centre)

    def axes(self, x: Sequence[Array], level: Callable[[int], Axis]) -> dict[str, Axis]:
        """The parameters that can be profiled; ``level`` makes the axis of a floor from its coordinate."""
        return {}


class Curve(Straight):
    """A kernel on given regressors as the optimiser sees it."""

    def __init__(self, kernel: Kernel, x: Sequence[Array], centre: Sequence[float]) -> None:
        self.kernel, self.x, self.centre = kernel, x, centre

    def value(self, theta: Array) -> Array:
        """Predicted ln L (R, n)."""
        with np.errstate(all="ignore"):  # a trial outside of the law's domain is refused by its objective
            return self.kernel.value(theta, self.x, self.centre)

    def value_and_shares(self, theta: Array) -> tuple[Array, Array]:
        """Predicted ln L (R, n), and theta itself, at which ``contract`` takes differences."""
        return self.value(theta), theta

    def shares(self, theta: Array) -> list[Array]:
        """The share of L of each term that may vanish."""
        return self.kernel.shares(theta, self.x)

    def jacobian(self, theta: Array) -> Array:
        """D ln L / d theta, (R, n, p)."""
        with np.errstate(all="ignore"):
            return self.kernel.slopes(theta, self.x, self.centre)

    def contract(self, shares: Array, first: Array, second: Array) -> tuple[Array, Array]:
        """Gradient (R, p) and Hessian (R, p, p) of sum rho at theta ``shares``; w rho', w rho'': (R, n)."""
        slopes = self.jacobian(shares)
        gradient = np.einsum("rn,rnp->rp", first, slopes)
        hessian = slopes.transpose(0, 2, 1) @ (second[..., None] * slopes)
        for j in range(shares.shape[1]):
            moved = shares.copy()
            moved[:, j] += STEP
            hessian[:, j] += (np.einsum("rn,rnp->rp", first, self.jacobian(moved)) - gradient) / STEP
        return gradient, 0.5 * (hessian + hessian.transpose(0, 2, 1))


def projected(log_terms: Array, y: Array) -> tuple[Array, Array]:
    """Ln of the best non-negative coefficients (M, K) of terms, and the sum of squared relative misses (M,).

    A coefficient that comes out zero is a thousandth of the loss, where it has a slope.

    Args:
        log_terms: (M, n, K) logarithms of the terms.
        y: (n,) or (M, n) logarithms of what they add up to.
    """
    ratio = np.exp(np.clip(log_terms - np.broadcast_to(y, log_terms.shape[:2])[..., None], -OVER, OVER))
    ratio = np.minimum(ratio, np.exp(OVER / 4))
    coefficient = nonnegative(ratio.transpose(0, 2, 1) @ ratio, ratio.sum(1))
    misses = 1 - np.einsum("mnk,mk->mn", ratio, coefficient)
    return np.log(np.maximum(coefficient, 1e-3 / np.maximum(ratio.mean(1), TINY))), (misses**2).sum(1)


def best_of_parts(cost: Array, part: Array) -> Array:
    """Positions of the cheapest cell of each part, cheapest first."""
    order = np.argsort(np.where(np.isfinite(cost), cost, np.inf), kind="stable")
    return order[np.sort(np.unique(part[order], return_index=True)[1])]


def mesh(*axes: Any) -> tuple[Array, ...]:
    """All combinations of the values of several axes, each as (M,)."""
    return tuple(grid.ravel() for grid in np.meshgrid(*axes, indexing="ij"))
