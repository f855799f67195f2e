"""Distances between feature distributions, in float64.

N images, D feature width, K classes, M size of a subset.
"""

import itertools
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.linalg
import scipy.special
import scipy.stats

from dit.errors import InputError, check_number
from dit.evaluation.statistics import Statistics

SEED = 2020  # torch-fidelity's, so that seeded subsets are the same ones
KERNEL_SUBSETS, KERNEL_SUBSET_SIZE = 100, 1000
SCORE_SPLITS = 10
INFINITY_SIZES = 10


class MetricWarning(UserWarning):
    """The number is finite and correct, but means little; the text says why."""


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """The squared 2-Wasserstein distance of Gaussians fitted to two sets of features: FID on Inception.

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
        if stats.n is not None and stats.n <= stats.dim:
            warnings.warn(
                f"the {which} set has {stats.n} images for {stats.dim} features: its covariance is singular "
                "and the Fréchet distance is dominated by the number of images",
                MetricWarning,
                stacklevel=2,
            )
    cov_a, cov_b = a.cov, b.cov
    difference = a.mean - b.mean
    traces = np.trace(cov_a) + np.trace(cov_b)
    distance = difference @ difference + traces - 2.0 * _trace_of_root(_factor(cov_a), _factor(cov_b))
    return max(float(distance), 0.0)  # rounding leaves -1e-12 for equal sets


def require_same_extractor(a: Statistics, b: Statistics) -> None:
    """Raises InputError where two statistics are known to come from different features."""
    if a.dim != b.dim:
        raise InputError(
            "features.width", a.dim, f"{b.dim}, as the other set's", "Use one extractor for both."
        )
    for key in ("extractor", "extractor_sha256", "preprocessing"):
        one, two = a.metadata.get(key), b.metadata.get(key)
        if one is not None and two is not None and one != two:
            raise InputError(key, str(one), f"{two}, as the other set's", "Use one extractor for both.")


def frechet_at_infinity(
    features: np.ndarray, reference: Statistics, sizes: Sequence[int] | None = None, seed: int = SEED
) -> dict[str, float]:
    """The Fréchet distance at infinite N, where its bias (linear in 1/N) is gone.

    Random subsets of features (N, D), their distances fitted by a line in 1/N; the intercept, and its
    standard error from the residuals. Subsets overlap, so the error is a lower bound.

    Args:
        features: (N, D).
        reference: statistics of the real images; their own bias remains.
        sizes: at least 8 subset sizes; evenly spaced from N/5 to N by default.
        seed: of the subsets.

    Source: Chong & Forsyth, arXiv:1911.07023, section 4 (15 sizes by default there; sizes are evenly spaced
        too).
    """
    count = len(features)
    if sizes is None:
        sizes = [int(size) for size in np.linspace(max(count // 5, 2), count, INFINITY_SIZES)]
    if len(set(sizes)) < 8 or min(sizes) < 2 or max(sizes) > count:
        raise InputError("evaluation.fd_infinity.sizes", list(sizes), f"at least 8 sizes in 2..{count}")
    generator = np.random.default_rng(seed)
    distances = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MetricWarning)  # small subsets are the point
        for size in sizes:
            chosen = generator.choice(count, size, replace=False)
            stats = Statistics(features.shape[1], reference.metadata).update(features[chosen])
            distances.append(frechet_distance(stats, reference))
    line: Any = scipy.stats.linregress(1 / np.asarray(sizes, float), distances)
    return {
        "frechet_distance_infinity": float(line.intercept),
        "frechet_distance_infinity_se": float(line.intercept_stderr),
    }


def inception_score(logits: np.ndarray, splits: int = SCORE_SPLITS, seed: int = SEED) -> dict[str, float]:
    """The mean and sd over splits of ``exp E KL(p(y|x) || p(y))``.

    Args:
        logits: (N, K).
        splits: parts of equal size, after a seeded shuffle.
        seed: of the shuffle.

    Source: Salimans et al., arXiv:1606.03498, section 4; splits and shuffle as torch-fidelity's.
    """
    check_number("evaluation.is.splits", splits, low=1, high=len(logits), integer=True)
    order = np.random.RandomState(seed).permutation(len(logits))
    log_p = scipy.special.log_softmax(np.asarray(logits, np.float64)[order], axis=1)
    edges = [part * len(logits) // splits for part in range(splits + 1)]
    scores = []
    for low, high in itertools.pairwise(edges):
        part = log_p[low:high]
        marginal = scipy.special.logsumexp(part, axis=0) - np.log(high - low)
        scores.append(np.exp((np.exp(part) * (part - marginal)).sum(1).mean()))
    return {"inception_score": float(np.mean(scores)), "inception_score_sd": float(np.std(scores))}


def kernel_distance(
    a: np.ndarray,
    b: np.ndarray,
    subsets: int = KERNEL_SUBSETS,
    subset_size: int | None = None,
    seed: int = SEED,
) -> dict[str, float | int]:
    """The squared maximum mean discrepancy with the kernel ``(x.y/D + 1)^3``, unbiased: KID on Inception.

    Args:
        a: features (N, D) of the sample.
        b: features of the reference.
        subsets: number of pairs of random subsets, whose mean and sd are given.
        subset_size: M; 1,000, or all of the smaller set where it has fewer. It is given back, since the sd
            depends on it.
        seed: of the subsets, drawn as torch-fidelity draws them.

    Source: Binkowski et al., arXiv:1801.01401, section 4.
    """
    if subset_size is None:
        subset_size = min(KERNEL_SUBSET_SIZE, len(a), len(b))
    if 2 * subset_size > min(len(a), len(b)):
        warnings.warn(
            f"subsets of {subset_size} out of {min(len(a), len(b))} images share most of them: the kernel distance "
            "stands, but its sd over subsets is far too small",
            MetricWarning,
            stacklevel=2,
        )
    check_number("evaluation.kid.subset_size", subset_size, low=2, high=min(len(a), len(b)), integer=True)
    draw = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        x = a[draw.choice(len(a), subset_size, replace=False)].astype(np.float64)
        y = b[draw.choice(len(b), subset_size, replace=False)].astype(np.float64)
        within = sum(kernel.sum() - np.trace(kernel) for kernel in (_cubic(x, x), _cubic(y, y)))
        values.append(within / (subset_size * (subset_size - 1)) - 2 * _cubic(x, y).mean())
    return {
        "kernel_distance": float(np.mean(values)),
        "kernel_distance_sd": float(np.std(values)),
        "kernel_subset_size": subset_size,
    }


def _cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1.0) ** 3


def _trace_of_root(root_a: np.ndarray, root_b: np.ndarray) -> float:
    return float(np.sum(scipy.linalg.svdvals(root_a.T @ root_b, overwrite_a=True, check_finite=False)))


def _factor(cov: np.ndarray) -> np.ndarray:
    """A (D, R) with ``A A^T = cov``: Cholesky's, or by eigenvectors where the covariance is singular."""
    try:
        return scipy.linalg.cholesky(cov, lower=True, check_finite=False)
    except scipy.linalg.LinAlgError:
        values, vectors = scipy.linalg.eigh(cov, check_finite=False)
        keep = values > values[-1] * len(values) * np.finfo(np.float64).eps
        return vectors[:, keep] * np.sqrt(values[keep])
