"""N*(C), D*(C) and L*(C) as three power laws: what approaches 1 and 2 give."""

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class AllocationLaw:
    """Three straight lines in logarithms of compute.

    Args:
        n_coefficient: N* = n_coefficient C^a; a: its exponent.
        d_coefficient: D* = d_coefficient C^b; b: its exponent.
        loss_coefficient: L* = loss_coefficient C^loss_exponent; loss_exponent: negative where the loss falls.

    The fields of a bootstrap are arrays with one entry per draw.
    """

    n_coefficient: Any
    a: Any
    d_coefficient: Any
    b: Any
    loss_coefficient: Any
    loss_exponent: Any

    def n_opt(self, c: Any) -> Any:
        """Size N that is best for compute ``c`` (FLOPs)."""
        return self.n_coefficient * c**self.a

    def d_opt(self, c: Any) -> Any:
        """Data D that is best for compute ``c`` (FLOPs)."""
        return self.d_coefficient * c**self.b

    def loss_opt(self, c: Any) -> Any:
        """Loss at the best allocation of compute ``c`` (FLOPs)."""
        return self.loss_coefficient * c**self.loss_exponent


def lines(log_c: Array, log_y: Array, use: Array) -> tuple[Array, Array]:
    """Least-squares lines of many rows: coefficient and exponent (R,) of y = coefficient C^exponent.

    Args:
        log_c: (m,) ln C, or (R, m).
        log_y: (R, m) ln y; ignored where ``use`` is False.
        use: (R, m) which points belong to the line; NaN comes out where fewer than two do.
    """
    weight = use.astype(float)
    count = weight.sum(1)
    x, y = np.broadcast_to(log_c, log_y.shape), np.where(use, log_y, 0.0)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        mean_x, mean_y = (weight * x).sum(1) / count, (weight * y).sum(1) / count
        centred = weight * (x - mean_x[:, None])
        exponent = (centred * y).sum(1) / (centred * x).sum(1)
        exponent = np.where(count >= 2, exponent, np.nan)
        return np.exp(mean_y - exponent * mean_x), exponent
