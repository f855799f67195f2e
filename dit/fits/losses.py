"""Losses of a fit, each as a function of the predicted log loss.

Legend: R rows (starts or bootstrap draws, fitted side by side), n points; f predicted ln L; y measured ln L.
A law predicts f; a loss says how much a miss costs, so its derivatives are taken with respect to f.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dit.errors import check_choice, check_number

Array = np.ndarray
NAMES = ("huber", "lad", "mse_log", "mse")
WIDEST = 1e4  # Huber's delta above which no residual of ln L lies: it is mse_log
NARROWEST = 1e-8  # below which float64 cannot tell its optimum from that of lad: it is lad


@dataclass(frozen=True)
class Loss:
    """A loss per point and its first two derivatives in f, divided by ``unit`` for the optimiser.

    Args:
        derivatives: (f, y) -> (rho, rho', rho''), each of f's shape.
        unit: the reported objective is ``unit`` times the sum of rho.
    """

    derivatives: Callable[[Array, Array], tuple[Array, Array, Array]]
    unit: float


def huber(delta: float) -> Loss:
    """Huber loss of the log residual: r^2/2 within ``delta``, delta (|r| - delta/2) beyond; summed.

    The optimiser sees it divided by delta, so that a far residual counts |r| whatever delta is.

    Source: Hoffmann et al. 2203.15556, eq. 3; Besiroglu et al. 2404.10102 (sum, not mean).
    """
    check_number("delta", delta, above=0.0)

    def derivatives(f: Array, y: Array) -> tuple[Array, Array, Array]:
        r = f - y
        first = np.clip(r / delta, -1.0, 1.0)
        rho = first * (r - 0.5 * delta * first)
        return rho, first, (np.abs(first) < 1.0) / delta

    return Loss(derivatives, delta)


def mse_log() -> Loss:
    """Half the squared log residual, summed (the limit of a wide Huber loss)."""

    def derivatives(f: Array, y: Array) -> tuple[Array, Array, Array]:
        r = f - y
        return 0.5 * r * r, r, np.ones_like(r)

    return Loss(derivatives, 1.0)


def mse() -> Loss:
    """Squared residual of the loss itself, summed: the residual sum of squares."""

    def derivatives(f: Array, y: Array) -> tuple[Array, Array, Array]:
        predicted = np.exp(f)
        r = predicted - np.exp(y)
        return r * r, 2.0 * r * predicted, 2.0 * predicted * (predicted + r)

    return Loss(derivatives, 1.0)


def chosen(loss: str, delta: float) -> str:
    """The loss that is fitted for a name and Huber's delta: below NARROWEST and above WIDEST huber is another one.

    Raises:
        InputError: an unknown name, or a delta that is not positive.
    """
    check_choice("loss", loss, NAMES)
    check_number("delta", delta, above=0.0)
    if loss != "huber" or NARROWEST <= delta <= WIDEST:
        return loss
    return "lad" if delta < NARROWEST else "mse_log"


def smooth_loss(name: str, delta: float) -> Loss:
    """The loss of that name; ``lad`` has no derivatives and is reached by continuation (see optimum.py)."""
    check_choice("loss", name, ("huber", "mse_log", "mse"))
    return {"huber": lambda: huber(delta), "mse_log": mse_log, "mse": mse}[name]()
