"""A power law with one smooth break: y = E + K x^-c0 (1 + (x/x1)^(1/f))^(-c1 f), x being C (or the one of N and D).

Source: Caballero et al. 2210.14891, equation 1 with n = 1.
"""

from collections.abc import Callable, Sequence

import numpy as np

from dit.fits.kernels.kernel import Kernel, best_of_parts, mesh, projected
from dit.fits.points import Points
from dit.fits.power import regressor
from dit.fits.search import Axis
from dit.fits.starts import STEEPEST

Array = np.ndarray


class BrokenPower(Kernel):
    """In theta = (ln E, ln K, c0, c1, ln x1, ln f), x centred."""

    name, exponent, allocates = "broken_power", "exponent", False
    parameters = ("floor", "coefficient", "exponent", "exponent_after", "break_at", "sharpness")
    terms, intercepts = ("floor", "coefficient"), (0, 1)

    def __init__(self, points: Points) -> None:
        self.x = regressor(points)[0]

    def columns(self, points: Points) -> tuple[Array, ...]:
        """Ln of the one regressor."""
        return (np.log(regressor(points)[1]),)

    def value(self, theta: Array, x: Sequence[Array], centre: Sequence[float]) -> Array:
        """The law, in logarithms."""
        return np.logaddexp(*self._terms(theta, x)[:2])

    @staticmethod
    def _terms(theta: Array, x: Sequence[Array]) -> tuple[Array, Array, Array, Array, Array]:
        """Ln of floor and of the falling term; f, the distance to the break, and f ln(1 + e^(distance/f))."""
        floor, level, before, more, at, log_f = (theta[:, i : i + 1] for i in range(6))
        width = np.exp(log_f)
        past = x[0] - at
        bent = width * np.logaddexp(0, past / width)
        return floor + 0 * x[0], level - before * x[0] - more * bent, width, past, bent

    def shares(self, theta: Array, x: Sequence[Array]) -> list[Array]:
        """The shares of floor and falling term."""
        floor, falling, *_ = self._terms(theta, x)
        joined = np.logaddexp(floor, falling)
        return [np.exp(floor - joined), np.exp(falling - joined)]

    def slopes(self, theta: Array, x: Sequence[Array], centre: Sequence[float]) -> Array:
        """The derivatives of ``value``."""
        floor, falling, width, past, bent = self._terms(theta, x)
        joined, more = np.logaddexp(floor, falling), theta[:, 3:4]
        share, beyond = np.exp(falling - joined), 1 / (1 + np.exp(-past / width))
        parts = (np.exp(floor - joined), share, -share * x[0], -share * bent, share * more * beyond,
                 -share * more * (bent - beyond * past))  # fmt: skip
        return np.stack(np.broadcast_arrays(*parts), axis=-1)

    def starts(self, x: Sequence[Array], y: Array, centre: Sequence[float]) -> Array:
        """Starts (21, 6): the cheapest exponents for each of seven breaks and three widths of them."""
        across = np.ptp(x[0])
        slopes = np.array([0.0, 0.1, 0.3, 0.7, 1.3, 2.5, 5.0, 10.0]) / across
        breaks = np.quantile(x[0], np.linspace(0.1, 0.9, 7))
        before, after, at, width = mesh(slopes, slopes, breaks, np.array([0.02, 0.1, 0.4]) * across)
        bent = width[:, None] * np.logaddexp(0, (x[0] - at[:, None]) / width[:, None])
        falling = -before[:, None] * x[0] - (after - before)[:, None] * bent
        log, cost = projected(np.stack([np.zeros_like(falling), falling], -1), y)
        chosen = best_of_parts(cost, np.arange(len(cost)) % 21)
        rows = [log[:, 0], log[:, 1], before, after - before, at, np.log(width)]
        return np.stack(rows, 1)[chosen]

    def read(self, theta: Array, centre: Sequence[float]) -> Array:
        """Floor, coefficient, exponents before and after the break (signed), the break, and f."""
        floor, level, before, more, at, log_f = np.moveaxis(theta, -1, 0)
        with np.errstate(all="ignore"):
            scale = np.exp(level + before * centre[0])
            return np.stack(
                [np.exp(floor), scale, -before, -before - more, np.exp(at + centre[0]), np.exp(log_f)], -1
            )

    def axes(self, x: Sequence[Array], level: Callable[[int], Axis]) -> dict[str, Axis]:
        """The floor, and the exponent before the break."""
        steepest = STEEPEST / np.ptp(x[0])
        return {"exponent": Axis(2, -steepest, steepest, falling=True), "floor": level(0)}
