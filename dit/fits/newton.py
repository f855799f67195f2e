"""Damped Newton on many fits at once.

Legend: R rows fitted side by side, n points, p parameters, q free directions. Each row has its own weights
(bootstrap multiplicities) and may have its own data; rows leave the batch as they converge.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dit.fits.losses import Loss

Array = np.ndarray
FLAT = 1e-9  # converged: the gradient against the sum of its absolute parts
NEARLY_FLAT = 1e-6  # converged too where rounding hides any further decrease (a kink of Huber's loss)
STALLED = 1e11  # damping at which no step lowers the objective any more
TINY = np.finfo(float).tiny  # in place of what is zero and divides, or has a logarithm


class Law(Protocol):
    """What the optimiser asks of a law: values, slopes, and sums of slopes and curvatures over points."""

    @property
    def scaled(self) -> bool:
        """Whether steps are measured by how far they move ln L at the points, instead of in the parameters."""
        ...

    def value(self, theta: Array) -> Array:
        """Predicted ln L (R, n) for parameters (R, p)."""
        ...

    def value_and_shares(self, theta: Array) -> tuple[Array, Any]:
        """Predicted ln L (R, n), and what ``contract`` wants to know of it."""
        ...

    def shares(self, theta: Array) -> list[Array]:
        """Each term's share of L, arrays (R, n)."""
        ...

    def jacobian(self, theta: Array) -> Array:
        """D ln L / d theta, (R, n, p)."""
        ...

    def contract(self, shares: Any, first: Array, second: Array) -> tuple[Array, Array]:
        """Gradient (R, p) and Hessian (R, p, p) of sum rho, given w rho' and w rho'' (R, n)."""
        ...

    def moved(self, theta: Array, step: Array) -> Array:
        """Where a step (R, p) from ``theta`` (R, p) leads, straight or along a curve that begins with it."""
        ...


class Straight:
    """The steps of most laws: measured in the parameters, and straight."""

    @property
    def scaled(self) -> bool:
        """No."""
        return False

    def moved(self, theta: Array, step: Array) -> Array:
        """Parameters (R, p) after a step (R, p)."""
        return theta + step


@dataclass(frozen=True)
class Minimum:
    """Optima of R rows: parameters (R, p), reported objective (R,), converged (R,), iterations used."""

    theta: Array
    objective: Array
    converged: Array
    iterations: int


@np.errstate(over="ignore", invalid="ignore")  # a wild trial step is refused by its objective
def newton(
    law: Law, loss: Loss, y: Array, w: Array, theta: Array, max_iterations: int, basis: Array | None = None
) -> Minimum:
    """Levenberg-damped Newton with the exact Hessian, negative curvature turned round, row by row.

    A row has converged when its gradient is FLAT, or when the next full step would lower the objective by
    less than 1e-15 of it.

    Args:
        law: the law on the n points.
        loss: its derivatives in ln L.
        y: (R, n) measured ln L.
        w: (R, n) weights.
        theta: (R, p) starts.
        max_iterations: steps per row.
        basis: (R, p, q) directions each row may move in; all of them where it is absent.
    """
    theta = theta.copy()
    done, damping = np.zeros(len(theta), bool), np.full(len(theta), 1e-3)
    value, gradient, hessian, size = _derivatives(law, loss, y, w, theta, basis)
    curvature, vectors, along = np.empty_like(gradient), np.empty_like(hessian), np.empty_like(gradient)
    active = moved = np.flatnonzero(np.isfinite(value))
    iteration = 0
    for iteration in range(1, max_iterations + 1):  # noqa: B007  (its last value is reported)
        curvature[moved], vectors[moved], along[moved] = _axes(gradient[moved], hessian[moved])
        step, predicted, full = _step(
            curvature[active], vectors[active], along[active], damping[active], size[active]
        )
        slope, stalled = np.abs(gradient[active]).max(1), damping[active] > STALLED
        flat = (slope <= FLAT * size[active]) | (full <= 1e-15 * value[active] + 1e-28)
        flat |= stalled & (slope <= NEARLY_FLAT * size[active])
        done[active[flat]] = True
        going = ~(flat | stalled)
        active, step, predicted = active[going], step[going], predicted[going]
        if not len(active):
            break
        free = None if basis is None else basis[active]
        trial = _trial(law, theta[active], step, free)
        new = _derivatives(law, loss, y[active], w[active], trial, free)
        gain = value[active] - new[0]
        better = gain > 0
        moved = active[better]
        theta[moved] = trial[better]
        value[moved], gradient[moved], hessian[moved], size[moved] = (part[better] for part in new)
        factor = np.where(gain > 0.75 * predicted, 0.1, np.where(gain > 0.25 * predicted, 0.5, 2.0))
        factor = np.where(better, factor, 10.0)
        damping[active] = np.maximum(damping[active] * factor, 1e-15)
    return Minimum(theta, value * loss.unit, done, iteration)


def _trial(law: Law, theta: Array, step: Array, basis: Array | None) -> Array:
    """Where a step (R, q) leads; what a row must not move in stays."""
    if basis is None:
        return law.moved(theta, step)
    step = np.einsum("rpq,rq->rp", basis, step)
    return np.where(basis.any(2), law.moved(theta, step), theta + step)


def _derivatives(
    law: Law, loss: Loss, y: Array, w: Array, theta: Array, basis: Array | None
) -> tuple[Array, Array, Array, Array]:
    """Objective (R,), gradient (R, q), Hessian (R, q, q), and the gradient's scale (R,): sum |w rho'|.

    The objective is infinite where any of these is no number: outside of what the law is defined for.
    """
    f, shares = law.value_and_shares(theta)
    rho, first, second = loss.derivatives(f, y)
    first *= w
    gradient, hessian = law.contract(shares, first, second * w)
    if basis is not None:
        gradient = np.einsum("rpq,rp->rq", basis, gradient)
        hessian = basis.transpose(0, 2, 1) @ hessian @ basis
    value = np.einsum("rn,rn->r", rho, w)
    defined = np.isfinite(value) & np.isfinite(gradient).all(1) & np.isfinite(hessian).all((1, 2))
    return np.where(defined, value, np.inf), gradient, hessian, np.abs(first).sum(1)


def _axes(gradient: Array, hessian: Array) -> tuple[Array, Array, Array]:
    """Principal axes of Hessians: size of the curvature along each (R, q), the axes (R, q, q), slopes (R, q)."""
    values, vectors = np.linalg.eigh(hessian)
    return np.abs(values), vectors, np.einsum("rji,rj->ri", vectors, gradient)


def _step(
    curvature: Array, vectors: Array, along: Array, damping: Array, size: Array
) -> tuple[Array, Array, Array]:
    """Step (R, q), the decrease it promises (R,), and the one that the undamped step would promise (R,).

    Damping is relative to the largest curvature, or to the gradient's scale ``size`` (R,) where there is less: Huber's
    loss has none while no residual lies within delta.
    """
    top = np.maximum(curvature.max(1), size)[:, None] + TINY
    curved = np.maximum(curvature, 1e-14 * top)
    coefficient = -along / (curved + damping[:, None] * top)
    predicted = -(coefficient * along).sum(1) - 0.5 * (coefficient**2 * curvature).sum(1)
    full = 0.5 * (along**2 / curved).sum(1)
    return np.einsum("rij,rj->ri", vectors, coefficient), predicted, full
