"""A law whose exponent of data moves with N: L = e^(a3 N^g3 + b3) + e^(a2 N^g2 + b2) D^-(e^(a1 N^g1 + b1)).

Source: Li et al. 2506.10972 (Farseer), its final law; a1, b1, ... as there, its exponents of N called g1, g2, g3.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dit.fits.kernels.kernel import Curve, Kernel, best_of_parts, mesh, projected
from dit.fits.newton import TINY
from dit.fits.points import Points

Array = np.ndarray
Powers = tuple[Array, Array, Array]
Curvature = tuple[dict[tuple[int, int], Array], dict[tuple[int, int], Array]]
BOUND = 5.0  # |g| times the range of ln N below which it is kept: beyond, its function is a spike on the last size
SMALL = 1e-3  # g n below which the power is its series
BENDS = (-0.2, 0.2)  # starts of t
PARTS = 3  # of the grid along each of its four axes


class Farseer(Kernel):
    """In theta = (u, u', t3, v, v', t2, w, w', t1): values and slopes of three functions of ln N at its centre.

    Each is c + c' (e^(g n) - 1)/g in centred n = ln N, g = G tanh t with G of BOUND, which is a N^g + b in other
    coordinates: ln of the floor that a size leaves, ln of the data term at the centre of ln D, and ln of the exponent
    of data.
    """

    name = "farseer"
    parameters = ("a1", "b1", "g1", "a2", "b2", "g2", "a3", "b3", "g3")

    def __init__(self, points: Points) -> None:
        self.bound = BOUND / max(float(np.ptp(np.log(points.get("n")))), TINY)

    def columns(self, points: Points) -> tuple[Array, ...]:
        """Ln N and ln D."""
        return np.log(points.get("n")), np.log(points.get("d"))

    def value(self, theta: Array, x: Sequence[Array], centre: Sequence[float]) -> Array:
        """The law, in logarithms."""
        floor, data, *_ = self._parts(theta, x, centre)
        return np.logaddexp(floor, data)

    def _parts(self, theta: Array, x: Sequence[Array], centre: Sequence[float]) -> tuple[Any, ...]:
        """Ln of both terms, what the data term is made of, and the three powers of N with two derivatives in t each."""
        u, u1, t3, v, v1, t2, w, w1, t1 = (theta[:, i : i + 1] for i in range(9))
        floor, size, power = (self._power(t, x[0]) for t in (t3, t2, t1))
        # ln B(N) = v + v' h + middle (1 + w' h), which keeps v and v' those of the term at the centre of ln D
        middle = np.exp(w) * centre[1]
        pulled = np.exp(w + w1 * power[0]) * (x[1] + centre[1])  # exponent of data times ln D
        kept = middle * (1 + w1 * size[0])
        return u + u1 * floor[0], v + v1 * size[0] + kept - pulled, middle, pulled, kept, floor, size, power

    def slopes(self, theta: Array, x: Sequence[Array], centre: Sequence[float]) -> Array:
        """The derivatives of ``value``."""
        floor, data, *parts = self._parts(theta, x, centre)
        joined = np.logaddexp(floor, data)
        of_floor, of_data = self._gradients(theta, *parts)
        both = [np.exp(floor - joined) * one for one in of_floor] + [
            np.exp(data - joined) * one for one in of_data
        ]
        return np.stack(np.broadcast_arrays(*both), axis=-1)

    @staticmethod
    def _gradients(
        theta: Array, middle: Array, pulled: Array, kept: Array, floor: Powers, size: Powers, power: Powers
    ) -> tuple[list[Array], list[Array]]:
        """Slopes of ln of the terms: of the floor in theta[0:3], of the data term in theta[3:9]."""
        u1, v1, w1 = (theta[:, i : i + 1] for i in (1, 4, 7))
        one = np.ones_like(pulled)
        of_data = [
            one, size[0] * one, (v1 + middle * w1) * size[1],
            kept - pulled, middle * size[0] - power[0] * pulled, -pulled * w1 * power[1],
        ]  # fmt: skip
        return [one, floor[0] * one, u1 * floor[1] * one], of_data

    def law(self, x: Sequence[Array], centre: Sequence[float]) -> "FarseerCurve":
        """With exact curvature: differences of nine slopes take four times as long."""
        return FarseerCurve(self, x, centre)

    def curvature(
        self, theta: Array, middle: Array, pulled: Array, kept: Array, *powers: Powers
    ) -> Curvature:
        """Second derivatives of ln of the terms that are not zero, by places in theta."""
        floor, size, power = powers
        u1, v1, w1 = (theta[:, i : i + 1] for i in (1, 4, 7))
        of_floor = {(1, 2): floor[1], (2, 2): u1 * floor[2]}
        of_data = {
            (4, 5): size[1], (5, 5): (v1 + middle * w1) * size[2], (5, 6): middle * w1 * size[1],
            (5, 7): middle * size[1], (6, 6): kept - pulled, (6, 7): middle * size[0] - power[0] * pulled,
            (6, 8): -pulled * w1 * power[1], (7, 7): -pulled * power[0] ** 2,
            (7, 8): -pulled * power[1] * (1 + w1 * power[0]),
            (8, 8): -pulled * (w1 * power[2] + (w1 * power[1]) ** 2),
        }  # fmt: skip
        return of_floor, of_data

    def _power(self, t: Array, n: Array) -> Powers:
        """(e^(g n) - 1)/g at g = G tanh t, and its first and second derivative in t."""
        bent = np.tanh(t)
        power, slope, curve = _power(self.bound * bent, n)
        by_t = self.bound * (1 - bent**2)
        return power, slope * by_t, curve * by_t**2 - 2 * bent * by_t * slope

    def starts(self, x: Sequence[Array], y: Array, centre: Sequence[float]) -> Array:
        """Starts: with g = 0 and given slopes in ln N and exponent of data, the law is linear in two coefficients."""
        n, d = x
        across, over = np.ptp(n), np.ptp(d)
        floors = np.array([-1.0, -0.3, -0.1, -0.03, 0.0, 0.03]) / across
        sizes = np.array([-3.0, -1.0, -0.3, 0.0, 0.5]) / across
        exponents = np.array([0.3, 1.0, 2.0, 4.0, 8.0]) / over
        moves = np.array([-0.7, -0.2, 0.0, 0.2, 0.7]) / across
        shape = [len(one) for one in (floors, sizes, exponents, moves)]
        u1, v1, a0, w1 = mesh(floors, sizes, exponents, moves)
        exponent = a0[:, None] * np.exp(w1[:, None] * n)
        drift = (a0 * w1)[:, None] * n * centre[1] - (exponent - a0[:, None]) * centre[1]
        terms = np.stack([u1[:, None] * n, v1[:, None] * n + drift - exponent * d], -1)
        log, cost = projected(terms, y)
        places = np.stack(np.unravel_index(np.arange(len(cost)), shape), 1) * PARTS // np.array(shape)
        chosen = best_of_parts(cost, places @ PARTS ** np.arange(4))[:24]
        rows = [
            [log[i, 0], u1[i], bend, log[i, 1], v1[i], other, np.log(a0[i]), w1[i], other]
            for i in chosen
            for bend in BENDS
            for other in BENDS[: 1 + (i in chosen[:6])]
        ]
        return np.array(rows)

    def read(self, theta: Array, centre: Sequence[float]) -> Array:
        """a1, b1, g1, a2, b2, g2, a3, b3, g3 for N and D in their own units."""
        u, u1, t3, v, v1, t2, w, w1, t1 = np.moveaxis(theta, -1, 0)
        g3, g2, g1 = (self.bound * np.tanh(t) for t in (t3, t2, t1))
        middle = np.exp(w)
        found = []
        pairs = ((w, w1, g1), (v + middle * centre[1], v1 + middle * w1 * centre[1], g2), (u, u1, g3))
        with np.errstate(all="ignore"):
            for level, slope, g in pairs:
                found += [slope / g * np.exp(-g * centre[0]), level - slope / g, g]
        return np.stack(found, -1)


class FarseerCurve(Curve):
    """The law on given points, with exact curvature."""

    def contract(self, shares: Array, first: Array, second: Array) -> tuple[Array, Array]:
        """Gradient (R, 9) and Hessian (R, 9, 9) of sum rho at theta ``shares``; w rho', w rho'': (R, n).

        Of ln(e^f + e^g) with shares s: s_f (H_f + f' f'^T) + s_g (H_g + g' g'^T) less the mean slope's square.
        """
        kernel, theta = self.kernel, shares
        assert isinstance(kernel, Farseer)
        with np.errstate(all="ignore"):
            floor, data, *parts = kernel._parts(theta, self.x, self.centre)
            joined = np.logaddexp(floor, data)
            shared = np.exp(floor - joined), np.exp(data - joined)
            hessian = np.zeros((len(theta), 9, 9))
            means = []
            for share, slopes, at in zip(
                shared, kernel._gradients(theta, *parts), (slice(0, 3), slice(3, 9))
            ):
                own = np.stack(slopes, axis=-1)
                hessian[:, at, at] += own.transpose(0, 2, 1) @ ((first * share)[..., None] * own)
                means.append(share[..., None] * own)
            mean = np.concatenate(means, axis=-1)
            hessian += mean.transpose(0, 2, 1) @ ((second - first)[..., None] * mean)
            for share, curved in zip(shared, kernel.curvature(theta, *parts)):
                for (i, j), value in curved.items():
                    total = (first * share * value).sum(1)
                    hessian[:, i, j] += total
                    if i != j:
                        hessian[:, j, i] += total
        return np.einsum("rn,rnp->rp", first, mean), hessian


def _power(g: Array, n: Array) -> Powers:
    """(e^(g n) - 1)/g and its first and second derivative in g, whatever g is."""
    scaled = g * n
    small = np.abs(scaled) < SMALL
    safe, raised = np.where(small, 1.0, g), np.exp(np.where(small, 0.0, scaled))
    power = np.where(
        small, n * (1 + scaled / 2 + scaled**2 / 6), np.expm1(np.where(small, 0.0, scaled)) / safe
    )
    slope = np.where(small, n**2 * (1 / 2 + scaled / 3 + scaled**2 / 8), (n * raised - power) / safe)
    curve = np.where(small, n**3 * (1 / 3 + scaled / 4 + scaled**2 / 10), (n**2 * raised - 2 * slope) / safe)
    return power, slope, curve
