"""Damped Newton on many fits at once, and the exact least-absolute-deviation optimum.

Legend: R rows fitted side by side, n points, p parameters. Each row has its own weights (bootstrap
multiplicities) and may have its own data; rows leave the batch as they converge.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dit.scaling.fit.losses import Loss, huber, smooth_loss

Array = np.ndarray
CHUNK = 256  # rows per block: (256, 240) doubles stay in the cache


class Law(Protocol):
    """What the optimiser asks of a law (LogSumExp and DataLimited have it)."""

    def value(self, theta: Array) -> Array: ...
    def value_and_shares(self, theta: Array) -> tuple[Array, Any]: ...
    def jacobian(self, theta: Array) -> Array: ...
    def contract(self, shares: Any, first: Array, second: Array) -> tuple[Array, Array]: ...


@dataclass(frozen=True)
class Minimum:
    """Optima of R rows: parameters (R, p), reported objective (R,), converged (R,), iterations used."""

    theta: Array
    objective: Array
    converged: Array
    iterations: int


def minimise(
    law: Law, name: str, delta: float, y: Array, weights: Array, theta: Array, max_iterations: int = 300
) -> Minimum:
    """Each row's local optimum from its own start.

    Args:
        law: the law on the n points.
        name: the loss: huber, lad, mse_log or mse.
        delta: Huber's delta in log loss (unused by the others).
        y: (n,) or (R, n) measured ln L.
        weights: (R, n) or (1, n) non-negative weights.
        theta: (R, p) starts.
        max_iterations: Newton steps per row and stage.
    """
    rows, n = theta.shape[0], weights.shape[1]
    y, weights = np.broadcast_to(y, (rows, n)), np.broadcast_to(weights, (rows, n))
    blocks = [slice(i, min(i + CHUNK, rows)) for i in range(0, rows, CHUNK)]
    solve = _lad if name == "lad" else _smooth
    parts = [solve(law, name, delta, y[b], weights[b], theta[b], max_iterations) for b in blocks]
    return Minimum(
        np.concatenate([part.theta for part in parts]),
        np.concatenate([part.objective for part in parts]),
        np.concatenate([part.converged for part in parts]),
        max(part.iterations for part in parts),
    )


def _smooth(law: Law, name: str, delta: float, y: Array, w: Array, theta: Array, steps: int) -> Minimum:
    return newton(law, smooth_loss(name, delta), y, w, theta, steps)


def newton(law: Law, loss: Loss, y: Array, w: Array, theta: Array, max_iterations: int) -> Minimum:
    """Levenberg-damped Newton with the exact Hessian, negative curvature turned round, row by row.

    A row has converged when its gradient is 1e-9 of the sum of its absolute parts, or when the next full step
    would lower the objective by less than 1e-15 of it.
    """
    theta = theta.copy()
    rows = theta.shape[0]
    value = np.empty(rows)
    done = np.zeros(rows, bool)
    damping = np.full(rows, 1e-3)
    active = np.arange(rows)
    gradient, hessian, size = np.empty_like(theta), np.empty((*theta.shape, theta.shape[1])), np.empty(rows)
    value[active], gradient[active], hessian[active], size[active] = _derivatives(law, loss, y, w, theta)
    iteration = 0
    for iteration in range(1, max_iterations + 1):  # noqa: B007  (its last value is reported)
        step, predicted, full = _step(gradient[active], hessian[active], damping[active])
        flat = np.abs(gradient[active]).max(1) <= 1e-9 * size[active] + 1e-300
        stop = flat | (full <= 1e-15 * value[active] + 1e-28) | (damping[active] > 1e12)
        done[active[stop]] = (damping[active] <= 1e12)[stop]
        active, step, predicted = active[~stop], step[~stop], predicted[~stop]
        if not len(active):
            break
        trial = theta[active] + step
        new = _derivatives(law, loss, y[active], w[active], trial)
        gain = (value[active] - new[0]) / np.maximum(predicted, 1e-300)
        better = np.isfinite(new[0]) & (new[0] < value[active])
        moved = active[better]
        theta[moved] = trial[better]
        value[moved], gradient[moved], hessian[moved], size[moved] = (part[better] for part in new)
        factor = np.where(~better, 6.0, np.where(gain > 0.75, 0.1, np.where(gain > 0.25, 0.5, 2.0)))
        damping[active] = np.maximum(damping[active] * factor, 1e-14)
    return Minimum(theta, value * loss.unit, done, iteration)


def _derivatives(law: Law, loss: Loss, y: Array, w: Array, theta: Array) -> tuple[Array, Array, Array, Array]:
    f, shares = law.value_and_shares(theta)
    rho, first, second = loss.derivatives(f, y)
    first *= w
    gradient, hessian = law.contract(shares, first, second * w)
    return np.einsum("rn,rn->r", rho, w), gradient, hessian, np.abs(first).sum(1)


def _step(gradient: Array, hessian: Array, damping: Array) -> tuple[Array, Array, Array]:
    """Step (R, p), the decrease it promises (R,), and the one that the undamped step would promise (R,)."""
    values, vectors = np.linalg.eigh(np.nan_to_num(hessian))
    along = np.einsum("rji,rj->ri", vectors, gradient)
    curvature = np.abs(values)
    top = curvature.max(1, keepdims=True) + 1e-300
    lifted = np.maximum(curvature, 1e-14 * top) + damping[:, None] * top
    coefficient = -along / lifted
    predicted = -(coefficient * along).sum(1) - 0.5 * (coefficient**2 * curvature).sum(1)
    full = 0.5 * (along**2 / np.maximum(curvature, 1e-14 * top)).sum(1)
    return np.einsum("rij,rj->ri", vectors, coefficient), predicted, full


def _lad(law: Law, name: str, delta: float, y: Array, w: Array, theta: Array, steps: int) -> Minimum:
    """Least absolute deviations of ln L: Huber with delta -> 0, then the vertex itself.

    At the optimum p residuals are (generically) exactly zero; once delta is below all the others, Newton on
    those p equations finishes to rounding.
    """
    spread = float(np.median(np.abs(law.value(theta) - y))) + 1e-12
    stage, iterations = newton(law, huber(spread), y, w, theta, steps), 0
    for delta_now in spread * 0.25 ** np.arange(1, 18):
        stage = newton(law, huber(delta_now), y, w, stage.theta, steps)
        iterations += stage.iterations
    polished = _vertex(law, y, w, stage.theta)
    return Minimum(polished, (w * np.abs(law.value(polished) - y)).sum(1), stage.converged, iterations)


def _vertex(law: Law, y: Array, w: Array, theta: Array) -> Array:
    """Moves each row onto the p points it nearly passes through, where that lowers its sum of deviations."""
    p = theta.shape[1]
    residual = law.value(theta) - y
    before = (w * np.abs(residual)).sum(1)
    chosen = np.argsort(np.where(w > 0, np.abs(residual), np.inf), axis=1)[:, :p]
    out = theta.copy()
    for _ in range(4):
        r = np.take_along_axis(law.value(out) - y, chosen, 1)
        jacobian = np.take_along_axis(law.jacobian(out), chosen[:, :, None], 1)
        out = out - np.einsum("rij,rj->ri", np.linalg.pinv(jacobian), r)
    after = (w * np.abs(law.value(out) - y)).sum(1)
    return np.where((after < before)[:, None], out, theta)
