"""Figures of what the loss implies: allocation, least loss, and the fitted surface."""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from dit.report.material import (
    COMPUTE,
    FORMS,
    IMAGES,
    SIZE,
    Drawn,
    Material,
    Missing,
    allocation_anchors,
    method_text,
)
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


def allocation(m: Material) -> Drawn:
    """N*(C) and D*(C) with bands, beside lines of published slope."""
    law = m.analysis["isoflop"]["n_flop"]["law"]
    if law is None:
        raise Missing(m.analysis["isoflop"]["n_flop"]["why_not"])
    rows = m.analysis["isoflop"]["n_flop"]["budgets"]
    budgets = np.array([row["budget_flops"] for row in rows])
    grid = np.geomspace(budgets.min() / 1.6, budgets.max() * 1.6, 80)
    figure, panels = new_figure(columns=2, width=7.2, height=4.5)
    labels = ("optimal N* (multiply-adds per token)", "optimal images seen D*")
    for axes, what, label in zip(panels, ("n", "d"), labels):
        _band(axes, law[what])
        _line(axes, grid, law[what], INK, "-", f"isoFLOP minima: {slope_text(law[what])}")
        primary = m.analysis["additive"]["primary"]
        part = primary and primary["allocation"][what]
        if part and part["exponent"] is not None:
            _line(axes, grid, part, INK, "--", f"{m.law_name}: {slope_text(part)}")
        middle = float(np.exp(np.log(budgets).mean()))
        height = law[what]["coefficient"] * middle ** law[what]["exponent"]
        for index, anchor in enumerate(allocation_anchors()):
            slope = anchor["n_exponent"] if what == "n" else anchor["d_exponent"]
            axes.plot(
                grid,
                height * (grid / middle) ** slope,
                color=QUIET,
                lw=0.7,
                marker=MARKERS[index],
                ms=4,
                mfc="white",
                mew=0.8,
                markevery=[0, -1],
                label=f"{anchor['short']}: {slope:.3f}",
            )
        _minima(axes, rows, what)
        log_axis(axes, "xy")
        axes.set(xlabel=COMPUTE, ylabel=label)
        axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.2), handlelength=3.2)
    caption = (
        "Compute-optimal size and images. Points: isoFLOP minima with 95 % intervals; crosses: rejected "
        "budgets. Solid "
        "line: power law through the minima inside their rows, with its 95 % band "
        f"({method_text(m, 'isoFLOP minima', 'n_flop')}); dashed: the "
        f"allocation of the {m.law_name}. Grey: published slopes drawn through "
        "this study's line at its middle budget; "
        "only their slope is comparable, since sizes and data are "
        "counted in other units there."
    ) + _doubts(m)
    return Drawn("allocation", "Compute-optimal allocation", figure, caption)


def slope_text(line: dict) -> str:
    """The slope of a law for a legend."""
    return f"slope {line['exponent']:.3f}" + (" (doubtful)" if line["doubt"] else "")


def _doubts(m: Material) -> str:
    """The doubts about the exponents of both laws, as the end of a caption."""
    primary, law = m.analysis["additive"]["primary"], m.analysis["isoflop"]["n_flop"]["law"]
    laws = {"isoFLOP minima": law, m.law_name: primary and primary["allocation"]}
    pairs = [(name, x, one[x]["doubt"]) for name, one in laws.items() if one for x in ("n", "d")]
    told = "; ".join(f"{x.upper()}* of the {name}: {doubt}" for name, x, doubt in pairs if doubt)
    return f" Doubtful: {told}." if told else ""


def _line(axes: Axes, grid: np.ndarray, law: dict, colour: str, style: str, label: str) -> None:
    axes.plot(grid, _along(law, grid), color=colour, ls=style, lw=1.4, label=label)


def _along(law: dict, grid: np.ndarray) -> np.ndarray:
    """N* or D* at compute ``grid``: of a power law, or of a curve."""
    if "curve" in law:
        return np.exp(np.interp(np.log(grid), np.log(law["curve"]["c"]), np.log(law["curve"]["value"])))
    return law["coefficient"] * grid ** law["exponent"]


def _band(axes: Axes, line: dict) -> None:
    if line["band"] is not None:
        band = line["band"]
        axes.fill_between(band["c"], band["low"], band["high"], color="#cfd8e3", lw=0, label="95 % band")


def _minima(axes: Axes, rows: list[dict], what: str) -> None:
    for row in rows:
        value = row[f"{what}_opt"]
        if value is None:
            continue
        if row["edge"] is not None:
            axes.plot(row["budget_flops"], value, "x", color=ACCENT, ms=7, mew=1.6, zorder=5)
            continue
        interval = row["interval_95"] if what == "n" else row["d_interval_95"]
        if interval is not None:
            axes.plot([row["budget_flops"]] * 2, interval, color=INK, lw=1.1, marker="_", ms=6, zorder=4)
        axes.plot(row["budget_flops"], value, "o", color="white", mec=INK, ms=5.5, zorder=5)


