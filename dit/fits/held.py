"""Readings that a law predicts without having seen them, and how well.

Errors are of ln(predicted / measured). What a law is worth shows against two guesses that know no law, both from the
fitted budget nearest in compute to a reading: its lowest loss (persistence) and the geometric mean of its losses
(constant).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dit.fits.points import Points

Array = np.ndarray
COUNTED = 5  # readings below which a count of those inside their intervals says nothing
MISS = 0.05  # share of readings that a 95 % interval may miss
LEAST_SIZES = 3  # over which an error can be seen to tilt


@dataclass(frozen=True)
class Holdout:
    """Readings predicted from the others.

    Args:
        budget: the largest budget among them, FLOPs.
        n: points held out.
        predicted: (n,) losses of the law fitted without them.
        measured: (n,) their losses.
        low: (n,) lower ends of the 95 % intervals for a single reading, law and noise together; None without draws.
        high: (n,) upper ends.
        what: what was held out, in words.
        size: (n,) their N; None where there is none.
        persistence: (n,) the lowest loss of the nearest fitted budget; None where compute is not known.
        constant: (n,) the geometric mean of its losses.
        minima: of each budget held out whole that has a minimum: (FLOPs, N* predicted, N* of its parabola).
    """

    budget: float
    n: int
    predicted: Array
    measured: Array
    low: Array | None = None
    high: Array | None = None
    what: str = ""
    size: Array | None = None
    persistence: Array | None = None
    constant: Array | None = None
    minima: tuple[tuple[float, float, float], ...] = ()

    @property
    def errors(self) -> Array:
        """(n,) ln(predicted / measured)."""
        return np.log(self.predicted / self.measured)

    @property
    def bias(self) -> float:
        """Mean of ln(predicted / measured)."""
        return float(np.mean(self.errors))

    @property
    def rms(self) -> float:
        """Root mean square of ln(predicted / measured)."""
        return float(np.sqrt(np.mean(self.errors**2)))

    @property
    def covered(self) -> int | None:
        """How many measured losses lie inside their intervals; None without intervals, or of fewer than COUNTED."""
        if self.low is None or self.high is None or self.n < COUNTED:
            return None
        return int(np.sum((self.low <= self.measured) & (self.measured <= self.high)))

    @property
    def interval_score(self) -> float | None:
        """Mean width of the 95 % intervals of ln L plus 2/.05 times the distance of each reading outside; low is good.

        Source: Gneiting & Raftery, JASA 102 (2007) 359, equation 43.
        """
        if self.low is None or self.high is None:
            return None
        low, high, y = np.log(self.low), np.log(self.high), np.log(self.measured)
        outside = np.maximum(low - y, 0) + np.maximum(y - high, 0)
        return float(np.mean(high - low + 2 / MISS * outside))

    @property
    def skill_against_persistence(self) -> float | None:
        """1 - mean square error / that of the nearest fitted budget's lowest loss: 1 is perfect, 0 no better."""
        return self._skill(self.persistence)

    @property
    def skill_against_constant(self) -> float | None:
        """1 - mean square error / that of the mean ln L of the nearest fitted budget: 1 is perfect, 0 no better."""
        return self._skill(self.constant)

    def _skill(self, guess: Array | None) -> float | None:
        """Source: Murphy, Monthly Weather Review 116 (1988) 2417, equation 4."""
        if guess is None:
            return None
        reference = float(np.mean(np.log(guess / self.measured) ** 2))
        return 1 - self.rms**2 / reference if reference > 0 else None

    @property
    def tilt(self) -> tuple[float, float] | None:
        """Slope of ln(predicted / measured) in ln N and its standard error; None over fewer than LEAST_SIZES sizes."""
        if self.size is None or len(np.unique(self.size)) < LEAST_SIZES:
            return None
        x, y = np.log(self.size) - np.log(self.size).mean(), self.errors - self.bias
        slope = float(x @ y / (x @ x))
        return slope, float(np.linalg.norm(y - slope * x) / np.sqrt((self.n - 2) * (x @ x)))


def held_out(points: Points, out: Array, predicted: Array, what: str = "") -> Holdout:
    """Readings ``out`` (n,) with what a law predicts of them, and two guesses that know no law."""
    held = points[out]
    flops = float(points.budget_flops[points.budgets[out].max()])
    found = Holdout(flops, len(held), predicted, held.loss, what=what or f"{flops:.3g} FLOPs", size=held.n)
    lowest, level = np.array([_of_budget(points, i, ~out) for i in range(len(points.budget_flops))]).T
    known = np.isfinite(lowest)
    log_c = np.log(points.budget_flops)
    nearest = np.abs(log_c[points.budgets[out]][:, None] - np.where(known, log_c, np.inf)).argmin(1)
    return replace(found, persistence=lowest[nearest], constant=level[nearest])


def _of_budget(points: Points, i: int, seen: Array) -> tuple[float, float]:
    """Lowest loss and geometric mean of losses among a budget's readings ``seen`` (n,); NaN where there are none."""
    loss = points.loss[(points.budgets == i) & seen]
    return (float(loss.min()), float(np.exp(np.log(loss).mean()))) if len(loss) else (np.nan, np.nan)


def summary(one: Holdout) -> dict[str, Any]:
    """Every score of a hold-out as plain values, None where it has none."""
    slope, error = one.tilt or (None, None)
    return {
        "what": one.what, "budget": one.budget, "n": one.n, "bias": one.bias, "rms": one.rms, "covered": one.covered,
        "skill_against_persistence": one.skill_against_persistence,
        "skill_against_constant": one.skill_against_constant,
        "interval_score": one.interval_score, "tilt": slope, "tilt_stderr": error,
        "minima": [dict(zip(("budget", "n_opt_predicted", "n_opt_measured"), row)) for row in one.minima],
    }  # fmt: skip


def in_words(found: Mapping[str, Any]) -> str:
    """A hold-out's ``summary`` in a clause: error, skill, intervals, tilt, N*; a count only of COUNTED or more."""
    parts = [f"bias {found['bias']:+.2%}, rms {found['rms']:.2%} over {found['n']} readings"]
    skills = [
        f"{found[key]:+.2f} against {name}"
        for key, name in (
            ("skill_against_persistence", "persistence"),
            ("skill_against_constant", "a constant"),
        )
        if found[key] is not None
    ]
    parts += ["skill " + ", ".join(skills)] if skills else []
    if found["covered"] is not None:
        parts.append(f"{found['covered']} of {found['n']} inside their 95 % intervals")
    if found["interval_score"] is not None:
        parts.append(f"interval score {found['interval_score']:.2%}")
    if found["tilt"] is not None:
        parts.append(f"error tilts by {found['tilt']:+.2%} (+- {found['tilt_stderr']:.2%}) per e-fold of N")
    for row in found["minima"]:
        parts.append(
            f"N* at {row['budget']:.3g} FLOPs {row['n_opt_predicted']:.4g} for {row['n_opt_measured']:.4g}"
        )
    return "; ".join(parts)
