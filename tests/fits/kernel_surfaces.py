"""The laws of dit/fits/kernels as their papers print them, and points on them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from dit.fits.points import Points


class Printed(NamedTuple):
    """A law as printed: its formula of columns and parameters, true parameters, and ranges for random starts."""

    formula: Callable[..., Any]
    true: dict[str, float]
    ranges: tuple[tuple[float, float], ...]
    columns: dict[str, np.ndarray]

    def points(self, noise: float = 0.0, seed: int = 0) -> Points:
        """Points with relative noise."""
        loss = self.formula(self.columns, *self.true.values())
        noisy = loss * np.exp(noise * np.random.default_rng(seed).standard_normal(len(loss)))
        return Points(noisy, **self.columns)


def _plane() -> dict[str, np.ndarray]:
    n, c = (x.ravel() for x in np.meshgrid(np.geomspace(1e6, 1e9, 8), np.geomspace(1e16, 1e20, 6)))
    return {"n": n, "d": c / (6 * n), "c": c}


def _shapes() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    width, depth, d = (
        2 ** rng.uniform(7, 11, 60),
        np.round(2 ** rng.uniform(1.6, 5.5, 60)),
        10 ** rng.uniform(9, 11, 60),
    )
    return {"n": 12 * width**2 * depth, "d": d, "width": width, "depth": depth}


PRINTED = {
    "kaplan": Printed(  # 2001.08361, equation 1.5 with its fitted constants
        lambda x, n_c, a_n, d_c, a_d: ((n_c / x["n"]) ** (a_n / a_d) + d_c / x["d"]) ** a_d,
        {"N_c": 8.8e13, "alpha_N": 0.076, "D_c": 5.4e13, "alpha_D": 0.095},
        ((1e11, 1e15), (0.03, 0.2), (1e11, 1e15), (0.03, 0.2)),
        _plane(),
    ),
    "farseer": Printed(  # 2506.10972
        lambda x, a1, b1, g1, a2, b2, g2, a3, b3, g3: np.exp(a3 * x["n"] ** g3 + b3)
        + np.exp(a2 * x["n"] ** g2 + b2) * x["d"] ** -np.exp(a1 * x["n"] ** g1 + b1),
        {"a1": -0.0025, "b1": -1.0, "g1": 0.2, "a2": 8e-5, "b2": 9.0, "g2": 0.3, "a3": -0.08, "b3": 1.1, "g3": 0.1},
        ((-0.005, 0.005), (-1.5, -0.5), (0.1, 0.3), (-1e-4, 1e-4), (7, 11), (0.2, 0.4), (-0.2, 0), (0.5, 1.5),
         (0.05, 0.2)),
        _plane(),
    ),
    "broken_power": Printed(  # 2210.14891, equation 1 with one break
        lambda x, e, k, c0, c1, at, f: e + k * (x["c"] / 1e18) ** -c0 * (1 + (x["c"] / at) ** (1 / f)) ** (-c1 * f),
        {"E": 0.5, "K": 2.1, "c0": 0.05, "c1": 0.3, "x1": 1e18, "f": 0.5},
        ((0.2, 0.8), (0.5, 4), (0.01, 0.2), (0.05, 0.6), (1e17, 1e19), (0.1, 1.5)),
        {"c": np.geomspace(1e15, 1e21, 30)},
    ),
    "width_depth": Printed(  # 2502.06857, the law of three terms
        lambda x, a, p, b, q, c, r, e: e + a * x["width"] ** -p + b * x["depth"] ** -q + c * x["d"] ** -r,
        {"A_w": 20, "alpha_w": 0.6, "A_l": 2, "alpha_l": 0.9, "A_D": 600, "alpha_D": 0.33, "E": 1.8},
        ((5, 40), (0.3, 1), (1, 4), (0.4, 1.5), (300, 900), (0.25, 0.4), (1, 2)),
        _shapes(),
    ),
    "width_depth_size": Printed(  # and of four
        lambda x, a, p, b, q, k, s, c, r, e: e
        + a * x["width"] ** -p + b * x["depth"] ** -q + k * x["n"] ** -s + c * x["d"] ** -r,
        {"A_w": 20, "alpha_w": 0.6, "A_l": 2, "alpha_l": 0.9, "A_N": 300, "alpha_N": 0.4, "A_D": 600, "alpha_D": 0.33,
         "E": 1.8},
        ((5, 40), (0.3, 1), (1, 4), (0.4, 1.5), (100, 600), (0.3, 0.6), (300, 900), (0.25, 0.4), (1, 2)),
        _shapes(),
    ),
}  # fmt: skip


class Surface(NamedTuple):
    """A random surface: its loss of N and D, by which grids are laid out and intervals are judged; C = 6 N D."""

    loss: Callable[[Any, Any], Any]
    k: float = 6.0

    def n_opt(self, c: float) -> float:
        """The lowest valley over ln N, from a thousandth to a thousand times sqrt(C/(100 k)), which is near it."""
        middle = 0.5 * np.log(c / (100 * self.k))

        def along(u: float) -> float:
            return float(self.loss(np.exp(u), c / self.k / np.exp(u)))

        grid = middle + np.linspace(-7, 7, 141)
        values = np.array([along(u) for u in grid])
        valleys = 1 + np.flatnonzero((values[1:-1] < values[:-2]) & (values[1:-1] <= values[2:]))
        best = grid[valleys[np.argmin(values[valleys])]]
        found: Any = minimize_scalar(along, bounds=(best - 0.1, best + 0.1), method="bounded")
        return float(np.exp(found.x))

    def loss_opt(self, c: float) -> float:
        """The loss there."""
        n = self.n_opt(c)
        return float(self.loss(n, c / self.k / n))

    def slope(self, c: float) -> float:
        """Of ln N* in ln C, over a factor e about ``c``."""
        return float(np.log(self.n_opt(c * np.exp(0.5)) / self.n_opt(c * np.exp(-0.5))))


def kaplan_surface(rng: np.random.Generator) -> Surface:
    """Exponents of .05 to .25, a loss of 2 to 4 at N* = 1e7 and D* = 1e9."""
    (alpha_n, alpha_d), level = rng.uniform(0.05, 0.25, 2), rng.uniform(2, 4)
    r = alpha_n / alpha_d
    size = level ** (1 / alpha_d) / (1 + r)  # of the bracket there; data r times that, as dL/dN = 0 has it
    return Surface(lambda n, d: (size * (1e7 / n) ** r + r * size * 1e9 / d) ** alpha_d)


def moving_surface(rng: np.random.Generator) -> Surface:
    """The additive law's random surfaces, but for an exponent of data that moves by up to 15 % over a factor e^5 of N.

    Its data term at D = 1e9 hardly moves, so that N* stays near 1e7 at 6e16 FLOPs.
    """
    (alpha, beta), share = rng.uniform(0.25, 0.5, 2), rng.uniform(0.05, 0.25)
    moved = rng.uniform(-0.15, 0.15)

    def loss(n: Any, d: Any) -> Any:
        power = (n / 1e7) ** 0.2
        data = np.log(share / beta) + beta * np.log(1e9) * (1 + moved * (power - 1))
        return np.exp(share / alpha * (n / 1e7) ** -alpha) + np.exp(data) * d ** -(
            beta * np.exp(moved * (power - 1))
        )

    return Surface(loss)
