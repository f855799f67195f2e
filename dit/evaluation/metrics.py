"""Distances between feature distributions, in float64.

N images, D feature width.
"""

import warnings

import numpy as np
import scipy.linalg

from dit.errors import InputError
from dit.evaluation.statistics import Statistics


class MetricWarning(UserWarning):
    """The number is finite and correct, but means little; the text says why."""


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """The squared 2-Wasserstein distance of the Gaussians fitted to two sets of features: FID on Inception
    features.

    ``|mu_a - mu_b|^2 + tr S_a + tr S_b - 2 tr (S_a S_b)^(1/2)``. With ``S = A A^T`` for both, the eigenvalues
    of ``S_a S_b`` are the squared singular values of ``A_a^T A_b``, so the last trace is a nuclear norm: real
    and non-negative for singular covariances too, and accurate to rounding, where a matrix square root keeps
    half the digits. Symmetric in its arguments; zero for equal statistics, up to rounding.

    Returns:
        The distance, >= 0.

    Raises:
        InputError: the sets come from different extractors or differ in width.

    Source: Dowson & Landau (1982); Heusel et al., arXiv:1706.08500, eq. 6.
    """
    require_same_extractor(a, b)
    for which, stats in (("first", a), ("second", b)):
        if stats.n <= stats.dim:
            warnings.warn(
                f"the {which} set has {stats.n} images for {stats.dim} features: its covariance is singular "
                "and the Fréchet distance is dominated by the number of images",
                MetricWarning,
                stacklevel=2,
            )
    cov_a, cov_b = a.cov, b.cov
    root_a, root_b = _factor(cov_a), _factor(cov_b)
    cross = np.sum(scipy.linalg.svdvals(root_a.T @ root_b, overwrite_a=True, check_finite=False))
    difference = a.mean - b.mean
    distance = difference @ difference + np.trace(cov_a) + np.trace(cov_b) - 2.0 * cross
    return max(float(distance), 0.0)  # rounding leaves -1e-12 for equal sets


def require_same_extractor(a: Statistics, b: Statistics) -> None:
    """Raises InputError where two statistics are known to come from different features."""
    if a.dim != b.dim:
        raise InputError(
            "features.width", a.dim, f"{b.dim}, the width of the other set", "Use one extractor for both."
        )
    for key in ("extractor", "extractor_sha256", "preprocessing"):
        one, two = a.metadata.get(key), b.metadata.get(key)
        if one is not None and two is not None and one != two:
            raise InputError(
                key, str(one), f"{two}, that of the other set", "Statistics of two extractors do not compare."
            )


def _factor(cov: np.ndarray) -> np.ndarray:
    """A (D, R) with ``A A^T = cov``: Cholesky's, or by eigenvectors where the covariance is singular."""
    try:
        return scipy.linalg.cholesky(cov, lower=True, check_finite=False)
    except scipy.linalg.LinAlgError:
        values, vectors = scipy.linalg.eigh(cov, check_finite=False)
        keep = values > values[-1] * len(values) * np.finfo(np.float64).eps
        return vectors[:, keep] * np.sqrt(values[keep])
