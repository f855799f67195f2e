"""Noise of runs and of readings, split from the residuals of a fit.

Legend: n readings of G runs, p parameters. A reading's residual is a run's own shift, plus a random walk along the run,
plus the reading's own noise. The walk's variance grows with ln D: budgets are powers of one another, and what a run
picks up between two of them lasts about as long as it took to come there.
"""

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Components:
    """Variances of the noise.

    Args:
        reading: variance of a single reading.
        run: variance of the shift that all readings of a run share.
        freedom: degrees of freedom on which they stand (Satterthwaite's, of the residual sum of squares).
        walk: variance that the walk along a run gains per e-fold of D.
    """

    reading: float
    run: float
    freedom: float
    walk: float = 0.0

    def draw(self, rng: np.random.RandomState, rows: int, runs: Array, elapsed: Array | None = None) -> Array:
        """Noise (rows, n) with these variances, each row with its own draw of their common scale.

        The scale is the square root of freedom / chi^2(freedom): variances estimated on few degrees of
        freedom then give the heavy tails (Student's) that they ought to.
        """
        scale = np.sqrt(self.freedom / rng.chisquare(self.freedom, (rows, 1)))
        shift = np.sqrt(self.run) * rng.standard_normal((rows, runs.max() + 1))[:, runs]
        noise = shift + np.sqrt(self.reading) * rng.standard_normal((rows, len(runs)))
        if self.walk and elapsed is not None:
            noise += np.sqrt(self.walk) * _walks(rng, rows, runs, elapsed)
        return scale * noise

    def of_sum(self, weights: Array, runs: Array, elapsed: Array) -> float:
        """Variance of the sum of readings (n,) with these weights (n,)."""
        found = self.reading * weights @ weights + self.run * np.sum(np.bincount(runs, weights) ** 2)
        if self.walk:
            order, starts, steps = _steps(runs, elapsed)
            later = np.cumsum(weights[order][::-1])[::-1]  # a step is in every reading from there on
            after = np.append(later[starts[1:]], 0.0)
            found += self.walk * steps @ (later - np.repeat(after, np.diff(starts, append=len(runs)))) ** 2
        return float(found)


def _steps(runs: Array, elapsed: Array) -> tuple[Array, Array, Array]:
    """Readings in the order of their runs and of ``elapsed``, where each run begins in it, and the steps between."""
    order = np.lexsort((elapsed, runs))
    starts = np.flatnonzero(np.diff(runs[order], prepend=-1))
    steps = np.diff(elapsed[order], prepend=0.0)
    steps[starts] = elapsed[order[starts]]
    return order, starts, steps


def _walks(rng: np.random.RandomState, rows: int, runs: Array, elapsed: Array) -> Array:
    """(rows, n) random walks along runs (n,), the variance of each reading its ``elapsed`` (n,)."""
    order, starts, steps = _steps(runs, elapsed)
    path = np.cumsum(np.sqrt(steps) * rng.standard_normal((rows, len(runs))), axis=1)
    before = np.concatenate([np.zeros((rows, 1)), path[:, starts[1:] - 1]], axis=1)
    path -= np.repeat(before, np.diff(starts, append=len(runs)), axis=1)
    out = np.empty_like(path)
    out[:, order] = path
    return out


def components(residual: Array, jacobian: Array, runs: Array) -> Components:
    """The two variances by matching two quadratic forms of the residuals to their expectations.

    The forms are the sum of squares and the sum of squares of run means; expectations account for the p
    directions that the fit took out of the residuals. A negative estimate is zero, and the other then stands alone.

    Args:
        residual: (n,) residuals of the fit.
        jacobian: (n, p) slopes of the fitted values in the parameters.
        runs: (n,) index of each reading's run.

    Source: Searle, Casella & McCulloch, Variance Components (1992), section 5.2 (Henderson's idea).
    """
    n, count = len(residual), np.bincount(runs)
    q = taken_out(jacobian)
    rank, groups = q.shape[1], len(count)
    by_run = np.stack([np.bincount(runs, column, groups) for column in q.T], axis=1)
    # Z: which reading belongs to which run. Traces over n x n matrices, written through q and Z'q.
    shared, means = by_run.T @ by_run, by_run.T @ (by_run / count[:, None])
    squares = by_run.T @ (by_run * count[:, None])
    own, common = n - rank, n - np.trace(shared)
    if groups == n:
        reading, run = float(residual @ residual / own), 0.0
    else:
        table = np.array(
            [[own, common], [groups - np.trace(means), n - 2 * np.trace(shared) + np.sum(means * shared)]]
        )
        sums = np.bincount(runs, residual)
        observed = np.array([residual @ residual, sums @ (sums / count)])
        reading, run = np.linalg.lstsq(table, observed, rcond=None)[0]
        if run < 0:
            reading, run = observed[0] / own, 0.0
        elif reading < 0:
            reading, run = 0.0, observed[0] / common
    total = run * common + reading * own
    crossed = np.sum(count**2) - 2 * np.trace(squares) + np.sum(shared**2)
    twice = run**2 * crossed + 2 * run * reading * common + reading**2 * own
    freedom = total**2 / twice if total > 0 else own
    return Components(float(reading), float(run), float(freedom))


