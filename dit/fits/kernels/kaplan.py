"""Kaplan's kernel: L = [(N_c/N)^(alpha_N/alpha_D) + D_c/D]^alpha_D, whose two errors do not add but join.

Source: Kaplan et al. 2001.08361, equation 1.5. It has no floor, and N* ~ C^a with a = alpha_D / (alpha_N + alpha_D).
"""

from collections.abc import Callable, Sequence

import numpy as np

from dit.fits.kernels.kernel import Kernel, best_of_parts, mesh, projected
from dit.fits.points import Points
from dit.fits.search import Axis
from dit.fits.starts import GRID, STEEPEST

Array = np.ndarray
PARTS = 5  # of the grid along each exponent


class Kaplan(Kernel):
    """In theta = (ln S, alpha_N, ln T, alpha_D): alone, size leaves the loss S N^-alpha_N, data T D^-alpha_D."""

    name, parameters = "kaplan", ("N_c", "alpha_N", "D_c", "alpha_D")

    def columns(self, points: Points) -> tuple[Array, ...]:
        """Ln N and ln D."""
        return np.log(points.get("n")), np.log(points.get("d"))

    def value(self, theta: Array, x: Sequence[Array], centre: Sequence[float]) -> Array:
        """Equation 1.5, in logarithms."""
        size, data, sharp = self._terms(theta, x)
        return sharp * np.logaddexp(size, data)

    def slopes(self, theta: Array, x: Sequence[Array], centre: Sequence[float]) -> Array:
        """The derivatives of ``value``."""
        size, data, sharp = self._terms(theta, x)
        joined = np.logaddexp(size, data)
        of_size, of_data = np.exp(size - joined), np.exp(data - joined)
        by_sharp = joined - of_size * size - of_data * theta[:, 2:3] / sharp
        return np.stack(np.broadcast_arrays(of_size, -of_size * x[0], of_data, by_sharp), axis=-1)

    @staticmethod
    def _terms(theta: Array, x: Sequence[Array]) -> tuple[Array, Array, Array]:
        """Ln of the two terms in the bracket, and alpha_D (NaN where it is not positive)."""
        s, alpha_n, t, alpha_d = (theta[:, i : i + 1] for i in range(4))
        sharp = np.where(alpha_d > 0, alpha_d, np.nan)
        return (s - alpha_n * x[0]) / sharp, t / sharp - x[1], sharp

    def starts(self, x: Sequence[Array], y: Array, centre: Sequence[float]) -> Array:
        """Starts (25, 4): for given exponents L^(1/alpha_D) is linear in two coefficients."""
        alpha_n, alpha_d = mesh(GRID / np.ptp(x[0]), GRID / np.ptp(x[1]))
        level, sharp = y.mean(), alpha_d[:, None]
        terms = np.stack([-alpha_n[:, None] / sharp * x[0], np.broadcast_to(-x[1], (len(sharp), len(y)))], -1)
        log, cost = projected(terms, (y - level) / sharp)
        rows, columns = np.divmod(np.arange(len(cost)), len(GRID))
        chosen = best_of_parts(
            cost * alpha_d**2, rows * PARTS // len(GRID) * PARTS + columns * PARTS // len(GRID)
        )
        s, t = (level + alpha_d[chosen] * log[chosen, k] for k in range(2))
        return np.stack([s, alpha_n[chosen], t, alpha_d[chosen]], 1)

    def read(self, theta: Array, centre: Sequence[float]) -> Array:
        """N_c, alpha_N, D_c, alpha_D; N_c = S^(1/alpha_N)."""
        s, alpha_n, t, alpha_d = np.moveaxis(theta, -1, 0)
        with np.errstate(all="ignore"):
            scales = np.exp(s / alpha_n + centre[0]), np.exp(t / alpha_d + centre[1])
        return np.stack([scales[0], alpha_n, scales[1], alpha_d], -1)

    def axes(self, x: Sequence[Array], level: Callable[[int], Axis]) -> dict[str, Axis]:
        """The two exponents, and a."""
        steepest = [STEEPEST / np.ptp(one) for one in x]
        return {
            "a": Axis(3, 0.01, 0.99, other=1),
            "alpha_N": Axis(1, 1e-3 * steepest[0], steepest[0]),
            "alpha_D": Axis(3, 1e-3 * steepest[1], steepest[1]),
        }
