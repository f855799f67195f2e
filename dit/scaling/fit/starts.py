"""Starts of a fit from the data alone: variable projection on a grid of exponents.

For fixed exponents the law is linear in its coefficients, so the best non-negative ones follow in closed
form (variable projection). The grid spans exponents that change a term by 5 % to e^30 over the range of the
data, so no start depends on the units of N and D or on anybody's published values.
"""

from itertools import combinations, pairwise

import numpy as np

Array = np.ndarray
STEEPEST = 30.0  # no exponent makes a term fall by more than e^30 over the range of the data
GRID = np.geomspace(0.05, STEEPEST, 24)  # exponent times the range of the centred log regressor
BLOCK = 5  # one start from the best cell of each BLOCK x BLOCK-th of the grid
ABSENT = (
    1e-3  # a coefficient that comes out zero starts at this share of the loss, where its slope still shows
)


def additive_starts(n: Array, d: Array, loss: Array, relative: bool) -> Array:
    """Starts (S, 5) in theta = (ln A, alpha, ln B, beta, ln E), best first.

    Args:
        n: (points,) centred ln N.
        d: (points,) centred ln D.
        loss: (points,) measured loss.
        relative: whether misses count relative to the loss (log losses) or as they are (mse).
    """
    alphas, betas = GRID / np.ptp(n), GRID / np.ptp(d)
    weight = 1.0 / loss if relative else np.ones_like(loss)
    x, y = np.exp(-np.outer(alphas, n)) * weight, np.exp(-np.outer(betas, d)) * weight
    one = weight[None]
    cells = len(GRID)
    gram = np.empty((cells, cells, 3, 3))
    gram[..., 0, 0], gram[..., 1, 1] = (x * x).sum(1)[:, None], (y * y).sum(1)[None]
    gram[..., 0, 1] = gram[..., 1, 0] = x @ y.T
    gram[..., 0, 2] = gram[..., 2, 0] = x @ one.T
    gram[..., 1, 2] = gram[..., 2, 1] = (y @ one.T).T
    gram[..., 2, 2] = weight @ weight
    target = loss * weight
    moment = np.empty((cells, cells, 3))
    moment[..., 0], moment[..., 1], moment[..., 2] = (
        (x @ target)[:, None],
        (y @ target)[None],
        weight @ target,
    )
    coefficient, gained = nonnegative(gram, moment)
    order = _best_of_blocks(gained)
    log = _log_coefficients(
        coefficient,
        np.stack(
            [x.mean(1)[:, None] + 0 * gained, y.mean(1)[None] + 0 * gained, weight.mean() + 0 * gained], -1
        ),
        target.mean(),
    )
    i, j = order.T
    return np.stack([log[i, j, 0], alphas[i], log[i, j, 1], betas[j], log[i, j, 2]], 1)


def power_floor_starts(x: Array, loss: Array, relative: bool) -> Array:
    """Starts (S, 3) in theta = (ln K, p, ln E); ``x`` (points,) is centred ln of the regressor."""
    exponents = GRID / np.ptp(x)
    weight = 1.0 / loss if relative else np.ones_like(loss)
    term, target = np.exp(-np.outer(exponents, x)) * weight, loss * weight
    gram = np.empty((len(GRID), 2, 2))
    gram[:, 0, 0], gram[:, 1, 1] = (term * term).sum(1), weight @ weight
    gram[:, 0, 1] = gram[:, 1, 0] = term @ weight
    moment = np.stack([term @ target, np.full(len(GRID), weight @ target)], -1)
    coefficient, gained = nonnegative(gram, moment)
    log = _log_coefficients(
        coefficient, np.stack([term.mean(1), np.full(len(GRID), weight.mean())], -1), target.mean()
    )
    order = np.argsort(-gained, kind="stable")
    return np.stack([log[:, 0], exponents, log[:, 1]], 1)[order]


def nonnegative(gram: Array, moment: Array) -> tuple[Array, Array]:
    """Non-negative least squares of few terms by trying every set of active terms.

    Args:
        gram: (..., k, k) normal matrices.
        moment: (..., k) right-hand sides.

    Returns:
        Coefficients (..., k) and the drop in the sum of squares (...) that they give.
    """
    k = moment.shape[-1]
    scale = np.sqrt(np.diagonal(gram, axis1=-2, axis2=-1))
    gram, moment = gram / (scale[..., :, None] * scale[..., None, :]), moment / scale
    best, gained = np.zeros_like(moment), np.zeros(moment.shape[:-1])
    for size in range(1, k + 1):
        for active in combinations(range(k), size):
            part = gram[..., active, :][..., active] + 1e-13 * np.eye(size)
            right = moment[..., list(active)]
            solution = np.linalg.solve(part, right[..., None])[..., 0]
            drop = 2 * (solution * right).sum(-1) - np.einsum(
                "...i,...ij,...j->...", solution, part, solution
            )
            take = (solution >= 0).all(-1) & (drop > gained)
            gained = np.where(take, drop, gained)
            full = np.zeros_like(best)
            full[..., list(active)] = solution
            best = np.where(take[..., None], full, best)
    return best / scale, gained


def _best_of_blocks(gained: Array) -> Array:
    """(S, 2) cells: the best one of each block of the grid, best block first."""
    cells = len(gained)
    edges = np.linspace(0, cells, BLOCK + 1).astype(int)
    best = []
    for i0, i1 in pairwise(edges):
        for j0, j1 in pairwise(edges):
            flat = int(np.argmax(gained[i0:i1, j0:j1]))
            best.append((i0 + flat // (j1 - j0), j0 + flat % (j1 - j0)))
    return np.array(sorted(best, key=lambda cell: -gained[cell]))


def _log_coefficients(coefficient: Array, mean_term: Array, mean_target: float) -> Array:
    """Ln of the coefficients, absent ones lifted to a small share of the mean loss."""
    return np.log(np.maximum(coefficient, ABSENT * mean_target / mean_term))
