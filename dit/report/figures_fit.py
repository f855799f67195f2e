"""Figures that judge the fit: residuals, bootstrap draws, profiles, hold-out, sensitivity."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from dit.fits.held import in_words
from dit.report.material import DRAWN, IMAGES, SIZE, Drawn, Material, Missing
from dit.report.style import (
    ACCENT,
    INK,
    MARKERS,
    QUIET,
    label_budget,
    log_axis,
    new_figure,
    shades,
)

PAIRS = ("E", "alpha", "beta", "a")
NAMES = {
    "E": "E",
    "alpha": "α",
    "beta": "β",
    "a": "a (exponent of N*)",
    "R_D": "R_D",
    "R_N": "R_N",
    "A": "A",
    "B": "B",
}


def residuals(m: Material) -> Drawn:
    """Relative residuals of the primary law against N and D."""
    points = m.points
    percent = 100 * (points.loss / m.predict(points.n, points.images) - 1)
    figure, panels = new_figure(columns=2, width=7.2, height=3.3, sharey=True)
    colours = shades(len(points.budgets))
    for axes, x, label in zip(panels, (points.n, points.images), (SIZE, IMAGES)):
        axes.axhline(0, color=INK, lw=0.8)
        for index, budget in enumerate(points.budgets):
            here = points.budget == budget
            axes.plot(
                x[here],
                percent[here],
                MARKERS[index % len(MARKERS)],
                color=colours[index],
                ms=4.5,
                label=label_budget(budget),
            )
        log_axis(axes, "x")
        axes.set_xlabel(label)
    panels[0].set_ylabel("measured / fitted - 1 (%)")
    panels[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    spread = float(np.sqrt(np.mean(percent**2)))
    caption = (
        f"Residuals of the {m.law_name} (root mean square {spread:.3g} %, n = {len(percent)}). A law that "
        "holds leaves no trend along either axis and none between budgets."
    )
    return Drawn("residuals", "Residuals", figure, caption)


def bootstrap_pairs(m: Material) -> Drawn:
    """Bootstrap draws of the parameters, two at a time."""
    fit = m.primary
    names = [name for name in PAIRS if name in m.draws and _value(fit, name) is not None]
    if len(names) < 2 or len(m.draws[names[0]]) < 20:
        raise Missing(m.analysis["additive"].get("bootstrap_why_not") or "no bootstrap draws")
    count = len(names)
    figure, panels = new_figure(columns=count, rows=count, width=6.6, height=6.0)
    for i, down in enumerate(names):
        for j, across in enumerate(names):
            axes: Axes = panels[i, j]
            if j > i:
                axes.set_axis_off()
                continue
            x, low, high = _central(m.draws[across])
            if i == j:
                axes.hist(x, bins=30, range=(low, high), color="#9fb3c8", edgecolor="white", lw=0.3)
                axes.axvline(_value(fit, across), color=ACCENT, lw=1.2)
                axes.set_yticks([])
            else:
                axes.plot(
                    m.draws[across], m.draws[down], ".", color="#33536f", ms=1.8, alpha=0.35, rasterized=True
                )
                axes.plot(_value(fit, across), _value(fit, down), "+", color=ACCENT, ms=10, mew=1.6)
                axes.set_ylim(*_central(m.draws[down])[1:])
            axes.set_xlim(low, high)
            axes.locator_params(nbins=2)
            axes.tick_params(labelbottom=i == count - 1, labelleft=j == 0 and i > 0)
            axes.set_xlabel(NAMES[across] if i == count - 1 else "")
            axes.set_ylabel(NAMES[down] if j == 0 and i > 0 else "")
    info = m.analysis["additive"]["bootstrap"]
    caption = (
        f"{info['draws']} bootstrap draws of the {m.law_name}, each {DRAWN[info['method']]} "
        f"({info['converged']} converged); histograms on the diagonal, the fit itself in red. Narrow ridges "
        "are parameters that trade against each other: their ratio is known better than either. Axes span "
        "the central 99 % of the draws."
    )
    return Drawn("bootstrap", "Bootstrap draws", figure, caption)


def _central(values: np.ndarray) -> tuple[np.ndarray, float, float]:
    low, high = np.nanpercentile(values, [0.5, 99.5])
    margin = max(0.05 * (high - low), 1e-6 * abs(high), 1e-12)  # all draws may be equal
    return values[np.isfinite(values)], float(low - margin), float(high + margin)


def _value(fit: dict[str, Any], name: str) -> Any:
    return fit["parameters"][name] if name in fit["parameters"] else fit["allocation"]["n"]["exponent"]


def profiles(m: Material) -> Drawn:
    """Profile of the objective over each parameter."""
    found = m.analysis["additive"].get("profiles") or {}
    found = {name: one for name, one in found.items() if one["estimate"] is not None and _curve(one)[0].size}
    if not found:
        raise Missing(m.analysis["additive"].get("why_not") or "no profiles")
    figure, panels = new_figure(columns=len(found), width=7.2, height=2.7, sharey=True)
    for axes, (name, profile) in zip(np.atleast_1d(panels), found.items()):
        x, rise = _curve(profile)
        axes.plot(x, rise, color=INK, lw=1.3)
        axes.axhline(profile["threshold"], color=QUIET, ls="--", lw=0.9)
        axes.axvline(profile["estimate"], color=ACCENT, lw=1.0)
        if profile["identified"]:
            low, high = profile["interval_95"]
            axes.axvspan(low, high, color="#cfd8e3", lw=0)
        else:
            axes.text(
                0.5, 0.92, "not identified", transform=axes.transAxes, ha="center", color=ACCENT, fontsize=8
            )
        axes.set(xlim=(x[0], x[-1]), ylim=(0, 2 * profile["threshold"]), xlabel=NAMES[name])
        axes.locator_params(axis="x", nbins=2)
    np.atleast_1d(panels)[0].set_ylabel("profile deviance")
    caption = (
        "How much worse the fit becomes when one parameter is held at a value and the others are fitted "
        "again. Dashed: the rise at which a value leaves the 95 % interval (shaded). A curve that stays "
        "below it towards one side means that the records do not bound the parameter there: it is not "
        "identified."
    )
    return Drawn("profiles", "Profiles", figure, caption)


def _curve(profile: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Value and deviance, dense, over somewhat more than the interval or all of the profile.

    Between the values of a profile its signed root is the straighter line; the interval's ends lie on it too.
    """
    x, rise = np.array(profile["value"]), np.array(profile["deviance"], dtype=float)
    known = np.isfinite(rise)
    x, root = x[known], np.sqrt(rise[known]) * np.sign(x[known] - profile["estimate"])
    low, high = x[0], x[-1]
    if profile["identified"]:
        ends = profile["interval_95"]
        low, high = ends[0] - 0.2 * (ends[1] - ends[0]), ends[1] + 0.2 * (ends[1] - ends[0])
    dense = np.linspace(low, high, 2000)
    curve = np.interp(dense, x, root) ** 2
    shown = curve <= 2.2 * profile["threshold"]
    return dense[shown], curve[shown]


