"""A law fitted to points, with all that tells how far to trust it: ``dit fit`` prints it, and a report draws it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dit.errors import InputError, check_number
from dit.fits import leverage
from dit.fits.bootstrap import LEVELS, Bootstrap, bootstrap
from dit.fits.choose import EXPONENTS, fit_law
from dit.fits.doubts import Doubts, doubts, of_interval
from dit.fits.holdout import Holdout, holdout
from dit.fits.isoflop import WINDOW
from dit.fits.laws import settled
from dit.fits.leverage import Leverage
from dit.fits.points import Points
from dit.fits.restrict import Fixed
from dit.fits.stacking import MEMBERS

Of = Callable[[Any], Any]  # a number of a law; of a bootstrap's law the same of every draw
ENOUGH = 20  # draws below which nothing is said about an interval
HELD = 400  # draws behind the intervals of the held-out budget


@dataclass(frozen=True)
class Fitted:
    """A law fitted to points.

    Args:
        points: the points that were fitted.
        law: its name, see ``fit_law``.
        loss: the loss that was asked for.
        delta: Huber's delta, in log loss.
        fit: the law.
        draws: bootstrap draws that were asked for.
        seed: of the draws.
        boot: the bootstrap; None without draws.
    """

    points: Points
    law: str
    loss: str
    delta: float
    fit: Any
    draws: int
    seed: int
    boot: Bootstrap | None

    @property
    def fixed(self) -> Fixed:
        """The parameters that were not fitted."""
        return getattr(self.fit, "fixed", ())

    @cached_property
    def doubts(self) -> Doubts:
        """The doubts about its numbers."""
        return doubts(self.points, self.fit)

    @property
    def exponent(self) -> str:
        """The name of the exponent that a study is made for."""
        return EXPONENTS.get(self.law, "a")

    @cached_property
    def leverages(self) -> list[Leverage]:
        """That exponent without each size, budget and run; none of a stack, whose laws have their own."""
        if self.law == "stacked":
            return []
        return leverage.leverages(self.points, self.fit, self.parameter(self.exponent))

    def drawn(self, of: Of | None = None) -> Bootstrap | None:
        """The bootstrap; None where fewer draws than ENOUGH converged, or have the number."""
        if self.boot is None:
            return None
        return (
            self.boot
            if (self.boot.converged if of is None else len(self.boot.values(of))) >= ENOUGH
            else None
        )

    def interval(self, of: Of, level: float = 0.95) -> tuple[float, float] | None:
        """The interval of a number; None where too few draws have it."""
        boot = self.drawn(of)
        return boot and boot.interval(of, level)

    def estimate(self, name: str, of: Of | None = None) -> dict[str, Any]:
        """A number of the law: ``value`` (None where it is not identified), ``doubt`` and, by draws, its spread.

        Args:
            name: of a parameter; or of the number, by which doubts know it.
            of: the number, where it is no parameter.
        """
        of = of or self.parameter(name)
        has, doubt = self.doubts.has(name), self.doubts.about(name)
        found: dict[str, Any] = {"value": float(of(self.fit)) if has else None, "doubt": doubt}
        if (fixed := dict(self.fixed).get(name)) is not None:
            return found | {"doubt": f"equal to {fixed}" if isinstance(fixed, str) else "given, not fitted"}
        boot = self.drawn(of) if has else None
        if boot is None:
            return found
        found["sd"] = boot.sd(of)
        if self.fixed and not found["sd"]:
            return found | {"doubt": "follows from what is given"}
        found |= {f"interval_{round(100 * level)}": boot.interval(of, level) for level in LEVELS}
        rests = leverage.doubt(self.leverages, found["sd"]) if name == self.exponent else None
        found["doubt"] = (
            "; ".join(filter(None, (doubt, of_interval(name, found["interval_95"]), rests))) or None
        )
        return found | {f"percentiles_{round(100 * level)}": boot.percentiles(of, level) for level in LEVELS}

    def parameter(self, name: str) -> Of:
        """The parameter of that name; a trace of a floor is zero."""
        return lambda law: settled(name, getattr(law, name), self.points.loss)

    def held_out(self, cut: str | None = None) -> Holdout:
        """The largest budget, or what a cut selects (see cuts.py), predicted from the others, with intervals.

        Raises:
            InputError: one budget only, no such cut, or too few points left without what is held out.
        """
        draws = min(self.draws or HELD, HELD)
        return holdout(self.points, self.law, self.loss, self.delta, draws, self.seed, self.fixed, cut)


def fitted(
    points: Points,
    law: str = "additive",
    loss: str = "huber",
    delta: float = 1e-3,
    draws: int = 1000,
    seed: int = 0,
    by: str = "auto",
    method: str = "auto",
    fixed: Fixed = (),
    window: float = WINDOW,
    laws: tuple[str, ...] = MEMBERS,
) -> Fitted:
    """The law's fit to points and its bootstrap.

    Args:
        points: what was measured.
        law: its name, see ``fit_law``.
        loss: huber, lad, mse_log or mse (isoflop and envelope are least squares).
        delta: Huber's delta, in log loss.
        draws: bootstrap draws; 0 for none.
        seed: of the draws.
        by: what is resampled together: run, point or auto.
        method: pairs, parametric, seeds or auto (see bootstrap.py).
        fixed: parameters of the additive law or of data_limited that are not fitted, with their values.
        window: of isoflop, the factor of N about the lowest loss through which a parabola goes.
        laws: of stacked, those that are weighted.

    Raises:
        InputError: an unknown choice, or points that cannot carry the law.
    """
    check_number("bootstrap", draws, low=0, integer=True)
    points = points.completed()
    if len(points) > 1 and np.ptp(points.loss) == 0:
        raise InputError("columns.loss", f"({points.loss[0]:g} in every row)", "losses that differ")
    fit = fit_law(points, law, loss, delta, fixed, window, laws)
    boot = bootstrap(points, fit, draws, seed, by, method) if draws else None
    return Fitted(points, law, loss, delta, fit, draws, seed, boot)
