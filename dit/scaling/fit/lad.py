"""The exact least-absolute-deviation optimum: Huber with delta -> 0, then the vertex, then its certificate.

Legend: R rows, n points, p parameters. At the optimum p residuals are (generically) exactly zero.
"""

import numpy as np

from dit.scaling.fit.losses import huber
from dit.scaling.fit.newton import Law, Minimum, newton

Array = np.ndarray
SHRINK, STAGES, FIRST_TRY = 0.25, 17, 2
SLACK = 1e-6  # by which a multiplier may exceed 1 in the certificate


def lad(
    law: Law, y: Array, w: Array, theta: Array, max_iterations: int, basis: Array | None = None
) -> Minimum:
    """Least absolute deviations of ln L.

    Huber's delta shrinks from the spread of the residuals; once it is below all residuals but p, Newton on
    those p equations finishes to rounding, and the row leaves when its subgradient contains zero. Rows that
    no vertex satisfies (a law at its boundary, or a restricted ``basis``) end at a delta of 1e-10 of the
    spread.
    """
    rows = theta.shape[0]
    spread = float(np.median(np.abs(law.value(theta) - y))) + 1e-12
    stage = newton(law, huber(spread), y, w, theta, max_iterations, basis)
    out, converged, iterations, left = (
        stage.theta.copy(),
        stage.converged.copy(),
        stage.iterations,
        np.arange(rows),
    )
    for k in range(1, STAGES + 1):
        part = None if basis is None else basis[left]
        stage = newton(law, huber(spread * SHRINK**k), y[left], w[left], out[left], max_iterations, part)
        out[left], converged[left] = stage.theta, stage.converged
        iterations += stage.iterations
        if k < FIRST_TRY or basis is not None:
            continue
        vertex, certified = _vertex(law, y[left], w[left], out[left])
        out[left[certified]], converged[left[certified]] = vertex[certified], True
        left = left[~certified]
        if not len(left):
            break
    return Minimum(out, (w * np.abs(law.value(out) - y)).sum(1), converged, iterations)


def _vertex(law: Law, y: Array, w: Array, theta: Array) -> tuple[Array, Array]:
    """Each row moved onto the p points that it nearly passes through, and whether that is an optimum.

    It is one when the slopes of all other deviations are balanced by multipliers within [-1, 1] on those p.
    """
    p = theta.shape[1]
    chosen = np.argsort(np.where(w > 0, np.abs(law.value(theta) - y), np.inf), axis=1)[:, :p]
    for _ in range(5):
        r = np.take_along_axis(law.value(theta) - y, chosen, 1)
        at = np.take_along_axis(law.jacobian(theta), chosen[:, :, None], 1)
        theta = theta - np.einsum("rij,rj->ri", np.linalg.pinv(at), r)
    residual, slopes = law.value(theta) - y, law.jacobian(theta)
    at = np.take_along_axis(slopes, chosen[:, :, None], 1)
    others = np.sign(residual) * w
    np.put_along_axis(others, chosen, 0.0, 1)
    pull = np.einsum("rn,rnp->rp", others, slopes)
    multiplier = -np.einsum("rij,ri->rj", np.linalg.pinv(at), pull) / np.take_along_axis(w, chosen, 1)
    through = np.abs(np.take_along_axis(residual, chosen, 1)).max(1) < 1e-10
    return theta, through & (np.abs(multiplier).max(1) <= 1 + SLACK)
