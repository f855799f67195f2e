"""Noise of runs and of readings, split from the residuals of a fit.

Legend: n readings of G runs, p parameters. A reading's residual is a run's own shift plus the reading's own noise.
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
        freedom: degrees of freedom on which the two stand (Satterthwaite's, of the residual sum of squares).
    """

    reading: float
    run: float
    freedom: float

    def draw(self, rng: np.random.RandomState, rows: int, runs: Array) -> Array:
        """Noise (rows, n) with these variances, each row with its own draw of their common scale.

        The scale is the square root of freedom / chi^2(freedom): variances estimated on few degrees of
        freedom then give the heavy tails (Student's) that they ought to.
        """
        scale = np.sqrt(self.freedom / rng.chisquare(self.freedom, (rows, 1)))
        shift = np.sqrt(self.run) * rng.standard_normal((rows, runs.max() + 1))[:, runs]
        return scale * (shift + np.sqrt(self.reading) * rng.standard_normal((rows, len(runs))))


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
    left, values, _ = np.linalg.svd(jacobian, full_matrices=False)
    q = left[:, values > 1e-10 * values.max()]  # an orthonormal basis of what the fit took out
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
