"""Laws as log-sum-exp of terms that are linear in the parameters.

Legend: K terms, R rows, n points, p parameters. ln L = ln sum_k exp(offset_k + G_k theta). With three terms
this is L = E + A N^-alpha + B D^-beta, with two a power law with a floor, with one a power law. Gradients and
Hessians summed over points are plain matrix products, so thousands of bootstrap rows advance in one call.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from dit.fits.newton import Straight

Array = np.ndarray
FLOOR = -700.0  # exp of it is still a normal number; a term this small is zero for every purpose
ZERO = 1e-9  # share of the lowest loss below which a floor is none: the search goes on in its logarithm


def settled(name: str, value: Any, losses: Array) -> Any:
    """A parameter of a law fitted to ``losses``, or of each draw, as it is told: a trace of a floor is zero."""
    return np.where(value < ZERO * losses.min(), 0.0, value) if name in ("E", "floor") else value


@dataclass(frozen=True)
class LogSumExp(Straight):
    """ln of a sum of exponentials of linear terms.

    Args:
        designs: (K, n, p) the matrices G_k.
        offsets: (K, n) fixed parts of the terms (profiles fix a parameter through them).
    """

    designs: Array
    offsets: Array
    _pairs: list[tuple[int, int, Array, Array]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_pairs", list(self._products()))

    @cached_property
    def n_parameters(self) -> int:
        """Number of parameters p."""
        return self.designs.shape[2]

    def _products(self):
        k_terms, n, p = self.designs.shape
        for k in range(k_terms):
            for m in range(k, k_terms):
                outer = (self.designs[k][:, :, None] * self.designs[m][:, None, :]).reshape(n, p * p)
                if m > k:
                    outer = outer + (self.designs[m][:, :, None] * self.designs[k][:, None, :]).reshape(
                        n, p * p
                    )
                columns = np.flatnonzero(np.abs(outer).sum(0))
                yield k, m, columns, np.ascontiguousarray(outer[:, columns])

    def value(self, theta: Array) -> Array:
        """Predicted ln L (R, n) for parameters (R, p)."""
        return self.value_and_shares(theta)[0]

    def value_and_shares(self, theta: Array) -> tuple[Array, list[Array]]:
        """Predicted ln L (R, n) and each term's share of L, K arrays (R, n) that add up to 1."""
        terms = [theta @ g.T + o for g, o in zip(self.designs, self.offsets)]
        if len(terms) == 1:
            return terms[0], [np.ones_like(terms[0])]
        top = terms[0].copy()
        for term in terms[1:]:
            np.maximum(top, term, out=top)
        shares = [np.exp(np.maximum(term - top, FLOOR)) for term in terms]
        total = shares[0] + shares[1]
        for share in shares[2:]:
            total += share
        for share in shares:
            share /= total
        return top + np.log(total), shares

    def shares(self, theta: Array) -> list[Array]:
        """Each term's share of L, K arrays (R, n)."""
        return self.value_and_shares(theta)[1]

    def jacobian(self, theta: Array) -> Array:
        """D ln L / d theta, (R, n, p)."""
        shares = self.value_and_shares(theta)[1]
        return sum(share[:, :, None] * g for share, g in zip(shares, self.designs))  # type: ignore[return-value]

    def contract(self, shares: list[Array], first: Array, second: Array) -> tuple[Array, Array]:
        """Gradient (R, p) and Hessian (R, p, p) of sum rho, given w rho' and w rho'' (R, n)."""
        rows, p = first.shape[0], self.n_parameters
        gradient = np.zeros((rows, p))
        for share, g in zip(shares, self.designs):
            gradient += (first * share) @ g
        hessian = np.zeros((rows, p * p))
        curved = second - first
        for k, m, columns, outer in self._pairs:
            weight = curved * shares[k]
            weight = weight * shares[k] + first * shares[k] if k == m else weight * shares[m]
            hessian[:, columns] += weight @ outer
        return gradient, hessian.reshape(rows, p, p)


def additive(n: Array, d: Array) -> LogSumExp:
    """E + A n^-alpha + B d^-beta in theta = (ln A, alpha, ln B, beta, ln E).

    Args:
        n: (points,) ln N, centred.
        d: (points,) ln D, centred.
    """
    return terms_of(n, d)


def terms_of(*x: Array) -> LogSumExp:
    """E + sum_i A_i x_i^-alpha_i in theta = (ln A_1, alpha_1, ..., ln E), for centred ln x_i (points,) each."""
    one, zero = np.ones_like(x[0]), np.zeros_like(x[0])
    rows = [[zero] * (2 * len(x) + 1) for _ in range(len(x) + 1)]
    for i, column in enumerate(x):
        rows[i][2 * i], rows[i][2 * i + 1] = one, -column
    rows[-1][-1] = one
    return _law(rows)


def power(x: Array) -> LogSumExp:
    """K x^-p in theta = (ln K, p); ``x`` (points,) is centred ln x."""
    return _law([[np.ones_like(x), -x]])


def power_floor(x: Array) -> LogSumExp:
    """E + K x^-p in theta = (ln K, p, ln E); ``x`` (points,) is centred ln x."""
    return terms_of(x)


def _law(columns: list[list[Array]]) -> LogSumExp:
    designs = np.stack([np.stack(term, axis=1) for term in columns])
    return LogSumExp(designs, np.zeros(designs.shape[:2]))
