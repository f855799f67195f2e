"""A law by its name, on points."""

from functools import lru_cache
from typing import Any

from dit.errors import check_choice
from dit.fits.additive import PARAMETERS, fit_additive
from dit.fits.data_limited import NAMES_OF, fit_data_limited
from dit.fits.envelope import fit_envelope
from dit.fits.isoflop import WINDOW, fit_isoflop
from dit.fits.kernels.fit import KERNELS, fit_kernel
from dit.fits.points import Points
from dit.fits.power import fit_power
from dit.fits.restrict import Fixed, checked
from dit.fits.stacking import MEMBERS, fit_stacked

LAWS = ("additive", "isoflop", "envelope", "power", "power_floor", "data_limited", *KERNELS, "stacked")


# the exponent that a study is made for, where it is not a of N*(C): a power law's own
EXPONENTS = {
    "power": "exponent",
    "power_floor": "exponent",
    "broken_power": "exponent",
}
NAMES = {"additive": PARAMETERS, "data_limited": NAMES_OF}  # of parameters that can be fixed
AS_NEW = 4.0  # epochs up to which repeated data are all but as good as new (Muennighoff et al. 2305.16264)


def epochs(points: Points) -> float | None:
    """How often the points see their data, at most; None where unique samples or D are not known."""
    points = points.completed()
    if points.unique is None or points.d is None:
        return None
    return float((points.d / points.unique).max())


def primary_law(points: Points) -> str:
    """The law that a study of these points is told by: that of repeated data above AS_NEW epochs, else additive."""
    return "data_limited" if (epochs(points) or 0.0) > AS_NEW else "additive"


def fit_law(
    points: Points,
    law: str = "additive",
    loss: str = "huber",
    delta: float = 1e-3,
    fixed: Fixed = (),
    window: float = WINDOW,
    laws: tuple[str, ...] = MEMBERS,
) -> Any:
    """The fit of the law of that name; isoflop and envelope have no use for ``loss`` and ``delta``.

    ``fixed`` has parameters of the additive law or of data_limited that are not fitted; ``window`` is of isoflop alone,
    ``laws`` of stacked.

    Fits are kept: hold-out, comparison and sensitivity ask for the same ones.

    Raises:
        InputError: an unknown law, or points that cannot carry it.
    """
    check_choice("law", law, LAWS)
    return _fit(points, law, loss, delta, checked(dict(fixed), NAMES.get(law, ()), law), window, laws)


@lru_cache
def _fit(
    points: Points, law: str, loss: str, delta: float, fixed: Fixed, window: float, laws: tuple[str, ...]
) -> Any:
    if law == "isoflop":
        return fit_isoflop(points, window)
    if law == "envelope":
        return fit_envelope(points)
    if law == "data_limited":
        return fit_data_limited(points, loss, delta, fixed)
    if law == "additive":
        return fit_additive(points, loss, delta, fixed)
    if law == "stacked":
        return fit_stacked(points, lambda some, name: fit_law(some, name, loss, delta), laws)
    if law in KERNELS:
        return fit_kernel(points, law, loss, delta)
    return fit_power(points, law == "power_floor", loss, delta)