def taken_out(jacobian: Array) -> Array:
    """(n, rank) an orthonormal basis of what a fit with these slopes (n, p) took out of its residuals."""
    left, values, _ = np.linalg.svd(jacobian, full_matrices=False)
    return left[:, values > 1e-10 * values.max()]


Block = tuple[
    Array, Array
]  # (g, m) places of the readings of g runs that have m each, (g, m, m) their walk's shape


def walking(residual: Array, jacobian: Array, runs: Array, elapsed: Array) -> Components:
    """The three variances by restricted maximum likelihood, over the ratios of two of them to the reading's.

    Args:
        residual: (n,) residuals of the fit.
        jacobian: (n, p) slopes of the fitted values in the parameters.
        runs: (n,) index of each reading's run.
        elapsed: (n,) ln D since the run's first reading.

    Source: Patterson & Thompson, Biometrika 58 (1971) 545.
    """
    q, unit = taken_out(jacobian), float(elapsed[elapsed > 0].mean())
    freedom = len(residual) - q.shape[1]
    if not residual @ residual > 0:
        return Components(0.0, 0.0, float(freedom))
    blocks = _blocks(runs, elapsed / unit)

    def deviance(ratios: tuple[float, float]) -> float:
        return _restricted(residual, q, blocks, *ratios)[0]

    best = min(((run, walk) for run in RATIOS for walk in RATIOS), key=deviance)
    for step in STEPS:
        factors = (1 / step, 1.0, step)
        best = min(((best[0] * x, best[1] * y) for x in factors for y in factors), key=deviance)
    reading = _restricted(residual, q, blocks, *best)[1]
    run, walk = best[0] * reading, best[1] * reading
    return Components(reading, run, _freedom(q, blocks, *best), walk / unit)


RATIOS = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # of a variance to that of a reading
STEPS = (1.7, 1.3, 1.15)  # factors by which the best of them are then moved


def _blocks(runs: Array, elapsed: Array) -> list[Block]:
    count = np.bincount(runs)
    order, ends = np.argsort(runs, kind="stable"), np.cumsum(count)
    found = []
    for m in np.unique(count):
        starts = (ends - count)[count == m]
        places = order[starts[:, None] + np.arange(m)]
        at = elapsed[places]
        found.append((places, np.minimum(at[:, :, None], at[:, None, :])))
    return found


def _covariance(walks: Array, run: float, walk: float) -> Array:
    """(g, m, m) covariance of the readings of runs, the reading's own variance being 1."""
    return np.eye(walks.shape[1]) + run + walk * walks


def _restricted(
    residual: Array, q: Array, blocks: list[Block], run: float, walk: float
) -> tuple[float, float]:
    """Restricted deviance (up to a constant) at two ratios, and the reading's variance there."""
    both = np.concatenate([residual[:, None], q], axis=1)
    inner, log_det = np.zeros((both.shape[1],) * 2), 0.0
    for places, walks in blocks:
        covariance, part = _covariance(walks, run, walk), both[places]
        inner += np.einsum("gmi,gmj->ij", part, np.linalg.solve(covariance, part))
        log_det += float(np.linalg.slogdet(covariance)[1].sum())
    across, freedom = inner[1:, 1:], len(residual) - q.shape[1]
    left = float(inner[0, 0] - inner[0, 1:] @ np.linalg.solve(across, inner[1:, 0]))
    return freedom * np.log(left) + log_det + float(np.linalg.slogdet(across)[1]), left / freedom


def _freedom(q: Array, blocks: list[Block], run: float, walk: float) -> float:
    """Satterthwaite's degrees of freedom of the residual sum of squares: tr(MV)^2 / tr(MVMV), M = 1 - qq'."""
    spread, total, squares = np.empty_like(q), 0.0, 0.0
    for places, walks in blocks:
        covariance = _covariance(walks, run, walk)
        spread[places] = covariance @ q[places]
        total += float(np.trace(covariance, axis1=1, axis2=2).sum())
        squares += float(np.sum(covariance**2))
    inner = q.T @ spread
    twice = squares - 2 * float(np.sum(spread**2)) + float(np.sum(inner * inner.T))
    return (total - float(np.trace(inner))) ** 2 / twice
