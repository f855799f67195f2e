"""Figures of the validation loss as measured: against compute, along isoFLOP rows, and of several studies."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from dit.columns import legend_text
from dit.report.compare import uncompared
from dit.report.material import COMPUTE, SIZE, Drawn, Material, Missing, method_text
from dit.report.style import (
    ACCENT,
    INK,
    LINES,
    MANY_RUNS,
    MARKERS,
    QUIET,
    colourbar,
    label_budget,
    log_axis,
    new_figure,
    run_lines,
    shades,
)
from dit.study.readings import branches
from dit.study.spikes import spikes


def loss_against_compute(m: Material) -> Drawn:
    """Every run's validation loss against its compute, with the lower envelope."""
    curves = _curves(m)
    figure, axes = new_figure()
    sizes = np.array([m.study.run(run)["macs_per_token"] for run in curves])
    colour = colourbar(figure, axes, sizes, "N (multiply-adds per token)")
    run_lines(axes, list(curves.values()), colour(sizes))
    grid, low = envelope(list(curves.values()))
    axes.plot(grid, low, color=INK, lw=2.2, ls="--", label="lower envelope")
    log_axis(axes, "xy")
    axes.set(xlabel=COMPUTE, ylabel=m.loss_label)
    axes.legend(loc="upper right")
    caption = (
        f"The {m.loss_label} of all {len(curves)} runs at every reading, against exact training compute (2 "
        "FLOPs per multiply-add, backward pass twice the forward). Colour: size N. Dashed: the lowest loss "
        "that any run had reached at that compute, interpolated within runs in log-log, never beyond their "
        "ends."
    )
    return Drawn("loss_against_compute", "Loss against compute", figure, caption)


def training_curves(m: Material) -> Drawn:
    """Every run's training loss, with the steps at which it jumped."""
    rows: dict[str, list[tuple[float, float]]] = {}
    for row in m.study.train:
        if row["loss"] is not None and row["loss"] > 0 and row["train_flops"] > 0:
            rows.setdefault(row["run"], []).append((row["train_flops"], row["loss"]))
    if not rows:
        raise Missing("no run has a reading of its training loss")
    figure, axes = new_figure()
    runs = sorted(rows)
    sizes = np.array([m.study.run(run)["macs_per_token"] for run in runs])
    colour = colourbar(figure, axes, sizes, "N (multiply-adds per token)")
    for run, one in zip(runs, colour(sizes)):
        axes.plot(*zip(*sorted(rows[run])), "-", color=one, lw=0.9, rasterized=len(runs) > MANY_RUNS)
    jumps = [row for row in spikes(m.study) if row["loss"] is not None]
    if jumps:
        axes.plot([row["train_flops"] for row in jumps], [row["loss"] for row in jumps], "v", color=ACCENT, ms=4, ls="",
                  label="loss spike")  # fmt: skip
        axes.legend(loc="upper right")
    log_axis(axes, "xy")
    axes.set(xlabel=COMPUTE, ylabel="training loss (mean between readings)")
    told = (
        f"{len(jumps)} loss spikes (triangles) stand in a table."
        if jumps
        else "No step was noted as a loss spike."
    )
    caption = (
        f"The training loss of all {len(runs)} runs, each reading the mean over the steps since the last one, with "
        f"dropped labels and repeated images as they come. {told} Laws are fitted to the validation loss alone."
    )
    return Drawn("training_curves", "Training curves", figure, caption)


