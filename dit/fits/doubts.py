"""Doubts about the numbers of a fitted law: every number is shown with its doubt."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dit.fits.points import Points

LEAST_BUDGETS = 3  # a line through two minima has no error
LEAST_SIZES = 5  # of a budget: a parabola of three points leaves no residual, one of four a single one
LEAST_SPAN = 4.0  # largest over smallest N, D or C: over less, an exponent is noise
STEEPEST = 1.5  # of one term: no published exponent of size, data or compute comes near
EDGE = 0.01  # of (0, 1): as near to an end a law puts everything into size, or into data
OF = {  # number -> the exponent that its doubts are those of
    "G": "a", "n_coefficient": "a", "n_opt": "a", "d_coefficient": "b", "d_opt": "b", "A": "alpha", "B": "beta",
    "loss_coefficient": "loss_exponent", "loss_opt": "loss_exponent", "coefficient": "exponent",
}  # fmt: skip
ALLOCATED = ("a", "b", "G", "n_opt", "d_opt", "loss_opt")
FLAT = 1e-3  # change of a term over all points, as a share of it, below which it is another floor
ENDLESS = 1e4  # epochs: an R beyond it is none
TERMS = (("A", "alpha", "n"), ("B", "beta", "d"))
SIZES = {"n": "N", "d": "D", "c": "C"}


@dataclass(frozen=True)
class Doubts:
    """The doubts about a law's numbers.

    Args:
        shared: about every number.
        own: about some, by name.
        missing: why a number is not identified, by name: it has no value.
    """

    shared: tuple[str, ...] = ()
    own: Mapping[str, tuple[str, ...]] | None = None
    missing: Mapping[str, str] | None = None

    def about(self, name: str) -> str | None:
        """All doubts about a number, in one line; None where there is none."""
        why = (self.missing or {}).get(name)
        if why is not None:
            return f"not identified: {why}"
        own = self.own or {}
        found = dict.fromkeys((*own.get(name, ()), *own.get(OF.get(name, name), ()), *self.shared))
        return "; ".join(found) or None

    def has(self, name: str) -> bool:
        """Whether a number is identified."""
        return name not in (self.missing or {})


def doubts(points: Points, fit: Any) -> Doubts:
    """The doubts about a fit to ``points``, whatever its law."""
    missing = _missing(points, fit)
    return Doubts(_shared(points, fit), {**_of_allocation(fit), **_of_terms(fit)}, missing)


def of_interval(name: str, ends: tuple[float, float] | None) -> str | None:
    """The doubt about an exponent of N* or D* whose interval says that it may be none; None where it has none."""
    if name not in ("a", "b") or ends is None or (ends[0] > 0 and ends[1] < 1):
        return None
    return "its interval reaches outside (0, 1)"


def of_parabola(sizes: int) -> str | None:
    """The doubt about the minimum of a budget with so many different sizes; None where it has none."""
    return f"a parabola of {sizes} sizes" if sizes < LEAST_SIZES else None


def of_minimum(sizes: int, interval: object, budgets: int) -> str | None:
    """The doubt about a minimum inside its row; None where it has none.

    Args:
        sizes: how many different sizes its parabola goes through.
        interval: its interval, or None.
        budgets: how many budgets of the study have a minimum inside their row.
    """
    count = f"{budgets} budget{'s' if budgets > 1 else ''} with a minimum"
    bare = f"no interval, of {count}" if interval is None else None
    return "; ".join(filter(None, (of_parabola(sizes), bare))) or None


def _shared(points: Points, fit: Any) -> tuple[str, ...]:
    found = [*_of_valleys(fit), *_of_spans(points, fit), *_of_counts(points, fit)]
    searched = getattr(fit, "searched", None)
    if searched is not None and not searched.converged:
        found.append("no start converged")
    return tuple(found)


def _of_valleys(fit: Any) -> list[str]:
    """Doubts about lines through few minima, or through minima of parabolas that fit whatever they are given."""
    valleys = getattr(fit, "valleys", None)
    if valleys is None:
        return []
    kept = [valley for valley in valleys if not valley.rejected]
    found = [f"{len(kept)} budgets with a minimum"] if len(kept) < LEAST_BUDGETS else []
    fewest = of_parabola(min((valley.sizes for valley in kept), default=LEAST_SIZES))
    return [*found, fewest] if fewest else found


def _of_spans(points: Points, fit: Any) -> list[str]:
    """Doubts about exponents in what hardly varies."""
    names = (fit.x,) if hasattr(fit, "exponent") else ("n", "d")
    found = []
    for name in names:
        values = getattr(points, name)
        span = 1.0 if values is None else float(values.max() / values.min())
        if span < LEAST_SPAN:
            found.append(f"{SIZES[name]} spans x{span:.3g}")
    return found


def _of_counts(points: Points, fit: Any) -> list[str]:
    """Doubts about a curve through as few values of N, D or C as it has parameters, or one more."""
    if hasattr(fit, "valleys"):
        return []  # its budgets and their sizes are counted
    names, parameters = ((fit.x,), 2 + hasattr(fit, "E")) if hasattr(fit, "exponent") else (("n", "d"), 3)
    found = []
    for name in names:
        values = getattr(points, name)
        count = 0 if values is None else len(np.unique(np.round(np.log(values), 9)))
        if count < parameters + LEAST_SIZES - 3:  # as a parabola, which has 3
            found.append(f"{count} values of {SIZES[name]}")
    if len(names) > 1 and points.c is not None and points.budget_kind != "binned":
        budgets = len(points.budget_flops)
        found += [f"{budgets} budgets"] if budgets < LEAST_BUDGETS else []
    return found


def _of_allocation(fit: Any) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    steep = _steep(fit)
    for name in ("a", "b"):
        value = getattr(fit, name, None)
        if value is None:
            continue
        outside = ("outside (0, 1)",) if not EDGE < value < 1 - EDGE else ()
        found[name] = (*outside, *(f"{key} above {STEEPEST:g}" for key in steep))
    if getattr(fit, "loss_exponent", -1.0) > 0:
        found["loss_exponent"] = ("loss rises with compute",)
    return found


def _of_terms(fit: Any) -> dict[str, tuple[str, ...]]:
    return {name: (f"above {STEEPEST:g}",) for name in _steep(fit)}


def _steep(fit: Any) -> list[str]:
    """The exponents of single terms that are steeper than any that was ever published."""
    named = ("alpha", "beta", "exponent", "loss_exponent")
    return [name for name in named if abs(getattr(fit, name, 0.0)) > STEEPEST]


def _missing(points: Points, fit: Any) -> dict[str, str]:
    """The numbers that the points leave undetermined, and why."""
    found: dict[str, str] = {}
    searched = getattr(fit, "searched", None)
    absent = () if searched is None else searched.absent
    for term, exponent, x in TERMS:
        if term in absent:
            found[exponent] = f"the term of {term} is zero at the optimum"
        elif hasattr(fit, term) and abs(getattr(fit, exponent)) * np.ptp(np.log(points.get(x))) < FLAT:
            why = f"the term of {term} is constant over the points, so that only its sum with E is known"
            found |= dict.fromkeys((exponent, term, "E"), why)
    rising = [name for name in ("alpha", "beta") if getattr(fit, name, 1.0) <= 0 and name not in found]
    why = next(iter(found.values()), f"loss does not fall with {' and '.join(rising)}" if rising else "")
    if why and hasattr(fit, "alpha"):
        found |= dict.fromkeys(ALLOCATED, f"no best allocation, {why}")
    endless = {x for x in ("R_D", "R_N") if getattr(fit, x, 0.0) > ENDLESS}
    found |= {x: "the points show no end to what repetition is worth" for x in endless}
    if len(endless) == 2:
        found["turning_flops"] = "neither R_D nor R_N is identified"
    for name in ("a", "b", "G"):
        if hasattr(fit, name) and not np.isfinite(getattr(fit, name)):
            found.setdefault(name, "it comes out as no number")
    return found
