"""Optima of many fits side by side, under any of the losses."""

from dataclasses import replace

import numpy as np

from dit.fits.lad import EXACT, approach, lad
from dit.fits.losses import smooth_loss
from dit.fits.newton import Law, Minimum, newton

Array = np.ndarray
BLOCK = 61_440  # doubles per block of rows, which stay in the cache
NARROW = (
    1e-4  # Huber's delta below which it is approached from wider ones: all but a few points lie on a slope
)


def minimise(
    law: Law,
    loss: str,
    delta: float,
    y: Array,
    weights: Array,
    theta: Array,
    basis: Array | None = None,
    max_iterations: int = 300,
) -> Minimum:
    """Each row's local optimum from its own start.

    Args:
        law: the law on the n points.
        loss: huber, lad, mse_log or mse.
        delta: Huber's delta in log loss (unused by the others).
        y: (n,) or (R, n) measured ln L.
        weights: (R, n) or (1, n) non-negative weights.
        theta: (R, p) starts.
        basis: (R, p, q) directions each row may move in; all of them where it is absent.
        max_iterations: Newton steps per row and stage.
    """
    rows, n = theta.shape[0], weights.shape[1]
    y, weights = np.broadcast_to(y, (rows, n)), np.broadcast_to(weights, (rows, n))
    parts = []
    chunk = max(1, BLOCK // n)
    for b in (slice(i, i + chunk) for i in range(0, rows, chunk)):
        part = None if basis is None else basis[b]
        start = theta[b]
        if loss == "lad":
            found = lad(law, y[b], weights[b], start, max_iterations, part)
        else:
            if loss == "huber" and delta < NARROW:
                start = approach(law, delta, y[b], weights[b], start, max_iterations, part)
            found = newton(law, smooth_loss(loss, delta), y[b], weights[b], start, max_iterations, part)
        exact = found.objective <= rounding(loss, y[b], weights[b])
        parts.append(replace(found, converged=found.converged | exact))
    return Minimum(
        np.concatenate([part.theta for part in parts]),
        np.concatenate([part.objective for part in parts]),
        np.concatenate([part.converged for part in parts]),
        max(part.iterations for part in parts),
    )


def rounding(loss: str, y: Array, weights: Array) -> Array:
    """Objective (R,) of points (R, n) that a law fits to rounding: EXACT in ln L each."""
    if loss == "lad":
        return EXACT * weights.sum(1)
    return EXACT**2 * (weights * np.exp(2 * y) if loss == "mse" else weights).sum(1)
