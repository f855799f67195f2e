"""Approach 2 (isoFLOP minima) against approach 3 (the additive law): said in words where they disagree."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dit.errors import InputError
from dit.fits.fitted import HELD, Fitted, fitted

LAWS = ("isoflop", "additive")


def disagreement(found: Fitted) -> list[str]:
    """The sentence of ``apart`` about a law and the other approach to the same points; none where there is no other.

    The other is fitted here, with at most HELD draws.
    """
    if found.law not in LAWS or found.drawn() is None:
        return []
    points, draws, other = (
        found.points,
        min(found.draws, HELD),
        next(name for name in LAWS if name != found.law),
    )
    try:
        against = fitted(points, other, found.loss, found.delta, draws, found.seed)
    except InputError:  # no minima, one budget, too few points
        return []
    both = {found.law: found.estimate("a"), other: against.estimate("a")}
    told = apart(both["isoflop"], both["additive"])
    return [told] if told else []


def apart(minima: Mapping[str, Any], law: Mapping[str, Any]) -> str | None:
    """Says that the exponents of N* by minima and by a law differ by more than their intervals; None where not.

    Independent errors would be that far apart in 5 % of studies.

    Args:
        minima: ``value`` and ``interval_95`` of the exponent by isoFLOP minima.
        law: the same by the additive law.
    """
    if not differ(minima, law):
        return None
    a, b = (
        f"{one['value']:.3f} ({one['interval_95'][0]:.3f} to {one['interval_95'][1]:.3f})"
        for one in (minima, law)
    )
    return (
        f"isoFLOP minima say N* ~ C^{a}, the additive law C^{b}: they disagree by more than their intervals, so at "
        "least one does not describe these points; trust neither far from them"
    )


def differ(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two estimates are further apart than the root of summed squares of the halves of intervals between."""
    if any(each.get("value") is None or each.get("interval_95") is None for each in (one, other)):
        return False
    low, high = sorted((one, other), key=lambda each: each["value"])
    gap = high["value"] - low["value"]
    return gap > np.hypot(low["interval_95"][1] - low["value"], high["value"] - high["interval_95"][0])
