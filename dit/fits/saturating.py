"""The law of repeated data as the optimiser sees it: ln L with its gradient and Hessian, many fits side by side.

Effective size and data are e^s and e^g: s = sigma + f(n - sigma, R_N) above the supported size e^sigma and s = n below
it; g = u + f(d - u, R_D). alpha sigma = ln A + ln alpha - ln B - ln beta + beta u, so its curvature in the parameters
is that of the two logarithms, and its slopes are v = v0 + u v1 with v0 and v1 the same at every point.

Source: Muennighoff et al. 2305.16264, equations 5 and 6. Legend: R rows (starts or draws), n points.
"""

from typing import NamedTuple

import numpy as np

Array = np.ndarray
LN_A, ALPHA, LN_B, BETA, LN_E, LN_R_D, LN_R_N = range(7)
SIZE = [LN_A, ALPHA, LN_B, BETA, LN_R_N]  # what the size term moves with
DATA = [LN_B, BETA, LN_R_D]  # what the data term moves with
LEAST = 0.1  # of E that a curved step leaves
LONGEST = 2.0  # step in the logarithm of an exponent
MOST = 700.0  # ln of a number that is still one: a base used that often is used up, whatever R is


class Curve(NamedTuple):
    """ln(1 + R (1 - exp(-x/R))) for x uses beyond the first, with its derivatives in the gap ln(1 + x) and in ln R."""

    value: Array
    by_gap: Array
    by_r: Array
    by_gap_gap: Array
    by_gap_r: Array
    by_r_r: Array


class State(NamedTuple):
    """What ``Saturating.contract`` needs of a row of parameters; arrays are (R, n), or (R, 1) where they end in _."""

    alpha_: Array
    beta_: Array
    kappa_: Array  # sigma = kappa + beta/alpha u
    shares: list[Array]
    size: Array
    above: Curve
    slope: Array  # of s in sigma: 0 where the size is supported
    data: Array
    repeated: Curve


def saturated(extra: Array, limit: Array) -> Curve:
    """The curve of saturation.

    Args:
        extra: uses beyond the first, x >= 0.
        limit: R.
    """
    share = np.minimum(extra / limit, MOST)
    gone = -np.expm1(-share)
    left = 1 - gone
    total = 1 + limit * gone
    raised = (1 + extra) * left
    by_gap, by_r = raised / total, (limit * gone - extra * left) / total
    return Curve(
        np.log(total),
        by_gap,
        by_r,
        by_gap * (1 - share - 1 / limit - by_gap),
        raised * share / total - by_gap * by_r,
        by_r - extra * share * left / total - by_r**2,
    )


