"""Starts of a fit from the data alone, by variable projection.

For fixed exponents the law is linear in its coefficients, so the best non-negative ones follow in closed form. What is
left is a search over the exponents only: first a grid, then Levenberg-Marquardt from the best cell of each part of it.
The grid spans exponents that change a term by 5 % to e^30 over the range of the data, so no start depends on the
units of N and D or on anybody's published values.

Legend: M rows (cells of the grid, or starts), n points, q regressors (ln N, ln D), each with a term; one more term is
the constant.

Source: Golub & Pereyra, SIAM J. Numer. Anal. 10 (1973) 413; Kaufman, BIT 15 (1975) 49, for the slopes.
"""

from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from dit.fits.newton import TINY

Array = np.ndarray
STEEPEST = 30.0  # no exponent makes a term fall by more than e^30 over the range of the data
GRID = np.geomspace(0.05, STEEPEST, 24)  # exponent times the range of the centred log regressor
PARTS = {
    1: 25,
    2: 5,
    3: 3,
    4: 2,
}  # parts of the grid along each axis, by number of regressors: 16 to 27 starts
COARSE = {1: 1, 2: 1, 3: 3, 4: 4}  # every which value of the grid is taken
ROUNDS = 20  # Levenberg-Marquardt steps per start, at most
NEAR = 1e-3  # steps in ln of an exponent at which a start is near enough
MOST = 500  # points that starts are made of
ABSENT = 1e-3  # a coefficient that comes out zero starts at this share of the loss, where it has a slope


@dataclass(frozen=True)
class Separable:
    """The least-squares problem that is linear once the exponents are fixed.

    Args:
        x: (q, n) centred ln of the regressors.
        loss: (n,) measured loss.
        relative: whether misses count relative to the loss (laws of ln L) or as they are.
        robust: whether they count by their size (huber, lad), by reweighting, or squared.
    """

    x: Array
    loss: Array
    relative: bool
    robust: bool

    def starts(self, cells_too: bool = False) -> tuple[Array, Array]:
        """Exponents (S, q) and ln of the coefficients (S, q + 1), the constant's last; best first.

        Args:
            cells_too: whether the cells follow as they are, after what they were polished to.
        """
        grid = GRID[:: COARSE[len(self.x)]]
        cells = np.array(list(product(range(len(grid)), repeat=len(self.x))))
        exponents = grid[cells] / np.ptp(self.x, axis=1)
        misses = self._solve(exponents, np.ones((1, len(self.loss))))[1]
        cost = np.abs(misses).sum(1) if self.robust else (misses**2).sum(1)
        part = cells * PARTS[len(self.x)] // len(grid)
        group = part @ PARTS[len(self.x)] ** np.arange(len(self.x))
        order = np.argsort(cost, kind="stable")
        first = order[np.unique(group[order], return_index=True)[1]]
        polished = self._polished(exponents[first])
        if not cells_too:
            return polished
        coefficient, _, terms = self._solve(exponents[first], np.ones((1, len(self.loss))))
        own = exponents[first], self._logarithms(coefficient, terms)
        return np.concatenate([polished[0], own[0]]), np.concatenate([polished[1], own[1]])

    def _solve(self, exponents: Array, weights: Array) -> tuple[Array, Array, Array]:
        """Best coefficients (M, q + 1) for exponents (M, q) and weights (M, n); misses (M, n); terms (M, n, q + 1)."""
        scale = 1.0 / self.loss if self.relative else np.ones_like(self.loss)
        terms = np.exp(-exponents[:, None, :] * self.x.T[None])
        terms = np.concatenate([terms, np.ones_like(terms[:, :, :1])], axis=2) * scale[:, None]
        weighted = terms * weights[:, :, None]
        gram = weighted.transpose(0, 2, 1) @ weighted
        moment = np.einsum("mni,mn->mi", weighted, weights * (self.loss * scale))
        coefficient = nonnegative(gram, moment)
        return coefficient, self.loss * scale - np.einsum("mni,mi->mn", terms, coefficient), terms

    def _polished(self, exponents: Array) -> tuple[Array, Array]:
        """The local optima over ln of the exponents (M, q) from each row, best first, with their coefficients."""
        rows, q = exponents.shape
        low, high = (
            np.log(0.1 * GRID[[0]] / np.ptp(self.x, axis=1)),
            np.log(2 * STEEPEST / np.ptp(self.x, axis=1)),
        )
        log_p, damping = np.log(exponents), np.full(rows, 1e-2)
        weights = np.ones((rows, len(self.loss)))
        coefficient, misses, terms = self._solve(exponents, weights)
        for _ in range(ROUNDS):
            slopes = self._slopes(log_p, coefficient, terms, weights)
            normal = slopes.transpose(0, 2, 1) @ slopes
            diagonal = np.einsum("mii->mi", normal)
            lift = np.maximum(damping[:, None] * diagonal + 1e-12 * diagonal.max(1, keepdims=True), TINY)
            right = np.einsum("mni,mn->mi", slopes, weights * misses)
            step = np.linalg.solve(normal + lift[:, :, None] * np.eye(q), right[..., None])[..., 0]
            trial = np.clip(log_p + np.clip(step, -1.5, 1.5), low, high)
            found = self._solve(np.exp(trial), weights)
            better = ((weights * found[1]) ** 2).sum(1) < ((weights * misses) ** 2).sum(1)
            log_p[better] = trial[better]
            coefficient[better], misses[better], terms[better] = (part[better] for part in found)
            weights[better] = self._weights(misses[better])
            damping = np.where(better, damping * 0.2, damping * 8)
            if ((np.abs(step).max(1) < NEAR) | (damping > 1e4)).all():
                break
        cost = np.abs(misses).sum(1) if self.robust else (misses**2).sum(1)
        order = np.argsort(cost, kind="stable")
        return np.exp(log_p)[order], self._logarithms(coefficient, terms)[order]

    def _logarithms(self, coefficient: Array, terms: Array) -> Array:
        """Ln of coefficients (M, q + 1), those that came out zero at a share where they have a slope."""
        level = ABSENT * np.abs(self.loss * (1 / self.loss if self.relative else 1)).mean() / terms.mean(1)
        return np.log(np.maximum(coefficient, level))

    def _weights(self, misses: Array) -> Array:
        """(M, n) weights under which squared misses are misses by size; ones where they count squared."""
        if not self.robust:
            return np.ones_like(misses)
        size = np.abs(misses)
        return 1.0 / np.sqrt(np.maximum(size, np.maximum(0.1 * np.median(size, axis=1, keepdims=True), TINY)))

    def _slopes(self, log_p: Array, coefficient: Array, terms: Array, weights: Array) -> Array:
        """(M, n, q) slopes of the fitted values in ln of the exponents, the linear terms' span taken out."""
        q = len(self.x)
        slopes = -np.exp(log_p)[:, None, :] * self.x.T[None] * coefficient[:, None, :q] * terms[:, :, :q]
        slopes *= weights[:, :, None]
        span = terms * (weights[:, :, None] * (coefficient > 0)[:, None, :])
        gram = span.transpose(0, 2, 1) @ span
        return slopes - span @ (np.linalg.pinv(gram, hermitian=True) @ (span.transpose(0, 2, 1) @ slopes))


