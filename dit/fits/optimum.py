"""Optima of many fits side by side, under any of the losses."""

from dataclasses import replace

import numpy as np

from dit.fits.lad import EXACT, approach, lad
from dit.fits.losses import Loss, smooth_loss
from dit.fits.newton import TINY, Law, Minimum, newton

Array = np.ndarray
ROUND = 20  # steps of Newton between two choices of directions
RIDGE = 1e-6  # of the direction that the points feel most: what they do not feel at all stays finite
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
            found = _settled(law, smooth_loss(loss, delta), y[b], weights[b], start, max_iterations, part)
        exact = found.objective <= rounding(loss, y[b], weights[b])
        parts.append(replace(found, converged=found.converged | exact))
    return Minimum(
        np.concatenate([part.theta for part in parts]),
        np.concatenate([part.objective for part in parts]),
        np.concatenate([part.converged for part in parts]),
        max(part.iterations for part in parts),
    )


def _settled(
    law: Law, loss: Loss, y: Array, w: Array, theta: Array, max_iterations: int, basis: Array | None
) -> Minimum:
    """Newton's optima; where the law is ``scaled``, in rounds, each along directions that suit where it begins."""
    if not law.scaled:
        return newton(law, loss, y, w, theta, max_iterations, basis)
    rows = len(theta)
    theta, objective, converged = theta.copy(), np.full(rows, np.inf), np.zeros(rows, bool)
    left, iterations = np.arange(rows), 0
    while len(left) and iterations < max_iterations:
        part = _directions(law, theta[left], None if basis is None else basis[left])
        found = newton(
            law, loss, y[left], w[left], theta[left], min(ROUND, max_iterations - iterations), part
        )
        theta[left], objective[left], converged[left] = found.theta, found.objective, found.converged
        iterations += found.iterations
        left = left[~found.converged & np.isfinite(found.objective)]
    return Minimum(theta, objective, converged, iterations)


def _directions(law: Law, theta: Array, basis: Array | None) -> Array:
    """Directions (R, p, q) that span ``basis`` and along which equal steps move ln L at the points equally far."""
    slopes = law.jacobian(theta)
    slopes = slopes if basis is None else slopes @ basis
    gram = slopes.transpose(0, 2, 1) @ slopes
    places = np.arange(gram.shape[1])
    gram[:, places, places] += RIDGE * np.maximum(gram[:, places, places].max(1, keepdims=True), TINY)
    gram = np.where(np.isfinite(gram).all((1, 2), keepdims=True), gram, np.eye(len(places)))
    scaled = np.linalg.inv(np.linalg.cholesky(gram)).transpose(0, 2, 1)
    return scaled if basis is None else basis @ scaled


def rounding(loss: str, y: Array, weights: Array) -> Array:
    """Objective (R,) of points (R, n) that a law fits to rounding: EXACT in ln L each."""
    if loss == "lad":
        return EXACT * weights.sum(1)
    return EXACT**2 * (weights * np.exp(2 * y) if loss == "mse" else weights).sum(1)
