"""Two studies against each other: how much compute one needs for what the other reaches.

Losses are compared where both were read on the same stored draws of the same data (they are velocity errors, whatever
the objective), Fréchet distances where both have one protocol.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from dit.errors import InputError
from dit.fits.bootstrap import LEVELS as LEVELS_OF
from dit.fits.data_limited import DataLimitedLaw
from dit.fits.fitted import Fitted, Of
from dit.report.material import Material
from dit.study.readings import FIXED_IN_VALIDATION, lookup

Array = np.ndarray
LEVELS = 5  # losses or distances at which the compute is compared
ENDLESS = 690.0  # ln of a compute that no study reaches, in place of one that is infinite
DRAWS = 1000  # of the lines through Fréchet distances


def compare(first: Material, others: Sequence[Material]) -> list[dict[str, Any]]:
    """Each other study against the first, as JSON values.

    Returns:
        One entry per other study: ``study``, ``by_loss`` and ``by_distance`` (rows of level, the two computes in FLOPs,
        ratio other / first with intervals; an end that is None is unbounded), with ``..._why_not`` where a list is
        empty; ``n_opt``: N* of both at the largest budget that both have, with its ratio; ``one_axis``: whether losses
        of the two share an axis at all; ``verdict``: sentences.
    """
    found = [_pair(first, other) for other in others]
    names = [first.study.name, *(entry["study"] for entry in found)]
    for entry, other in zip(found, others):
        if names.count(entry["study"]) > 1:
            entry["study"] = f"{entry['study']} in {other.study.directory.name}"
        entry["verdict"] = _verdict(first.study.name, entry)
    return found


def verdicts(m: Material) -> list[str]:
    """What the comparisons of a study say, in sentences."""
    return [sentence for entry in m.analysis.get("comparison", []) for sentence in entry["verdict"]]


def _verdict(first: str, entry: dict[str, Any]) -> list[str]:
    """At the lowest loss and the least distance that both studies have reached, and of their N*."""
    said, other = [], entry["study"]
    for key, word in (("by_loss", "a loss"), ("by_distance", "a Fréchet distance")):
        if f"{key}_why_not" in entry:
            said.append(f"{other} is not compared at equal {word[2:]}: {entry[f'{key}_why_not']}")
            continue
        row = entry[key][-1]
        what = f"{other} needs {_times(row)} times the compute of {first} at {word} of {row['level']:.4g}"
        said.append(f"{what}{_unsure(row)}.")
    if row := entry["n_opt"]:
        said.append(
            f"N* at {row['flops']:.3g} FLOPs is {row['first']:.4g} for {first} and {row['other']:.4g} for {other}: "
            f"{_times(row)} times{_unsure(row)}."
        )
    return said


def _times(row: dict[str, Any]) -> str:
    value = "an unknown number of" if row["ratio"] is None else f"{row['ratio']:.3g}"
    if row["interval_95"] is None:
        return f"{value} (no interval)"
    low, high = ("unbounded" if end is None else f"{end:.3g}" for end in row["interval_95"])
    return f"{value} (95 % {low} to {high})"


def _unsure(row: dict[str, Any]) -> str:
    """Says so where an interval holds 1, or there is none."""
    low, high = row["interval_95"] or (None, None)
    apart = (low is not None and low > 1) or (high is not None and high < 1)
    return "" if apart else ", so the two are not separable by these runs"


def uncompared(m: Material) -> list[str]:
    """The comparisons with other studies that cannot be made, and why, in sentences."""
    words = {"by_loss": "loss", "by_distance": "Fréchet distance"}
    return [
        f"{entry['study']} is not compared at equal {word}: {entry[f'{key}_why_not']}"
        for entry in m.analysis.get("comparison", [])
        for key, word in words.items()
        if f"{key}_why_not" in entry
    ]


def _pair(first: Material, other: Material) -> dict[str, Any]:
    found: dict[str, Any] = {"study": other.study.name, "one_axis": True}
    try:
        _refuse_other_protocol(first, other)
    except InputError:
        found["one_axis"] = False
    for name, of in (("by_loss", _by_loss), ("by_distance", _by_distance)):
        try:
            found[name] = of(first, other)
        except InputError as why:
            found[name], found[f"{name}_why_not"] = [], str(why)
    return {**found, "n_opt": _sizes(first, other)}


def _sizes(first: Material, other: Material) -> dict[str, Any] | None:
    """N* of both at the largest budget that both have, by their additive laws; None where one has none."""
    laws = [m.law for m in (first, other) if m.law is not None and m.law.doubts.has("n_opt")]
    if len(laws) < 2:
        return None
    flops = min(float(m.points.budgets[-1]) for m in (first, other))
    mine, theirs = (float(law.fit.n_opt(flops)) for law in laws)
    if not np.isfinite([mine, theirs]).all():
        return None
    ends = {
        level: ratio_interval(laws[0], laws[1], lambda law: np.log(law.n_opt(flops)), level)
        for level in LEVELS_OF
    }
    return {"flops": flops, "first": mine, "other": theirs, "ratio": theirs / mine, **_named(ends)}


def _refuse_other_protocol(first: Material, other: Material) -> None:
    pairs = [(first.study.runs[0], other.study.runs[0], "data.manifest_hash")]
    for m in (first, other):
        if not len(m.points.run):
            raise InputError("compare", f"(no reading of {m.study.name} counts)", "studies with points")
    rows = [
        next(row for row in m.study.validation if row["weights"] == m.points.weights) for m in (first, other)
    ]
    pairs += [(*rows, name) for name in (*FIXED_IN_VALIDATION, "weights")]
    for one, two, name in pairs:
        if lookup(one, name) != lookup(two, name):
            raise InputError(
                f"compare ({other.study.name})", f"(another {name} than {first.study.name})",
                "studies read on the same draws of the same data", "Their losses share no axis.",
            )  # fmt: skip


def _by_loss(first: Material, other: Material) -> list[dict[str, Any]]:
    """Compute at equal loss along the frontiers of the two primary laws."""
    _refuse_other_protocol(first, other)
    for m in (first, other):
        if m.law is None or m.analysis["additive"]["loss"] is None:
            raise InputError(f"compare ({m.study.name})", "(no additive law)", "studies that carry one")
    laws = [m.law for m in (first, other) if m.law is not None]
    levels = _shared_range(first.least_losses, other.least_losses, "least losses")
    rows = []
    for level in levels:
        mine, theirs = (float(compute_for(law.fit, level)) for law in laws)
        row = _row(float(level), mine, theirs, None)
        of = partial(_log_compute, loss=level)
        rows.append({**row, **_named({one: ratio_interval(laws[0], laws[1], of, one) for one in LEVELS_OF})})
    return rows


def _log_compute(law: Any, loss: float) -> Array:
    return np.minimum(np.log(compute_for(law, loss)), ENDLESS)


def _named(ends: dict[float, list[float | None] | None]) -> dict[str, Any]:
    return {f"interval_{round(100 * level)}": pair for level, pair in ends.items()}


def ratio_interval(first: Fitted, other: Fitted, of: Of, level: float) -> list[float | None] | None:
    """Interval of exp(of(other) - of(first)) of two studies that share no noise; None without draws.

    The halves of the two intervals that face each other add as squares, so that what each bootstrap corrects is kept.
    An end is None where that of a study has none.

    Source: Zou & Donner, Statistics in Medicine 27 (2008) 1693, equations 5 and 6.
    """
    one, two = (law.interval(of, level) for law in (first, other))
    if one is None or two is None:
        return None
    mine, theirs = float(of(first.fit)), float(of(other.fit))
    (low_1, high_1), (low_2, high_2) = one, two
    low = np.exp(theirs - mine - np.hypot(max(theirs - low_2, 0), max(high_1 - mine, 0)))
    high = np.exp(min(theirs - mine + np.hypot(max(high_2 - theirs, 0), max(mine - low_1, 0)), ENDLESS))
    return [None if high_1 >= ENDLESS else float(low), None if high_2 >= ENDLESS else float(high)]


def compute_for(law: Any, loss: float) -> Array:
    """Compute (FLOPs) with which the best size of a law of N and D reaches a loss; infinite at its floor and below.

    Along C = k N D the least loss of the additive law is E + K C^-p with p = alpha beta / (alpha + beta).
    """
    if isinstance(law, DataLimitedLaw):
        return law.flops_for(loss)
    p = law.alpha * law.beta / (law.alpha + law.beta)
    with np.errstate(all="ignore"):
        excess = np.asarray(law.loss_opt(law.k) - law.E)  # K k^-p
        return np.where(loss > law.E, law.k * (excess / np.maximum(loss - law.E, 1e-300)) ** (1 / p), np.inf)


def _shared_range(first: Array, other: Array, what: str) -> Array:
    """Levels that both studies have reached within their budgets, falling."""
    high, low = min(first.max(), other.max()), max(first.min(), other.min())
    if low >= high:
        raise InputError("compare", f"({what} {first.min():.4g} to {first.max():.4g} and "
                         f"{other.min():.4g} to {other.max():.4g})", "studies whose ranges overlap")  # fmt: skip
    return np.geomspace(high, low, LEVELS)


def _by_distance(first: Material, other: Material) -> list[dict[str, Any]]:
    """Compute at equal Fréchet distance, along lines in logarithms through each budget's best unguided run."""
    protocols = [next((g.protocol for g in m.samples if not g.guided), None) for m in (first, other)]
    mine, theirs = protocols
    if mine is None or theirs is None:
        without = " and ".join(m.study.name for m, one in zip((first, other), protocols) if one is None)
        raise InputError("compare", f"({without} has no Fréchet distance)", "distances of both studies")
    if differing := sorted(key for key in {*mine, *theirs} if mine.get(key) != theirs.get(key)):
        told = ", ".join(f"{key} {mine.get(key)} and {theirs.get(key)}" for key in differing)
        raise InputError("compare", f"(Fréchet distances of two protocols: {told})", "one protocol")
    best = [m.analysis["frechet"]["best"] for m in (first, other)]
    if min(map(len, best)) < 2:
        raise InputError("compare", "(a Fréchet distance at one budget)", "distances at two or more budgets")
    if min(row["frechet_distance"] for rows in best for row in rows) <= 0:
        raise InputError("compare", "(a Fréchet distance of zero or less)", "positive distances")
    tables = [np.array([(row["train_flops"], row["frechet_distance"]) for row in rows]) for rows in best]
    lines = [_lines(table, seed) for seed, table in enumerate(tables)]
    rows = []
    for level in _shared_range(tables[0][:, 1], tables[1][:, 1], "Fréchet distances"):
        with np.errstate(all="ignore"):  # a level line, and ends of those that are all but level
            log_c = [(np.log(level) - height) / slope for height, slope in lines]  # the line, then its draws
            ratio = np.exp(log_c[1][1:] - log_c[0][1:]) if min(map(len, tables)) > 2 else None
            mine, theirs = (float(np.exp(one[0])) for one in log_c)
        rows.append(_row(float(level), mine, theirs, ratio))
    return rows