def additive_starts(n: Array, d: Array, loss: Array, kind: str) -> Array:
    """Starts (25, 5), or (50, 5) for mse_log, in theta = (ln A, alpha, ln B, beta, ln E); the first are the best.

    Misses relative to the loss stand in for those of ln L, which outliers tell apart; so there the cells count as well.

    Args:
        n: (points,) centred ln N.
        d: (points,) centred ln D.
        loss: (points,) measured loss.
        kind: name of the loss function that is to be minimised from there.
    """
    exponents, log = _separable(np.stack([n, d]), loss, kind).starts(kind == "mse_log")
    return np.stack([log[:, 0], exponents[:, 0], log[:, 1], exponents[:, 1], log[:, 2]], 1)


def power_floor_starts(x: Array, loss: Array, kind: str) -> Array:
    """Starts (24, 3), or (48, 3) for mse_log, in theta = (ln K, p, ln E); ``x`` (points,) is centred ln x."""
    exponents, log = _separable(x[None], loss, kind).starts(kind == "mse_log")
    return np.stack([log[:, 0], exponents[:, 0], log[:, 1]], 1)


def power_starts(x: Array, loss: Array, kind: str) -> Array:
    """Starts (S, 2 q + 1) in theta = (ln A_1, p_1, ..., ln E) of a sum of power laws; ``x`` (q, points) are centred."""
    exponents, log = _separable(x, loss, kind).starts()
    pairs = np.stack([log[:, :-1], exponents], 2).reshape(len(log), -1)
    return np.concatenate([pairs, log[:, -1:]], 1)


def _separable(x: Array, loss: Array, kind: str) -> Separable:
    """The problem of at most MOST points, drawn evenly: starts need no more."""
    chosen = np.random.RandomState(0).permutation(len(loss))[:MOST] if len(loss) > MOST else slice(None)
    return Separable(x[:, chosen], loss[chosen], kind != "mse", kind in ("huber", "lad"))


def nonnegative(gram: Array, moment: Array) -> Array:
    """Coefficients (M, k) of non-negative least squares of few terms.

    The solution with all terms is the answer where none is negative; elsewhere every set of active terms is tried.

    Args:
        gram: (M, k, k) normal matrices.
        moment: (M, k) right-hand sides.
    """
    scale = np.sqrt(np.einsum("mii->mi", gram))
    gram, moment = gram / (scale[:, :, None] * scale[:, None, :]), moment / scale
    best = _solved(gram, moment)
    left = np.flatnonzero(~(best >= 0).all(1))
    if len(left):
        best[left] = _on_a_boundary(gram[left], moment[left])
    return best / scale


def _on_a_boundary(gram: Array, moment: Array) -> Array:
    """The best non-negative coefficients (M, k) of which at least one is zero."""
    k = moment.shape[-1]
    best, gained = np.zeros_like(moment), np.zeros(len(moment))
    for size in range(1, k):
        for active in (list(chosen) for chosen in combinations(range(k), size)):
            solution = _solved(gram[:, active][:, :, active], moment[:, active])
            drop = np.einsum("mi,mi->m", solution, moment[:, active])  # of the sum of squares
            take = (solution >= 0).all(1) & (drop > gained)
            gained = np.where(take, drop, gained)
            full = np.zeros_like(best)
            full[:, active] = solution
            best = np.where(take[:, None], full, best)
    return best


def _solved(gram: Array, moment: Array) -> Array:
    """Coefficients (M, k) of regular normal equations, and some of singular ones."""
    return np.linalg.solve(gram + 1e-13 * np.eye(moment.shape[-1]), moment[..., None])[..., 0]
