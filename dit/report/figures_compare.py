"""Figures of two or more studies: their frontiers, and the compute one needs for what the other reaches."""

from typing import Any

import numpy as np

from dit.columns import legend_text
from dit.report.compare import uncompared
from dit.report.material import COMPUTE, Drawn, Material
from dit.report.style import INK, LINES, MARKERS, QUIET, log_axis, new_figure, shades


def comparison(first: Material) -> Drawn:
    """Least loss against compute of every study, and the ratio of compute at equal loss."""
    entries = first.analysis["comparison"]
    figure, (left, right) = new_figure(columns=2, width=7.2, height=4.2)
    colours = shades(1 + len(entries))
    _draw_frontiers(left, first, colours)
    _draw_ratios(right, entries, colours[1:])
    compared = bool(right.lines)
    if compared:
        right.axhline(1, color=QUIET, lw=0.9)
    for axes in (left, right) if compared else (left,):
        log_axis(axes, "x")
        log_axis(axes, "y")
        axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.2))
    if not compared:
        right.text(
            0.5, 0.5, "nothing to compare at equal loss", transform=right.transAxes, ha="center", fontsize=8
        )
    left.set(xlabel=COMPUTE, ylabel=f"least {first.loss_label}")
    right.set(xlabel=first.loss_label, ylabel=f"compute for equal loss, over that of {first.study.name}")
    right.invert_xaxis()
    caption = (
        f"Left: least loss of each budget (points) and the frontier of each study's additive law with its 95 % band. "
        f"Right: compute with which a study reaches a loss, over that of {first.study.name}, at losses that both have "
        "reached; below 1 the study needs less. Bars: 95 % intervals over independent bootstrap draws of both laws "
        "(a bar cut at ten times the ratio is unbounded). "
    ) + " ".join(uncompared(first))
    return Drawn("comparison", "Studies compared", figure, caption)


def _draw_frontiers(axes: Any, first: Material, colours: list[Any]) -> None:
    """Least loss of each budget, and the additive law's frontier with its band, of every study that shares the axis."""
    entries = first.analysis["comparison"]
    named = [(first, first.study.name), *((m, entry["study"]) for m, entry in zip(first.others, entries))]
    for index, ((m, name), colour) in enumerate(zip(named, colours)):
        if index and not entries[index - 1]["one_axis"]:
            continue
        law, marker = m.analysis["additive"]["loss"], MARKERS[index % len(MARKERS)]
        budgets = m.points.budgets
        least = [m.points.loss[m.points.budget == budget].min() for budget in budgets]
        axes.plot(budgets, least, marker, color=colour, ms=5, label=legend_text(name))
        if law is not None:
            shown = np.array(law["c"]) <= 1.6 * budgets[-1]
            axes.plot(
                np.array(law["c"])[shown],
                np.array(law["value"])[shown],
                LINES[index % len(LINES)],
                color=colour,
            )
            if law["band"] is not None:
                ends = (np.array(law["band"][side])[shown] for side in ("low", "high"))
                axes.fill_between(np.array(law["c"])[shown], *ends, color=colour, alpha=0.15, lw=0)


def _draw_ratios(axes: Any, entries: list[dict[str, Any]], colours: list[Any]) -> None:
    """The ratio of compute at equal loss of every study that has one, with its 95 % interval."""
    for index, (entry, colour) in enumerate(zip(entries, colours), start=1):
        rows = [row for row in entry["by_loss"] if row["ratio"] is not None]
        if not rows:
            continue
        nudge = 1 + 0.002 * (index - 1)  # bars of several studies stand side by side
        for row in rows:
            low, high = row["interval_95"] or (row["ratio"], row["ratio"])
            ends = [low or row["ratio"], high or 10 * row["ratio"]]
            axes.plot([nudge * row["level"]] * 2, ends, color=INK, lw=1.0, marker="_", ms=5)
        x = [nudge * row["level"] for row in rows]
        style = MARKERS[index % len(MARKERS)] + LINES[index % len(LINES)]
        axes.plot(
            x,
            [row["ratio"] for row in rows],
            style,
            color=colour,
            mec=INK,
            ms=5.5,
            label=legend_text(entry["study"]),
        )