def holdout(m: Material) -> Drawn:
    """Predicted against measured losses of the held-out budget."""
    held = m.analysis["holdout"]
    if held is None:
        raise Missing(m.analysis["holdout_why_not"])
    rows = held["rows"]
    measured = np.array([row["measured"] for row in rows])
    predicted = np.array([row["predicted"] for row in rows])
    figure, (left, right) = new_figure(columns=2, width=7.2, height=3.5)
    span = np.array(
        [min(measured.min(), predicted.min()) * 0.99, max(measured.max(), predicted.max()) * 1.01]
    )
    left.plot(span, span, color=QUIET, lw=0.9, label="predicted = measured")
    right.axhline(0, color=QUIET, lw=0.9)
    n = np.array([row["n"] for row in rows])
    look = {
        "c": np.log(n),
        "cmap": "viridis",
        "vmax": np.log(n.max() * 3),
        "edgecolors": INK,
        "lw": 0.5,
        "s": 28,
    }
    left.scatter(measured, predicted, **look, zorder=3)
    right.scatter(n, 100 * (predicted / measured - 1), **look, zorder=3)
    if all(row["interval_95"] for row in rows):
        low, high = (
            100 * (np.array(ends) / measured - 1) for ends in zip(*(row["interval_95"] for row in rows))
        )
        right.vlines(n, low, high, color=INK, lw=1.0)
    left.set(xlim=span, ylim=span, aspect="equal", xlabel=f"measured {m.loss_label}", ylabel="predicted")
    left.locator_params(nbins=5)
    left.legend(loc="upper left")
    log_axis(right, "x")
    right.set(xlabel=SIZE, ylabel="predicted / measured - 1 (%)")
    caption = (
        f"The largest budget ({held['budget_flops']:.3g} FLOPs) predicted by the {m.law_name} fitted to the "
        f"smaller ones: "
        f"{in_words(held)}. Errors are of ln loss; bars at the right: 95 % intervals of a single reading, law and "
        "noise together. Skill: 1 - mean square error / that of the nearest fitted budget's lowest loss (persistence) "
        "or mean (constant)."
    )
    return Drawn("holdout", "Hold-out", figure, caption)


def sensitivity(m: Material) -> Drawn:
    """The exponent of N* under every other reasonable choice."""
    rows = m.analysis["sensitivity"]
    if not rows:
        raise Missing("no fit to vary")
    if rows[0]["a"] is None:
        raise Missing(f"the exponent of N* is {rows[0]['doubt']}")
    figure, axes = new_figure(width=6.6, height=0.9 + 0.27 * len(rows))
    base = rows[0]
    if base["interval_95"]:
        axes.axvspan(*base["interval_95"], color="#e6ebf1", lw=0)
    axes.axvline(base["a"], color=QUIET, lw=0.9, ls="--")
    for index, row in enumerate(rows):
        if row["a"] is None:
            axes.plot(base["a"], index, "x", color=ACCENT, ms=5)
            continue
        if row["interval_95"]:
            axes.plot(row["interval_95"], [index, index], color=INK, lw=1.1, marker="|", ms=5)
        axes.plot(
            row["a"], index, "o" if index == 0 else "s", color=INK if index == 0 else "white", mec=INK, ms=5.5
        )
    labels = [row["what"] + ("" if row["a"] is not None else " (no fit)") for row in rows]
    axes.set_yticks(range(len(rows)), labels)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("exponent a of N*(C)")
    moved = [abs(row["a"] - base["a"]) for row in rows[1:] if row["a"] is not None]
    sd = base.get("sd")
    beside = f" beside a bootstrap standard deviation of {sd:.3f}" if sd else ""
    most = max(moved, default=0)
    caption = (
        f"The exponent of N*(C) when one choice is changed at a time; it moves by up to {most:.3f}{beside}. "
        + (f"Doubtful: {rows[0]['doubt']}. " if rows[0]["doubt"] else "")
        + "Shaded: 95 % interval of the first row. Bars: 95 % intervals where they were computed."
    )
    return Drawn("sensitivity", "Sensitivity", figure, caption)