def _curves(m: Material) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Run -> (train FLOPs, loss) of its finite validation rows, rising in FLOPs."""
    found: dict[str, dict[float, float]] = {}
    cooled = branches(m.study)
    for row in m.study.validation:
        if row["run"] in cooled:  # another learning rate: no point of these curves or their envelope
            continue
        if row["weights"] == m.points.weights and row["loss"] is not None and row["train_flops"] > 0:
            found.setdefault(row["run"], {})[row["train_flops"]] = row["loss"]
    curves = {}
    for run in sorted(found):
        flops = sorted(found[run])
        curves[run] = np.array(flops), np.array([found[run][c] for c in flops])
    return curves


def envelope(curves: list[tuple[np.ndarray, np.ndarray]], count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """The least loss over runs at ``count`` computes; (compute, loss)."""
    low = min(flops[0] for flops, _ in curves)
    high = max(flops[-1] for flops, _ in curves)
    grid = np.unique(np.concatenate([np.geomspace(low, high, count), *(flops for flops, _ in curves)]))
    best = np.full(grid.shape, np.inf)
    for flops, loss in curves:  # readings of one budget differ by up to 1 % in compute
        inside = (grid >= 0.98 * flops[0]) & (grid <= 1.02 * flops[-1])
        values = np.exp(np.interp(np.log(grid[inside]), np.log(flops), np.log(loss)))
        best[inside] = np.minimum(best[inside], values)
    kept = np.isfinite(best)
    return grid[kept], best[kept]


def isoflop(m: Material) -> Drawn:
    """Loss against N at each budget, the parabola through each row and its minimum."""
    rows = m.analysis["isoflop"]["n_flop"]["budgets"]
    figure, axes = new_figure(height=4.1)
    for index, (row, colour) in enumerate(zip(rows, shades(len(rows)))):
        here = m.points.budget == row["budget_flops"]
        marker = MARKERS[index % len(MARKERS)]
        label = label_budget(row["budget_flops"])
        label += "" if row["edge"] is None else " (rejected)"
        axes.plot(m.points.n[here], m.points.loss[here], marker, color=colour, label=label, ms=5)
        if row["parabola"] is not None:
            x = np.linspace(np.log(m.points.n[here].min()), np.log(m.points.n[here].max()), 100)
            style = LINES[index % len(LINES)] if row["edge"] is None else ":"
            curve = np.polyval(row["parabola"]["coefficients"][::-1], x - row["parabola"]["centre"])
            axes.plot(np.exp(x), curve, style, color=colour, lw=1.1)
        if row["n_opt"] is not None:
            _minimum(axes, row, colour)
        elif row["edge"] is not None:
            best = np.flatnonzero(here)[np.argmin(m.points.loss[here])]
            axes.plot(m.points.n[best], m.points.loss[best], "x", color=ACCENT, ms=9, mew=1.8)
    axes.plot([], [], "*", color="white", mec=INK, ms=9, label="minimum, 95 % interval")
    if any(row["edge"] for row in rows):
        axes.plot([], [], "x", color=ACCENT, ms=8, mew=1.8, ls="", label="best size at the edge")
    log_axis(axes, "xy")
    axes.set(xlabel=SIZE, ylabel=m.loss_label)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    rejected = [row for row in rows if row["edge"] is not None]
    caption = (
        "One row of points per budget; lines: least-squares parabolas of the loss in ln N; stars: their "
        f"minima, with 95 % intervals ({method_text(m, 'isoFLOP minima', 'n_flop')}). "
    )
    if rejected:
        caption += (
            "Rejected: " + "; ".join(f"{r['budget_flops']:.3g} FLOPs, {r['edge']}" for r in rejected) + "."
        )
    else:
        caption += "Every budget has its best size inside its row."
    return Drawn("isoflop", "IsoFLOP curves", figure, caption)


def _minimum(axes: Axes, row: dict, colour: object) -> None:
    interval = row["interval_95"]
    if interval is not None:
        axes.plot(interval, [row["loss"]] * 2, color=INK, lw=1.2, marker="|", ms=6, zorder=4)
    axes.plot(row["n_opt"], row["loss"], "*", color=colour, mec=INK, mew=0.8, ms=10, zorder=5)


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
        log_axis(axes, "xy")
        axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.2))
    if not compared:
        right.text(
            0.5, 0.5, "nothing to compare at equal loss", transform=right.transAxes, ha="center", fontsize=8
        )
    left.set(xlabel=COMPUTE, ylabel=f"least {first.loss_label}")
    right.set(xlabel=first.loss_label, ylabel=f"compute for equal loss, over that of {first.study.name}")
    right.invert_xaxis()
    caption = (
        f"Left: least loss of each budget (points) and the frontier of each study's primary law with its 95 % band. "
        f"Right: compute with which a study reaches a loss, over that of {first.study.name}, at losses that both have "
        "reached; below 1 the study needs less. Bars: 95 % intervals over independent bootstrap draws of both laws "
        "(a bar cut at ten times the ratio is unbounded). "
    ) + " ".join(uncompared(first))
    return Drawn("comparison", "Studies compared", figure, caption)


def _draw_frontiers(axes: Any, first: Material, colours: list[Any]) -> None:
    """Least loss of each budget, and the primary law's frontier with its band, of every study that shares the axis."""
    entries = first.analysis["comparison"]
    named = [(first, first.study.name), *((m, entry["study"]) for m, entry in zip(first.others, entries))]
    for index, ((m, name), colour) in enumerate(zip(named, colours)):
        if index and not entries[index - 1]["one_axis"]:
            continue
        law, marker = m.analysis["additive"]["loss"], MARKERS[index % len(MARKERS)]
        budgets = m.points.budgets
        axes.plot(budgets, m.least_losses, marker, color=colour, ms=5, label=legend_text(name))
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
