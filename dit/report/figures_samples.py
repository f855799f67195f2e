"""Figures of the samples and of the noise bins: Fréchet distance, accuracy, pictures, loss per log-SNR."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from dit.report.material import COMPUTE, Drawn, Material, Missing
from dit.report.style import (
    DPI,
    INK,
    LINES,
    MARKERS,
    colourbar,
    engineering,
    label_budget,
    log_axis,
    new_figure,
    run_lines,
    shades,
)
from dit.report.words import setting_text
from dit.study.sampled import Samples
from dit.trust import picture_below

DISTANCE = "Fréchet distance"


def noise_bins(m: Material) -> Drawn:
    """Loss per bin of log-SNR at each budget's best run, and the exponent of each bin."""
    found = m.analysis["bins"]
    if found is None:
        raise Missing("no losses per log-SNR bin")
    edges = np.array(found["edges"])
    figure, (left, right) = new_figure(columns=2, width=7.2, height=3.3)
    for index, (row, colour) in enumerate(zip(found["best"], shades(len(found["best"])))):
        left.stairs(
            np.array(row["bins"], dtype=float),  # NaN where a bin diverged
            edges,
            color=colour,
            lw=1.4,
            ls=LINES[index % len(LINES)],
            baseline=None,
            label=label_budget(row["budget_flops"]),
        )
    log_axis(left, "y")
    left.set(xlabel="log-SNR (data to the right)", ylabel="validation loss in the bin")
    left.legend(loc="upper left", bbox_to_anchor=(0.0, -0.2), ncols=2)
    middle = (edges[1:] + edges[:-1]) / 2
    slopes = np.array([np.nan if s is None else s for s in found["exponents"]], dtype=float)
    right.axhline(0, color=INK, lw=0.7)
    for x, pair in zip(middle, found["intervals_95"] or []):
        if pair is not None:
            right.plot([x, x], pair, color=INK, lw=1.0, marker="_", ms=5)
    right.plot(middle, slopes, "s", color="white", mec=INK, ms=5.5)
    right.set(xlabel="log-SNR (data to the right)", ylabel="exponent of the bin's loss in C")
    caption = (
        "Left: validation loss per bin of log-SNR of the run with the least total loss at each budget. "
        "Right: slope of "
        "ln(bin loss) on ln C over those runs, a power law without floor, so a bin near its floor "
        "shows a slope near "
        "zero; bars: 95 % intervals of the straight line where three or more budgets "
        "allow them."
    )
    return Drawn("noise_bins", "Loss per noise level", figure, caption)


def _require(m: Material, guided: bool) -> Samples:
    for group in m.samples:
        if group.guided is guided and group.rows:
            return group
    raise Missing(
        "no samples records " + ("with guidance" if guided else "without guidance") + " at a budget"
    )


def frechet_against_compute(m: Material) -> Drawn:
    """Fréchet distance of unguided samples against compute."""
    group = _require(m, guided=False)
    rows = [row for row in group.rows if row["frechet_distance"] is not None]
    if not rows:
        raise Missing("no Fréchet distance among the samples records")
    figure, axes = new_figure()
    sizes = np.array([row["n"] for row in rows])
    colour = colourbar(figure, axes, sizes, "N (multiply-adds per token)")
    curves = _curves(rows, "frechet_distance")
    run_lines(axes, list(curves.values()), [colour(m.study.run(name)["macs_per_token"]) for name in curves])
    law = m.analysis["frechet"]
    best = law["best"]
    axes.plot(
        [b["budget_flops"] for b in best],
        [b["frechet_distance"] for b in best],
        "o",
        mfc="none",
        mec=INK,
        ms=9,
        mew=1.3,
        label="best of the budget",
    )
    _seed_bars(axes, rows)
    fit = law["fit"]
    if fit is not None:
        grid = np.geomspace(best[0]["budget_flops"], best[-1]["budget_flops"], 50)
        axes.plot(
            grid,
            fit["coefficient"] * grid ** fit["exponent"],
            color=INK,
            ls="--",
            lw=1.8,
            label=f"through the best: slope −{-fit['exponent']:.3f}",
        )
    log_axis(axes, "xy")
    axes.set(xlabel=COMPUTE, ylabel=f"{DISTANCE} (unguided, n = {group.protocol.get('n')})")
    axes.legend(loc="best")
    caption = (
        f"{DISTANCE} of unguided samples at the budgets, one line per run; circles: the best run of each "
        f"budget. "
        f"{protocol_text(group)}"
    )
    return Drawn("frechet_against_compute", f"{DISTANCE} against compute", figure, caption)


def _curves(rows: list[dict[str, Any]], what: str, factor: float = 1.0) -> dict[str, tuple[list, list]]:
    """Run -> (train FLOPs, ``factor`` times ``what``), rising in FLOPs."""
    curves: dict[str, tuple[list, list]] = {}
    for row in sorted(rows, key=lambda row: (row["run"], row["train_flops"])):
        x, y = curves.setdefault(row["run"], ([], []))
        x.append(row["train_flops"])
        y.append(factor * row[what])
    return curves


