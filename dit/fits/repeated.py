"""The best allocation of compute where data are repeated: N*, D* and L* at C = k N D for U unique samples.

Below the compute C0 at which the law without repetition wants D = U, nothing is repeated and its closed form holds.
Above it N* lies between the size that U supports and C/(k U). There effective size and effective data are concave in
the logarithms, so that the loss is convex in ln N, and N* is where both terms' slopes are equal: found by halving.

Source: Muennighoff et al. 2305.16264, equations 5 and 6. ``law`` is the law of repeated data (data_limited.py); numbers
and arrays broadcast, with one entry per bootstrap draw.
"""

from typing import Any

import numpy as np

from dit.fits.saturating import MOST, saturated

HALVINGS = 60  # of a bracket of ln N: N* to rounding
LARGEST = 1e60  # FLOPs: more than any law is asked about
COARSER = 44  # of those of ln C and ln N where both are sought: C* to 1e-10


def n_opt(law: Any, c: Any, unique: Any, halvings: int = HALVINGS) -> Any:
    """N of least loss at compute ``c`` (FLOPs) with ``unique`` samples."""
    with np.errstate(all="ignore"):
        log_c, log_u, supported = np.log(c / law.k), np.log(unique), _supported(law, unique)
        unrepeated = (law.alpha * supported + law.beta * (log_c - log_u)) / (law.alpha + law.beta)
        low, high = np.minimum(supported, log_c - log_u) + 0 * log_c, log_c - log_u + 0 * supported
        for _ in range(halvings):
            middle = 0.5 * (low + high)
            larger = _lean(law, middle - supported, log_c - middle - log_u, supported, log_u) > 0
            low, high = np.where(larger, middle, low), np.where(larger, high, middle)
        return np.exp(np.where(unrepeated > supported, 0.5 * (low + high), unrepeated))


def exponent(law: Any, c: Any, unique: Any) -> Any:
    """D ln N*/d ln C at compute ``c``: beta/(alpha + beta) without repetition, else from how fast both slopes fall."""
    with np.errstate(all="ignore"):
        log_n, supported = np.log(n_opt(law, c, unique)), _supported(law, unique)
        log_d = np.log(c / law.k) - log_n
        gap_n, gap_d = np.maximum(log_n - supported, 0.0), np.maximum(log_d - np.log(unique), 0.0)
        by_n, by_d = _bend(gap_n, law.R_N, law.alpha), _bend(gap_d, law.R_D, law.beta)
        return np.where(gap_d > 0, by_d / (by_n + by_d), law.beta / (law.alpha + law.beta))


def turning_flops(law: Any, unique: Any) -> Any:
    """C*(U): the compute above which more unique data gain more than a larger network.

    At N*(C, U), a network larger by a small factor, at the same D, gains -dL*/d ln C per unit of the factor's logarithm
    (as does a larger D: that is what makes N* best); unique samples more by the same factor, at the same N and D, gain
    -dL/d ln U. The second is 0 up to C0, where data begin to be repeated, and the ratio of the two rises without end;
    C* is where it is 1. With the elasticities f_N of N' in N beyond the supported size and f_D of D' in D it is
    (beta/alpha)(1/f_N - 1) + (1/f_D - 1).
    """
    supported, log_u = _supported(law, unique), np.log(unique)
    low = supported + log_u  # ln of C0/k
    with np.errstate(all="ignore"):
        share = law.beta / (law.alpha + law.beta)
        high = low + np.log(4 + 2 * law.R_D) + np.log(4 + 2 * law.R_N / share)
        for _ in range(COARSER):
            middle = 0.5 * (low + high)
            log_n = np.log(n_opt(law, law.k * np.exp(middle), unique, COARSER))
            f_n = _used(np.maximum(log_n - supported, 0.0), law.R_N)[1]
            f_d = _used(np.maximum(middle - log_n - log_u, 0.0), law.R_D)[1]
            later = law.beta / law.alpha * np.expm1(-f_n) + np.expm1(-f_d) < 1
            low, high = np.where(later, middle, low), np.where(later, high, middle)
        return law.k * np.exp(0.5 * (low + high))


def flops_for(law: Any, loss: Any) -> Any:
    """Compute (FLOPs) with which the best size of ``law.unique`` samples reaches ``loss``; infinite where none does."""
    low, high = np.log(law.k) + 0 * np.asarray(law.E), np.log(LARGEST) + 0 * np.asarray(law.E)
    for _ in range(COARSER):
        middle = 0.5 * (low + high)
        worse = law.loss_opt(np.exp(middle)) > loss
        low, high = np.where(worse, middle, low), np.where(worse, high, middle)
    return np.where(law.loss_opt(LARGEST) > loss, np.inf, np.exp(0.5 * (low + high)))


def _supported(law: Any, unique: Any) -> Any:
    """Ln of the size U_N whose best data are ``unique`` samples."""
    with np.errstate(all="ignore"):
        ratio = np.log(law.A) + np.log(law.alpha) - np.log(law.B) - np.log(law.beta)
        return (ratio + law.beta * np.log(unique)) / law.alpha


def _used(gap: Any, limit: Any) -> tuple[Any, Any]:
    """Ln of what a base used e^gap times is worth in uses, and ln of its elasticity, which may be very small."""
    extra = np.expm1(np.minimum(gap, MOST))
    worth = np.log1p(limit * -np.expm1(-extra / limit))
    return worth, gap - extra / limit - worth


def _lean(law: Any, gap_n: Any, gap_d: Any, supported: Any, log_u: Any) -> Any:
    """Ln of the ratio of -dL/d ln N to -dL/d ln D: above 0 where a larger network is better."""
    (n, f_n), (d, f_d) = _used(gap_n, law.R_N), _used(gap_d, law.R_D)
    of_size = np.log(law.alpha * law.A) - law.alpha * (supported + n) + f_n
    return of_size - (np.log(law.beta * law.B) - law.beta * (log_u + d) + f_d)


def _bend(gap: Any, limit: Any, exponent: Any) -> Any:
    """How fast ln of a term's slope falls with ln of what it is a term of."""
    extra = np.expm1(np.minimum(gap, MOST))
    by_gap = saturated(extra, limit).by_gap
    return exponent * by_gap - (1 - (1 + extra) / limit - by_gap)
