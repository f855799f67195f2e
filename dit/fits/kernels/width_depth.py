"""Width and depth as regressors: L = E + A_w w^-alpha_w + A_l l^-alpha_l [+ A_N N^-alpha_N] + A_D D^-alpha_D.

Source: McLeish et al. 2502.06857 (Gemstones), its laws of three and of four terms; l is the number of layers.
Allocation is along the shape that the points have: ln w and ln l as straight lines in ln N.
"""

from collections.abc import Callable, Sequence

import numpy as np

from dit.fits.kernels.kernel import Kernel
from dit.fits.laws import LogSumExp, terms_of
from dit.fits.points import Points
from dit.fits.search import Axis
from dit.fits.starts import STEEPEST, power_starts

Array = np.ndarray
NAMES = {"width": "w", "depth": "l", "n": "N", "d": "D"}


class WidthDepth(Kernel):
    """In theta = (ln A_w, alpha_w, ln A_l, alpha_l, ..., ln E), regressors centred.

    Args:
        points: whose shapes are those that allocation keeps to.
        with_size: whether N has a term of its own.
    """

    def __init__(self, points: Points, with_size: bool) -> None:
        self.name = "width_depth_size" if with_size else "width_depth"
        self.over = ("width", "depth", *(("n",) if with_size else ()), "d")
        self.parameters = (*(f"{kind}_{NAMES[one]}" for one in self.over for kind in ("A", "alpha")), "E")
        self.terms = (*(f"A_{NAMES[one]}" for one in self.over), "E")
        self.intercepts = tuple(range(0, 2 * len(self.over) + 1, 2))
        log_n = np.log(points.get("n"))
        self.lines = {one: np.polyfit(log_n, np.log(points.get(one)), 1) for one in ("width", "depth")}

    def columns(self, points: Points) -> tuple[Array, ...]:
        """Ln of width, depth, size where it has a term, and data."""
        return tuple(np.log(points.get(one)) for one in self.over)

    def at(self, log_n: Array, log_d: Array) -> tuple[Array, ...]:
        """The regressors of a network of the points' shape."""
        found = {one: np.polyval(line, log_n) for one, line in self.lines.items()} | {"n": log_n, "d": log_d}
        return tuple(found[one] for one in self.over)

    def law(self, x: Sequence[Array], centre: Sequence[float]) -> LogSumExp:
        """Terms linear in theta, with exact curvature."""
        return terms_of(*x)

    def value(self, theta: Array, x: Sequence[Array], centre: Sequence[float]) -> Array:
        """The law, in logarithms."""
        total = theta[:, -1:] + 0 * x[0]
        for i, one in enumerate(x):
            total = np.logaddexp(total, theta[:, 2 * i : 2 * i + 1] - theta[:, 2 * i + 1 : 2 * i + 2] * one)
        return total

    def slopes(self, theta: Array, x: Sequence[Array], centre: Sequence[float]) -> Array:
        """The derivatives of ``value``."""
        return self.law(x, centre).jacobian(theta)

    def starts(self, x: Sequence[Array], y: Array, centre: Sequence[float]) -> Array:
        """Those of variable projection over the exponents."""
        return power_starts(np.stack(x), np.exp(y), "huber")

    def read(self, theta: Array, centre: Sequence[float]) -> Array:
        """Coefficients and exponents in turn, and the floor."""
        out = np.array(theta, float)
        with np.errstate(over="ignore"):
            for i, mean in enumerate(centre):
                out[..., 2 * i] = np.exp(theta[..., 2 * i] + theta[..., 2 * i + 1] * mean)
            out[..., -1] = np.exp(theta[..., -1])
        return out

    def axes(self, x: Sequence[Array], level: Callable[[int], Axis]) -> dict[str, Axis]:
        """The exponents and the floor."""
        found = {
            f"alpha_{NAMES[name]}": Axis(2 * i + 1, 0.0, STEEPEST / np.ptp(one))
            for i, (name, one) in enumerate(zip(self.over, x))
        }
        return found | {"E": level(2 * len(x))}
