"""Figures of sample quality beyond one protocol: distances at infinitely many samples, against NFE and guidance."""

import json
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from dit.report.material import COMPUTE, Drawn, Material, Missing
from dit.report.style import INK, LINES, MARKERS, engineering, log_axis, new_figure, shades
from dit.study.records import Row

DISTANCE = "Fréchet distance"
AT_INFINITY = "frechet_distance_infinity"
GUIDANCE = ("guidance", "guidance_scale", "guidance_channels")  # what guidance is varied by, all at once
MOST_CURVES = 8
FEWEST_COUNTS = 3  # numbers of samples of a line in 1/N
Curve = tuple[Row, list[tuple[float, float]]]  # a row that stands for it, and its points


def distance_at_infinity(m: Material) -> Drawn:
    """Distances extrapolated to infinitely many samples against compute, and the lines in 1/N behind them."""
    measured = [row for row in _rows(m) if row.get(AT_INFINITY) is not None and row["train_flops"] > 0]
    lines = [
        one
        for one in _curves(m, ("n",), lambda p: p.get("n") and 1000 / p["n"])
        if len(one[1]) >= FEWEST_COUNTS
    ]
    if not measured and not lines:
        raise Missing("no distance at infinitely many samples, and none at three numbers of samples "
                      "(metrics=[fd,fd_infinity] or subsets=[...])")  # fmt: skip
    figure, (left, right) = new_figure(columns=2, width=7.2, height=3.9)
    protocols = sorted({_key(row, ("n", "seed")) for row in measured})
    for index, (protocol, colour) in enumerate(zip(protocols, shades(len(protocols)))):
        rows = [row for row in measured if _key(row, ("n", "seed")) == protocol]
        error = [2 * (row.get(f"{AT_INFINITY}_se") or 0.0) for row in rows]
        look = {
            "fmt": MARKERS[index % len(MARKERS)],
            "color": colour,
            "ecolor": INK,
            "elinewidth": 0.8,
            "ms": 5,
        }
        left.errorbar([row["train_flops"] for row in rows], [row[AT_INFINITY] for row in rows], error,
                      label=f"guidance: {rows[0]['protocol'].get('guidance', 'none')}", **look)  # fmt: skip
    for index, (row, line) in enumerate(lines[:MOST_CURVES]):
        style = MARKERS[index % len(MARKERS)] + LINES[index % len(LINES)]
        right.plot(*zip(*line), style, color=shades(MOST_CURVES)[index], ms=4, lw=1.0, label=_name(row))
    if measured:
        log_axis(left, "x")
        left.legend(loc="upper left", bbox_to_anchor=(0.0, -0.2))
    left.set(xlabel=COMPUTE, ylabel=f"{DISTANCE} at infinite N")
    right.set(xlabel="1000 / number of samples N", ylabel=f"{DISTANCE} of N samples")
    if lines:
        right.set_xlim(left=0)
        right.legend(loc="upper left", bbox_to_anchor=(0.0, -0.2))
    caption = (
        "Left: the distance at infinitely many samples, where its bias (linear in 1/N, with a slope that depends on "
        "the model) is gone; bars: two standard errors of the extrapolation. Right: distances of subsets of the same "
        "samples against 1/N."
    )
    return Drawn("distance_at_infinity", f"{DISTANCE} without its bias", figure, caption)


def quality_against_sampling(m: Material) -> Drawn:
    """Fréchet distance against the number of network calls and against guidance."""
    by_nfe = [one for one in _curves(m, ("nfe", "grid", "seed"), lambda p: p.get("nfe")) if len(one[1]) > 1]
    by_scale = [one for one in _scales(m) if len(one[1]) > 1]
    if not by_nfe and not by_scale:
        raise Missing("no run was measured at two numbers of network calls or two guidance scales "
                      "(dit evaluate run=... sweep.n_steps=[...] sweep.guidance_scale=[...])")  # fmt: skip
    figure, panels = new_figure(columns=2, width=7.2, height=3.9)
    labels = ("network calls per sample (NFE)", "guidance scale (1: none)")
    for axes, curves, label in zip(panels, (by_nfe, by_scale), labels):
        for index, (row, line) in enumerate(curves[:MOST_CURVES]):
            style = MARKERS[index % len(MARKERS)] + LINES[index % len(LINES)]
            axes.plot(*zip(*line), style, color=shades(MOST_CURVES)[index], ms=4, lw=1.1, label=_name(row))
        axes.set(xlabel=label, ylabel=DISTANCE)
        if curves:
            log_axis(axes, "y")
            axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.2))
    if by_nfe:
        log_axis(panels[0], "x")
    caption = (
        f"{DISTANCE} of one checkpoint against network calls (solver and guidance held) and against the guidance "
        "scale (solver and steps held); means over sampling seeds. Guided numbers are no points of the laws."
    )
    return Drawn("quality_against_sampling", "Quality against sampling effort and guidance", figure, caption)


def _scales(m: Material) -> list[Curve]:
    return _curves(m, (*GUIDANCE, "nfe", "seed"), lambda protocol: protocol.get("guidance_scale"))


def _rows(m: Material) -> Iterable[Row]:
    return (
        row for row in (*m.study.samples, *m.study.evaluations) if row.get("frechet_distance") is not None
    )


def _curves(m: Material, varying: tuple[str, ...], x: Callable[[Row], Any]) -> list[Curve]:
    """Checkpoints under protocols that differ in ``varying`` alone, their mean distances over rising ``x``.

    The longest curves come first.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in _rows(m):
        if x(row["protocol"]) is not None:
            groups.setdefault((row["run"], row["images_seen"], _key(row, varying)), []).append(row)
    found = []
    for key in sorted(groups):
        values: dict[float, list[float]] = {}
        for row in groups[key]:
            values.setdefault(float(x(row["protocol"])), []).append(row["frechet_distance"])
        found.append((groups[key][0], [(at, float(np.mean(values[at]))) for at in sorted(values)]))
    return sorted(found, key=lambda curve: -len(curve[1]))


def _key(row: Row, varying: tuple[str, ...]) -> str:
    return json.dumps({k: v for k, v in row["protocol"].items() if k not in varying}, sort_keys=True)


def _name(row: Row) -> str:
    solver = str(row["protocol"].get("solver", "")).split("(")[0]
    return f"{row['run']}, {engineering(row['images_seen'], 2)} images, {solver}"
