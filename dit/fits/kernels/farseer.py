"""A law whose exponent of data moves with N: L = e^(a3 N^g3 + b3) + e^(a2 N^g2 + b2) D^-(e^(a1 N^g1 + b1)).

Source: Li et al. 2506.10972 (Farseer), its final law; a1, b1, ... as there, its exponents of N called g1, g2, g3.
"""

from collections.abc import Sequence

import numpy as np

from dit.fits.kernels.kernel import Kernel, best_of_parts, mesh, projected
from dit.fits.newton import TINY
from dit.fits.points import Points

Array = np.ndarray
BOUND = 5.0  # |g| times the range of ln N below which it is kept: beyond, its function is a spike on the last size
SMALL = 1e-4  # g n below which the power is its series
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
        return np.logaddexp(*self._terms(theta, x, centre)[:2])

    def _terms(self, theta: Array, x: Sequence[Array], centre: Sequence[float]) -> tuple[Array, ...]:
        """Ln of both terms, the exponent of D, its value at the centre, and the three powers of N with their slopes."""
        u, u1, t3, v, v1, t2, w, w1, t1 = (theta[:, i : i + 1] for i in range(9))
        floor, size, power = (self._power(t, x[0]) for t in (t3, t2, t1))
        middle = np.exp(w)
        exponent = np.exp(w + w1 * power[0])
        # ln B(N) = v + v' h + (its part that keeps v and v' those of the term at the centre of ln D)
        data = v + v1 * size[0] + middle * (1 + w1 * size[0]) * centre[1] - exponent * (x[1] + centre[1])
        return u + u1 * floor[0], data, exponent, middle, *floor, *size, *power

    def _power(self, t: Array, n: Array) -> tuple[Array, Array]:
        """(e^(g n) - 1)/g and its slope in t."""
        bent = np.tanh(t)
        power, slope = _power(self.bound * bent, n)
        return power, slope * self.bound * (1 - bent**2)

    def slopes(self, theta: Array, x: Sequence[Array], centre: Sequence[float]) -> Array:
        """The derivatives of ``value``."""
        floor, data, exponent, middle, h3, h3_g, h2, h2_g, h1, h1_g = self._terms(theta, x, centre)
        u1, v1, w1 = (theta[:, i : i + 1] for i in (1, 4, 7))
        joined, d = np.logaddexp(floor, data), x[1] + centre[1]
        of_floor, of_data = np.exp(floor - joined), np.exp(data - joined)
        pulled = (v1 + middle * w1 * centre[1]) * h2_g
        return np.stack(
            np.broadcast_arrays(
                of_floor, of_floor * h3, of_floor * u1 * h3_g,
                of_data, of_data * h2, of_data * pulled,
                of_data * (middle * (1 + w1 * h2) * centre[1] - exponent * d),
                of_data * (middle * h2 * centre[1] - exponent * h1 * d),
                -of_data * exponent * w1 * h1_g * d,
            ),
            axis=-1,
        )  # fmt: skip

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


def _power(g: Array, n: Array) -> tuple[Array, Array]:
    """(e^(g n) - 1)/g and its slope in g, whatever g is."""
    scaled = g * n
    small = np.abs(scaled) < SMALL
    safe, raised = np.where(small, 1.0, g), np.where(small, 0.0, scaled)
    power = np.where(small, n * (1 + scaled / 2 + scaled**2 / 6), np.expm1(raised) / safe)
    series = n * n * (0.5 + scaled / 3 + scaled**2 / 8)
    return power, np.where(small, series, (n * np.exp(raised) - power) / safe)