def _lines(table: Array, seed: int) -> tuple[Array, Array]:
    """Height and slope of ln y on ln x (1 + DRAWS,): the line, then lines through noise drawn anew."""
    x, y = np.log(table).T
    design = np.stack([np.ones_like(x), x], axis=1)
    inverse = np.linalg.pinv(design)
    line = inverse @ y
    freedom = len(x) - 2
    rng = np.random.RandomState(seed)
    sd = np.linalg.norm(y - design @ line) / np.sqrt(max(freedom, 1))
    scale = sd * np.sqrt(max(freedom, 1) / rng.chisquare(max(freedom, 1), (DRAWS, 1)))
    drawn = line + (scale * rng.standard_normal((DRAWS, len(x)))) @ inverse.T
    both = np.concatenate([line[None], drawn])
    return both[:, 0], both[:, 1]


def _row(level: float, first: float, other: float, ratio: Array | None) -> dict[str, Any]:
    known = np.isfinite(first) and np.isfinite(other) and first > 0
    row: dict[str, Any] = {"level": level, "flops_first": first, "flops_other": other, "ratio": None}
    row["ratio"] = other / first if known else None
    ratio = None if ratio is None or np.isnan(ratio).all() else ratio
    for name, tail in (("interval_80", 10.0), ("interval_95", 2.5)):
        row[name] = None
        if ratio is not None:
            ends = np.percentile(ratio[~np.isnan(ratio)], [tail, 100 - tail], method="inverted_cdf")
            row[name] = [float(end) if np.isfinite(end) else None for end in ends]
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()}
