"""The exact least-absolute-deviation optimum: Huber with delta -> 0, then its limit, then a certificate.

Legend: R rows, n points, p parameters, m points that a row passes through (m = p at a vertex; fewer where the
curvature of the law holds the other directions, or where a term is absent).
"""

import numpy as np

from dit.fits.losses import huber
from dit.fits.newton import Law, Minimum, newton

Array = np.ndarray
SHRINK, STAGES, FIRST_TRY = 0.25, 13, 2
COARSER = 0.1  # the same towards a delta that is not 0, whose own Newton follows
ROUNDS = 6  # Newton steps to the limit
EXACT = (
    1e-12  # residual of ln L of points that a law fits to rounding, where no optimum can be told from another
)
SLACK = 1e-6  # by which a multiplier may exceed 1, and the slope differ from 0, in the certificate


def lad(
    law: Law, y: Array, w: Array, theta: Array, max_iterations: int, basis: Array | None = None
) -> Minimum:
    """Least absolute deviations of ln L.

    Huber's delta shrinks from the spread of the residuals. The points left within delta are those that the
    optimum passes through; Newton on "their residuals are zero and the slope of the rest is balanced by
    multipliers" finishes to rounding, and the row leaves once it is certified. Other rows, and those
    restricted to a ``basis``, end at a delta of 1e-8 of the spread.
    """
    rows = theta.shape[0]
    spread = _spread(law, y, theta)
    stage = newton(law, huber(spread), y, w, theta, max_iterations, basis)
    out, converged, left = stage.theta.copy(), stage.converged.copy(), np.arange(rows)
    iterations = stage.iterations
    for k in range(1, STAGES + 1):
        part, delta = None if basis is None else basis[left], spread * SHRINK**k
        stage = newton(law, huber(delta), y[left], w[left], out[left], max_iterations, part)
        out[left], converged[left] = stage.theta, stage.converged
        iterations += stage.iterations
        if k < FIRST_TRY or basis is not None:
            continue
        limit, certified = _limit(law, y[left], w[left], out[left], delta)
        out[left[certified]], converged[left[certified]] = limit[certified], True
        left = left[~certified]
        if not len(left):
            break
    objective = (w * np.abs(law.value(out) - y)).sum(1)
    return Minimum(out, objective, converged, iterations)


def approach(
    law: Law, delta: float, y: Array, w: Array, theta: Array, max_iterations: int, basis: Array | None
) -> Array:
    """Starts (R, p) for Huber's loss with a narrow ``delta``: optima of wider ones, from the residuals' spread down."""
    wide = _spread(law, y, theta)
    while wide > delta:
        theta = newton(law, huber(wide), y, w, theta, max_iterations, basis).theta
        wide *= COARSER
    return theta


def _spread(law: Law, y: Array, theta: Array) -> float:
    return float(np.median(np.abs(law.value(theta) - y))) + EXACT


def _limit(law: Law, y: Array, w: Array, theta: Array, delta: float) -> tuple[Array, Array]:
    """Each row's limit as delta -> 0 with the points now within delta, and whether that is an optimum."""
    slope = np.where(w > 0, (law.value(theta) - y) / delta, np.inf)
    within, distinct = (np.abs(slope) < 1).sum(1), _distinct(slope)
    theta, certified = theta.copy(), np.zeros(len(theta), bool)
    for m in np.unique(within[(within > 0) & (distinct <= theta.shape[1])]):
        rows = (within == m) & (distinct <= theta.shape[1])
        chosen = np.argsort(np.abs(slope[rows]), axis=1)[:, :m]
        theta[rows], certified[rows] = _through(law, y[rows], w[rows], theta[rows], chosen, slope[rows])
    return theta, certified


def _distinct(slope: Array) -> Array:
    """(R,) how many different residuals lie within delta: a point that is there twice is passed through once."""
    ordered = np.sort(np.where(np.abs(slope) < 1, slope, 1.0), axis=1)
    return (np.diff(ordered, axis=1) > 0).sum(1) + (ordered[:, -1] < 1)


def _through(law: Law, y: Array, w: Array, theta: Array, chosen: Array, slope: Array) -> tuple[Array, Array]:
    """Rows through their ``chosen`` points (R, m); ``slope`` (R, n) has the signs and first multipliers."""
    p, m = theta.shape[1], chosen.shape[1]
    sign = np.sign(slope)
    pull = w * np.where(np.isfinite(slope), sign, 0.0)
    multiplier = np.take_along_axis(slope, chosen, 1)
    own = np.take_along_axis(w, chosen, 1)
    system = np.zeros((len(theta), p + m, p + m))
    for _ in range(ROUNDS):
        np.put_along_axis(pull, chosen, multiplier * own, 1)
        value, shares = law.value_and_shares(theta)
        gradient, curvature = law.contract(shares, pull, np.zeros_like(pull))
        at = np.take_along_axis(law.jacobian(theta), chosen[:, :, None], 1) * own[:, :, None]
        residual = np.take_along_axis(value - y, chosen, 1)
        system[:, :p, :p], system[:, p:, :p], system[:, :p, p:] = curvature, at, at.transpose(0, 2, 1)
        right = np.concatenate([gradient, residual * own], axis=1)
        lost = ~(np.isfinite(system).all((1, 2)) & np.isfinite(right).all(1))
        system[lost], right[lost] = 0.0, 0.0  # outside of the law's domain: stays there, and is not certified
        move = np.einsum("rij,rj->ri", np.linalg.pinv(system, hermitian=True), right)
        theta, multiplier = theta - move[:, :p], multiplier - move[:, p:]
    left = law.value(theta) - y
    kept = np.sign(left) == sign
    np.put_along_axis(kept, chosen, True, 1)
    zero = np.abs(np.take_along_axis(left, chosen, 1)).max(1) < 1e-10
    flat = np.abs(gradient).max(1) <= SLACK * np.abs(pull).sum(1)
    bounded = np.abs(multiplier).max(1) <= 1 + SLACK
    return theta, (kept | (w == 0)).all(1) & zero & flat & bounded
