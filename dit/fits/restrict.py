"""A law with some of its parameters fixed, or tied to others: the same problem in fewer coordinates.

Every restriction is linear in the parameters theta of the optimiser. The free coordinates q are those of theta that no
restriction gives; all others follow: theta = offset + spread q. Tied exponents alpha = beta make the additive law that
of Gadre et al. (2403.08540, eq. 4). Fixed A, alpha, B, beta and E leave R_D and R_N, as Muennighoff et al. (2305.16264)
fit them.

Legend: R rows, n points, p parameters of the whole law, q free ones.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from dit.errors import InputError, check_choice, check_number
from dit.fits.laws import FLOOR
from dit.fits.newton import Law
from dit.fits.search import Axis, Problem
from dit.fits.starts import STEEPEST

Array = np.ndarray
EXPONENTS = ("alpha", "beta")
Fixed = tuple[tuple[str, float | str], ...]  # (parameter, its value or the parameter that it equals)


class Equation(NamedTuple):
    """How a parameter follows from theta: ``row @ theta`` is its value, or the logarithm of it.

    ``pivot`` is the coordinate that is given up where the parameter is fixed.
    """

    pivot: int
    row: Array
    log: bool


class Restricted:
    """The law in its free coordinates, which the optimiser takes for its parameters theta (R, q)."""

    def __init__(self, law: Law, offset: Array, spread: Array, kept: list[int], free: list[int]) -> None:
        self.law, self.offset, self.spread, self.kept, self.free = law, offset, spread, kept, free
        self.scaled = law.scaled

    def whole(self, theta: Array) -> Array:
        """All parameters (R, p) of free ones (R, q)."""
        return self.offset + theta @ self.spread.T

    def value(self, theta: Array) -> Array:
        """Predicted ln L (R, n)."""
        return self.law.value(self.whole(theta))

    def value_and_shares(self, theta: Array) -> tuple[Array, Any]:
        """Predicted ln L (R, n), and what ``contract`` wants to know of it."""
        return self.law.value_and_shares(self.whole(theta))

    def shares(self, theta: Array) -> list[Array]:
        """The share of L of each term whose coefficient is free, arrays (R, n)."""
        shares = self.law.shares(self.whole(theta))
        return [shares[place] for place in self.kept]

    def jacobian(self, theta: Array) -> Array:
        """D ln L / d q, (R, n, q)."""
        return self.law.jacobian(self.whole(theta)) @ self.spread

    def contract(self, shares: Any, first: Array, second: Array) -> tuple[Array, Array]:
        """Gradient (R, q) and Hessian (R, q, q) of sum rho, given w rho' and w rho'' (R, n)."""
        gradient, hessian = self.law.contract(shares, first, second)
        return gradient @ self.spread, self.spread.T @ hessian @ self.spread

    def moved(self, theta: Array, step: Array) -> Array:
        """Free parameters (R, q) after a step (R, q), as the whole law takes it."""
        return self.law.moved(self.whole(theta), step @ self.spread.T)[:, self.free]


class RestrictedProblem(Problem):
    """A problem whose law is restricted; it reads and writes the same laws.

    Args:
        whole: the problem with all parameters free.
        equations: of every parameter, by name.
        fixed: checked restrictions.
    """

    def __init__(self, whole: Problem, equations: Mapping[str, Equation], fixed: Fixed) -> None:
        rows, values, pivots = [], [], []
        for name, value in fixed:
            pivot, row, log = equations[name]
            if name in EXPONENTS and not isinstance(value, str):
                _check_exponent(name, value, whole)
            if isinstance(value, str):
                rows.append(row - equations[value].row)
                values.append(0.0)
            else:
                rows.append(row)
                values.append((np.log(value) if value else FLOOR) if log else value)
            pivots.append(pivot)
        p = len(equations)
        self.whole, self.free = whole, [i for i in range(p) if i not in pivots]
        given = np.linalg.inv(np.array(rows)[:, pivots])
        offset, spread = np.zeros(p), np.zeros((p, len(self.free)))
        offset[pivots], spread[self.free] = given @ values, np.eye(len(self.free))
        spread[pivots] = -given @ np.array(rows)[:, self.free]
        kept = [place for place, index in enumerate(whole.intercepts) if index in self.free]
        self.terms = tuple(whole.terms[place] for place in kept)
        self.intercepts = tuple(self.free.index(whole.intercepts[place]) for place in kept)
        self.restricted = Restricted(whole.law, offset, spread, kept, self.free)
        super().__init__(self.restricted, whole.y, whole.loss, whole.delta)

    def starts(self) -> Array:
        """Starts (S, q): those of the whole problem, as far as they are free."""
        return np.unique(self.whole.starts()[:, self.free], axis=0)

    def to_law(self, theta: Array) -> Any:
        """The law of rows ``theta`` (R, q), with array fields (R,)."""
        return self.whole.to_law(self.restricted.whole(theta))

    def to_theta(self, law: Any) -> Array:
        """Free coordinates (q,) of a law with scalar fields."""
        return self.whole.to_theta(law)[self.free]

    def axes(self, law: Any) -> dict[str, Axis]:
        """The axes of parameters that are free."""
        found = {}
        for name, axis in self.whole.axes(law).items():
            if axis.index in self.free and (axis.other is None or axis.other in self.free):
                other = None if axis.other is None else self.free.index(axis.other)
                found[name] = replace(axis, index=self.free.index(axis.index), other=other)
        return found


def _check_exponent(name: str, value: float, whole: Problem) -> None:
    """Raises InputError for an exponent that no fit would find: its term would be nothing but on the first points."""
    steepest = whole.axes(None)[name].high
    if value > steepest:
        allowed = f"at most {steepest:.4g}, where the term falls by e^{STEEPEST:.0f} over the points"
        raise InputError(f"fix.{name}", value, allowed)


def checked(fixed: Mapping[str, Any], names: tuple[str, ...], law: str) -> Fixed:
    """Restrictions as they were asked for, checked and in a fixed order; None leaves a parameter free.

    Args:
        fixed: parameter -> value, or another exponent's name.
        names: of the law's parameters.
        law: its name.

    Raises:
        InputError: a parameter that the law has not, an impossible value, or nothing left to fit.
    """
    found: list[tuple[str, float | str]] = []
    for name, value in fixed.items():
        key = f"fix.{name}"
        if value is None:
            continue
        if name not in names:
            raise InputError(
                key, value, f"parameters of law={law}: {', '.join(names) or 'none can be fixed'}"
            )
        tied = {"alpha": "beta", "beta": "alpha"}.get(name)
        if isinstance(value, str) and tied is not None:
            check_choice(key, value, (tied,))
            if fixed.get(value) is not None:
                raise InputError(
                    key, value, f"a parameter that is free; fix.{value} is given", "Write its value."
                )
        elif name == "E":
            check_number(key, value, low=0)
        else:
            check_number(key, value, above=0)
        found.append((name, value))
    if found and len(found) == len(names):
        raise InputError("fix", dict(found), "at least one parameter left to fit")
    return tuple(sorted(found, key=lambda one: names.index(one[0])))