def frontier(m: Material) -> Drawn:
    """The least loss at each budget: laws with and without a floor, the additive law, the held-out budget."""
    found = m.analysis["frontier"]
    if found is None:
        raise Missing("too few budgets have a minimum inside their row")
    budgets = m.points.budgets
    grid = np.geomspace(budgets.min() / 1.5, budgets.max() * 10, 120)
    figure, axes = new_figure(height=4.0)
    law = m.analysis["additive"]["loss"]
    if law is not None:
        band = law["band"]
        if band is not None:
            axes.fill_between(
                band["c"], band["low"], band["high"], color="#cfd8e3", lw=0, label=f"{m.law_name}, 95 %"
            )
        axes.plot(
            law["c"], law["value"], "-.", color=INK, lw=1.3, label=f"{m.law_name}: floor {law['floor']:.3g}"
        )
    styles = {"power": ("-", "power law, no floor"), "power_floor": ("--", "power law with floor")}
    for (name, (style, label)), colour in zip(styles.items(), shades(3)):
        fit = found[name]
        if fit is not None:
            text = f"{label}: slope −{-fit['exponent']:.3f}" + (
                f", floor {fit['floor']:.3g}" if fit["floor"] else ""
            )
            curve = fit["floor"] + fit["coefficient"] * grid ** fit["exponent"]
            axes.plot(grid, curve, style, color=colour, lw=1.5, label=text)
    axes.plot(budgets, m.least_losses, ".", color=INK, ms=6, label="least loss measured")
    axes.plot(found["budgets"], found["losses"], "o", color="white", mec=INK, ms=6, label="isoFLOP minimum")
    held = m.analysis["holdout"]
    if held is not None:
        best = held["best"]
        interval = best["interval_95"] or [best["predicted"]] * 2
        axes.plot([held["budget_flops"]] * 2, interval, color=ACCENT, lw=1.3, marker="_", ms=7, zorder=6)
        axes.plot(
            held["budget_flops"],
            best["predicted"],
            "D",
            color=ACCENT,
            ms=4.5,
            zorder=6,
            label="held out: predicted, 95 %",
        )
    log_axis(axes, "xy")
    axes.set(xlabel=COMPUTE, ylabel=f"least {m.loss_label}")
    axes.legend(loc="lower left")
    caption = (
        "Least loss against compute: power laws with and without a floor through the isoFLOP "
        f"minima, and the frontier of the {m.law_name}, all drawn on to ten times the largest budget. Where "
        "the laws part, the records do not say which is right. Diamond: the largest budget, predicted by "
        f"{'an' if m.law_name[0] == 'a' else 'a'} {m.law_name} that has not seen it."
    )
    return Drawn("frontier", "Least loss against compute", figure, caption)


def _worth(m: Material) -> tuple[Callable[[Any], Any], str]:
    """What images seen are worth, and the label of their axis: effective images where data are repeated."""
    if m.law is not None and m.law.law == "data_limited":
        return m.law.fit.effective_data, "effective images D'"
    return (lambda images: images), IMAGES


def contours(m: Material) -> Drawn:
    """The fitted surface L(N, D), the points, the isoFLOP lines and the frontier."""
    fit, points = m.primary, m.points
    n = np.geomspace(points.n.min() / 2, points.n.max() * 2, 120)
    d = np.geomspace(points.images.min() / 2, points.images.max() * 2, 120)
    surface = m.predict(n[None, :], d[:, None])
    worth, axis = _worth(m)
    figure, axes = new_figure(height=4.3)
    low, high = points.loss.min(), points.loss.max()
    levels = np.geomspace(max(low * 0.95, fit["parameters"]["E"] * 1.02), high * 1.1, 9)
    lines = axes.contour(n, worth(d), surface, levels=levels, colors="#5b7fa3", linewidths=0.8)
    for index, budget in enumerate(points.budgets):
        here = points.budget == budget
        axes.plot(n, worth(budget / (6 * points.tokens * n)), color=QUIET, lw=0.6, ls=":")
        axes.plot(
            points.n[here],
            worth(points.images[here]),
            MARKERS[index % len(MARKERS)],
            color=INK,
            mfc="white",
            ms=4.5,
            mew=0.9,
            label=label_budget(budget),
        )
    best = fit["allocation"]["n"]
    if best["exponent"] is not None:
        compute = np.geomspace(points.budgets.min() / 10, points.budgets.max() * 10, 50)
        optimal = _along(best, compute)
        axes.plot(
            optimal, worth(compute / (6 * points.tokens * optimal)), color=ACCENT, lw=2, label="frontier"
        )
    log_axis(axes, "xy")
    axes.set(xlabel=SIZE, ylabel=axis, xlim=(n[0], n[-1]), ylim=(worth(d)[0], 1.1 * worth(d)[-1]))
    # Labels stand to the right of the largest network, where no point is.
    x = points.n.max() * 1.45
    beside = m.predict(np.full(len(d), x), d)
    y = worth(np.exp(np.interp(levels, beside[::-1], np.log(d)[::-1])))
    places = [(x, at) for at in y if worth(d)[0] * 1.2 < at < worth(d)[-1] / 1.2]
    if places:
        axes.clabel(lines, fmt=lambda value: f"{value:.3g}", fontsize=7, manual=places)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    caption = (
        f"Contours of the {m.law_name} {FORMS[m.analysis['additive']['law']]} (labels: loss), the measured points, "
        "lines of equal "
        "compute (dotted) and the compute-optimal frontier of the law."
    ) + _doubts(m)
    return Drawn("contours", "Fitted surface and frontier", figure, caption)