def _seed_bars(axes: Any, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        if row["frechet_distance_sd"]:
            spread = row["frechet_distance_sd"]
            axes.plot(
                [row["train_flops"]] * 2,
                [row["frechet_distance"] - spread, row["frechet_distance"] + spread],
                color=INK,
                lw=0.8,
                marker="_",
                ms=3,
            )


def frechet_against_loss(m: Material) -> Drawn:
    """Fréchet distance against the validation loss of the same weights."""
    group = _require(m, guided=False)
    rows = [row for row in group.rows if row["frechet_distance"] is not None and row["loss"] is not None]
    if len(rows) < 3:
        raise Missing("fewer than three readings have both a Fréchet distance and a loss")
    figure, axes = new_figure()
    budgets = sorted({row["budget_flops"] for row in rows})
    for index, (budget, colour) in enumerate(zip(budgets, shades(len(budgets)))):
        mine = [row for row in rows if row["budget_flops"] == budget]
        axes.plot(
            [r["loss"] for r in mine],
            [r["frechet_distance"] for r in mine],
            MARKERS[index % len(MARKERS)],
            color=colour,
            ms=5,
            label=label_budget(budget),
        )
    log_axis(axes, "xy")
    axes.set(xlabel=m.loss_label, ylabel=f"{DISTANCE} (unguided)")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    rank = m.analysis["frechet"]["rank_correlation"]
    caption = (
        f"{DISTANCE} against validation loss of the same weights at the same budget; rank correlation "
        f"{rank:.3f} over "
        f"{len(rows)} readings. {protocol_text(group)}"
    )
    return Drawn("frechet_against_loss", f"Loss against {DISTANCE}", figure, caption)


def guided_accuracy(m: Material) -> Drawn:
    """Share of guided samples that the classifier gives back their label."""
    group = _require(m, guided=True)
    rows = [row for row in group.rows if row["accuracy"] is not None]
    if not rows:
        raise Missing("no accuracy among the guided samples records")
    if len(rows) == 1:
        raise Missing(
            f"one reading alone, {rows[0]['accuracy']:.1%} of {rows[0]['run']}: the headline has it"
        )
    figure, axes = new_figure(height=3.3)
    colour = colourbar(figure, axes, np.array([row["n"] for row in rows]), "N (multiply-adds per token)")
    curves = _curves(rows, "accuracy", 100.0)
    run_lines(axes, list(curves.values()), [colour(m.study.run(name)["macs_per_token"]) for name in curves])
    log_axis(axes, "x")
    axes.set(xlabel=COMPUTE, ylabel="samples judged right (%)")
    caption = (
        "Guided class-conditional samples whose label the classifier gives back. A check of conditioning, "
        "not a law. " + protocol_text(group)
    )
    return Drawn("guided_accuracy", "Guided accuracy", figure, caption)


def protocol_text(group: Samples) -> str:
    """The protocol in a caption."""
    shown = ("extractor", "reference_n", "n", "labels", "solver", "grid", "nfe", "guidance", "weights")
    parts = [
        f"{name} {setting_text(group.protocol[name])}"
        for name in shown
        if group.protocol.get(name) is not None
    ]
    return "Protocol: " + "; ".join(parts) + "."


def sample_grids(m: Material) -> Drawn:
    """The best run's sample grid at each budget, the same seeds in the same place."""
    from PIL import Image

    columns = []
    for group in m.samples:
        best = _best_grids(m, group)
        if best:
            columns.append((group, best))
    if not columns:
        raise Missing("no samples row names a grid that exists")
    budgets = sorted({budget for _, best in columns for budget in best})
    try:
        pictures = {
            (c, b): np.asarray(Image.open(path).convert("RGB"))
            for c, (_, best) in enumerate(columns)
            for b, (_, path) in best.items()
        }
    except (OSError, SyntaxError, ValueError) as error:  # SyntaxError: Pillow's name for a damaged PNG
        raise Missing(f"a picture cannot be read: {error}") from None
    tall = max(picture.shape[0] for picture in pictures.values())
    wide = max(picture.shape[1] for picture in pictures.values())
    across = min(6.2 / len(columns), max(2.5, wide / DPI))
    figure, panels = new_figure(
        columns=len(columns),
        rows=len(budgets),
        width=across * len(columns) + 1.0,
        height=len(budgets) * (across * tall / wide + 0.1) + 0.2,
        squeeze=False,
    )
    for c, (group, best) in enumerate(columns):
        guidance = setting_text(group.protocol.get("guidance")) if group.guided else "unguided"
        panels[0, c].set_title(textwrap.fill(guidance, 40), fontsize=8)
        for r, budget in enumerate(budgets):
            axes = panels[r, c]
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if budget not in best:
                continue
            if c == 0:
                name = f"{label_budget(budget)}\nN = {engineering(best[budget][0]['n'], 3)}"
                axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=7.5)
            axes.imshow(pictures[c, budget], interpolation="none")
    caption = (
        "Samples of the best run of each budget (least validation loss), compute rising downwards; the same "
        "seeds and "
        "labels stand in the same place, so a column shows one draw at rising compute."
    )
    return Drawn("sample_grids", "Samples by compute", figure, caption)


def _best_grids(m: Material, group: Samples) -> dict[float, tuple[dict[str, Any], Path]]:
    """Budget -> (row, picture) of the run with the least loss there, where it has a picture."""
    runs = {row["budget_flops"]: row["best_run"] for row in m.analysis["isoflop"]["n_flop"]["budgets"]}
    best: dict[float, tuple[dict[str, Any], Path]] = {}
    for row in group.rows:
        path = picture_below(m.study.run_directory(row["run"]), row["grid"])
        if runs.get(row["budget_flops"]) == row["run"] and path is not None:
            best[row["budget_flops"]] = (row, path)
    return best