class Saturating:
    """ln L of the law on points, in theta = (ln A, alpha, ln B, beta, ln E, ln R_D, ln R_N), N and D centred.

    Args:
        n: (points,) centred ln N.
        d: (points,) centred ln D.
        u: (points,) ln of unique samples, centred as ``d``, at most ``d``.
    """

    scaled = True

    def __init__(self, n: Array, d: Array, u: Array) -> None:
        self.n, self.d, self.u = n, d, u
        self.extra = np.expm1(np.minimum(d - u, MOST))
        self.powers = np.stack([np.ones_like(u), u, u * u], 1)

    def value(self, theta: Array) -> Array:
        """Predicted ln L (R, n) for parameters (R, 7)."""
        return self.value_and_shares(theta)[0]

    def shares(self, theta: Array) -> list[Array]:
        """Each term's share of L, three arrays (R, n)."""
        return self.value_and_shares(theta)[1].shares

    def value_and_shares(self, theta: Array) -> tuple[Array, State]:
        """Predicted ln L (R, n), and what ``contract`` wants to know of it."""
        log_a, alpha, log_b, beta, log_e, log_rd, log_rn = (theta[:, i : i + 1] for i in range(7))
        with np.errstate(all="ignore"):  # a trial with a negative exponent is refused by its objective
            kappa = (log_a + np.log(alpha) - log_b - np.log(beta)) / alpha
            gap = self.n - kappa - beta / alpha * self.u
            beyond = gap > 0
            above = saturated(np.expm1(np.minimum(np.where(beyond, gap, 0.0), MOST)), np.exp(log_rn))
            repeated = saturated(self.extra, np.exp(log_rd))
            size = np.where(beyond, self.n - gap + above.value, self.n)
            data = self.u + repeated.value
            terms = log_a - alpha * size, log_b - beta * data
            top = np.maximum(np.maximum(*terms), log_e)
            shares = [np.exp(term - top) for term in (*terms, log_e)]
            total = shares[0] + shares[1] + shares[2]
            shares = [share / total for share in shares]
        slope = np.where(beyond, 1 - above.by_gap, 0.0)
        return top + np.log(total), State(alpha, beta, kappa, shares, size, above, slope, data, repeated)

    def jacobian(self, theta: Array) -> Array:
        """D ln L / d theta, (R, n, 7)."""
        state = self.value_and_shares(theta)[1]
        return self._slopes(state, *self._terms(state)).transpose(0, 2, 1)

    def contract(self, shares: State, first: Array, second: Array) -> tuple[Array, Array]:
        """Gradient (R, 7) and Hessian (R, 7, 7) of sum rho, given w rho' and w rho'' (R, n)."""
        of_size, of_data = self._terms(shares)
        slopes = self._slopes(shares, of_size, of_data)
        gradient = (slopes @ first[..., None])[..., 0]
        weights = [first * share for share in shares.shares]
        hessian = _gram(slopes, second - first)
        hessian[:, LN_E, LN_E] += weights[2].sum(1)
        hessian[:, np.ix_(SIZE, SIZE)[0], np.ix_(SIZE, SIZE)[1]] += _gram(of_size, weights[0])
        hessian[:, np.ix_(DATA, DATA)[0], np.ix_(DATA, DATA)[1]] += _gram(of_data, weights[1])
        self._bend_size(hessian, shares, weights[0])
        repeated, weight = shares.repeated, weights[1]
        _add(hessian, BETA, LN_R_D, -(weight * repeated.by_r).sum(1))
        hessian[:, LN_R_D, LN_R_D] -= shares.beta_[:, 0] * (weight * repeated.by_r_r).sum(1)
        return gradient, hessian

    def moved(self, theta: Array, step: Array) -> Array:
        """Parameters (R, 7) after a step (R, 7), along which A + B + E changes as fast as at its beginning.

        The points know that sum, the loss at their centre, well, and its parts badly: in the logarithms of the three
        this valley is curved, and straight steps along it must be short. So E gives way, unless it would all but
        vanish; and exponents, which are positive, go straight in their logarithms.
        """
        new = theta + step
        for i in (ALPHA, BETA):
            new[:, i] = theta[:, i] * np.exp(np.clip(step[:, i] / theta[:, i], -LONGEST, LONGEST))
        terms = np.exp(theta[:, [LN_A, LN_B, LN_E]])
        level = terms.sum(1)
        with np.errstate(over="ignore", invalid="ignore"):
            level *= np.exp((terms * step[:, [LN_A, LN_B, LN_E]]).sum(1) / level)
            left = level - np.exp(new[:, LN_A]) - np.exp(new[:, LN_B])
        curved = left > LEAST * terms[:, 2]
        new[curved, LN_E] = np.log(left[curved])
        return new

    def _terms(self, state: State) -> tuple[Array, Array]:
        """Slopes of the logarithms of the size term (R, 5, n) in SIZE, and of the data term (R, 3, n) in DATA."""
        alpha, beta, slope = state.alpha_, state.beta_, state.slope
        of_size, of_data = (
            np.empty((len(slope), 5, slope.shape[1])),
            np.empty((len(slope), 3, slope.shape[1])),
        )
        of_size[:, 0] = 1 - slope
        of_size[:, 1] = -state.size - slope * (1 / alpha - state.kappa_ - beta / alpha * self.u)
        of_size[:, 2] = slope
        of_size[:, 3] = -slope * (self.u - 1 / beta)
        of_size[:, 4] = -alpha * state.above.by_r
        of_data[:, 0] = 1.0
        of_data[:, 1] = -state.data
        of_data[:, 2] = -beta * state.repeated.by_r
        return of_size, of_data

    def _slopes(self, state: State, of_size: Array, of_data: Array) -> Array:
        """D ln L / d theta, (R, 7, n)."""
        size_share, data_share, floor = state.shares
        out = np.empty((len(size_share), 7, size_share.shape[1]))
        out[:, [LN_A, ALPHA, LN_R_N]] = size_share[:, None] * of_size[:, [0, 1, 4]]
        shared = size_share[:, None] * of_size[:, [2, 3]]
        out[:, [LN_B, BETA]] = shared + data_share[:, None] * of_data[:, :2]
        out[:, LN_R_D] = data_share * of_data[:, 2]
        out[:, LN_E] = floor
        return out

    def _bend_size(self, hessian: Array, state: State, weight: Array) -> None:
        """Adds the curvature of the size term's logarithm, weighted."""
        alpha, beta, kappa, above = state.alpha_[:, 0], state.beta_[:, 0], state.kappa_[:, 0], state.above
        beyond = state.slope > 0  # s is curved nowhere else
        pulled = (weight * state.slope).sum(1)
        hessian[:, ALPHA, ALPHA] += pulled / alpha**2
        hessian[:, BETA, BETA] -= pulled / beta**2
        one, zero = np.ones_like(alpha), np.zeros_like(alpha)
        v0 = np.stack([one, 1 / alpha - kappa, -one, -1 / beta], 1)
        v1 = np.stack([zero, -beta / alpha, zero, one], 1)
        bent = (np.where(beyond, weight * above.by_gap_gap, 0.0) / -state.alpha_) @ self.powers
        crossed = v0[:, :, None] * v1[:, None, :]
        hessian[:, :4, :4] += (
            bent[:, 0, None, None] * v0[:, :, None] * v0[:, None, :]
            + bent[:, 1, None, None] * (crossed + crossed.transpose(0, 2, 1))
            + bent[:, 2, None, None] * v1[:, :, None] * v1[:, None, :]
        )
        turned = np.where(beyond, weight * above.by_gap_r, 0.0) @ self.powers[:, :2]
        along = turned[:, :1] * v0 + turned[:, 1:] * v1
        hessian[:, :4, LN_R_N] += along
        hessian[:, LN_R_N, :4] += along
        _add(hessian, ALPHA, LN_R_N, -(weight * above.by_r).sum(1))
        hessian[:, LN_R_N, LN_R_N] -= alpha * (weight * above.by_r_r).sum(1)


def _gram(slopes: Array, weight: Array) -> Array:
    """Sum over points of weight slopes slopes', (R, p, p), of slopes (R, p, n) and weights (R, n)."""
    return (slopes * weight[:, None]) @ slopes.transpose(0, 2, 1)


def _add(hessian: Array, i: int, j: int, value: Array) -> None:
    """Adds the values (R,) at both places of a symmetric pair."""
    hessian[:, i, j] += value
    hessian[:, j, i] += value
