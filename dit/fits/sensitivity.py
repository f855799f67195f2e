"""How far an exponent moves when a choice that nobody can prove right is made otherwise."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dit.errors import InputError
from dit.fits.choose import EXPONENTS, fit_law
from dit.fits.losses import NAMES
from dit.fits.points import Points, drop_outliers


@dataclass(frozen=True)
class Variant:
    """One refit.

    Args:
        choice: what kind of choice (loss, delta, window, outliers, budgets, size).
        value: what was chosen.
        n: points used.
        exponent: a of N*(C), or the power law's exponent; NaN where the fit is impossible.
        shift: exponent minus that of the reported fit.
        reason: why the fit is impossible; empty where it is not.
    """

    choice: str
    value: str
    n: int
    exponent: float
    shift: float
    reason: str = ""


def sensitivity(
    points: Points,
    fit: Any,
    law: str,
    loss: str = "huber",
    delta: float = 1e-3,
    others: Mapping[str, Mapping[str, Points]] | None = None,
) -> list[Variant]:
    """Refits of ``law`` over losses, deltas, outliers, budget range and counting conventions.

    Args:
        points: the points of the reported fit.
        fit: the reported fit.
        law: its law.
        loss: its loss.
        delta: its delta.
        others: other selections of points by choice and name, such as {"size": {"n_params_total": points}}.
    """
    variants = []
    if law == "stacked":  # a fit of every law each: they have tables of their own
        return []
    reported = exponent(fit, law)
    for choice, value, chosen, settings in _variants(points.completed(), fit, law, loss, delta, others or {}):
        try:
            moved: float = exponent(_told_alike(fit_law(chosen, law, **settings), fit), law)
            variants.append(Variant(choice, value, len(chosen), moved, moved - reported))
        except InputError as error:
            variants.append(Variant(choice, value, len(chosen), float("nan"), float("nan"), str(error)))
    return variants


def exponent(fit: Any, law: str) -> Any:
    """The exponent that a study is made for: a of N*(C), or the power law's own."""
    return getattr(fit, EXPONENTS.get(law, "a"))


def _told_alike(one: Any, reported: Any) -> Any:
    """A refit whose exponent, where it depends on compute, is that at the compute of the reported one."""
    return replace(one, flops=reported.flops, unique=reported.unique) if hasattr(one, "flops") else one


def _variants(
    points: Points, fit: Any, law: str, loss: str, delta: float, others: Mapping[str, Mapping[str, Points]]
) -> Iterator[tuple[str, str, Points, dict[str, Any]]]:
    same: dict[str, Any] = {"loss": loss, "delta": delta, "fixed": getattr(fit, "fixed", ())}
    if law == "isoflop":
        same["window"] = fit.window
        yield "window", "whole rows", points, same | {"window": np.inf}
    if law not in ("isoflop", "envelope"):
        for other in NAMES:
            if other != loss:
                yield "loss", other, points, same | {"loss": other}
        if loss == "huber":
            for factor in (0.1, 10.0):
                yield "delta", f"{delta * factor:g}", points, same | {"delta": delta * factor}
    for count in sorted({int(np.ceil(share * len(points))) for share in (0.01, 0.02, 0.05)}):
        yield "outliers", f"{count} highest losses dropped", drop_outliers(points, count), same
    if hasattr(fit, "predict_points"):
        residual = np.abs(np.log(points.loss / fit.predict_points(points)))
        count = int(np.ceil(0.02 * len(points)))
        keep = np.sort(np.argsort(residual, kind="stable")[: len(points) - count])
        yield "outliers", f"{count} largest residuals dropped", points[keep], same
    if points.c is not None and len(points.budget_flops) > 2:
        for edge in range(1, min(3, len(points.budget_flops) - 1)):
            low, high = points.budget_flops[edge], points.budget_flops[-1 - edge]
            yield "budgets", f"C >= {low:.3g}", points[points.budgets >= edge], same
            yield (
                "budgets",
                f"C <= {high:.3g}",
                points[points.budgets < len(points.budget_flops) - edge],
                same,
            )
    for choice, selections in others.items():
        for name, selected in selections.items():
            yield choice, name, selected, same
