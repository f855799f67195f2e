"""How every figure looks and is written: byte-stable PNG and SVG, told apart by marker and lightness, not by
hue.

Colours come from maps whose lightness is monotone (readable in grey and by the colour-blind); budgets carry a
marker of their own besides. Matplotlib is used through its Figure object, without pyplot's global state.
"""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib import colormaps, ticker
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
MANY_RUNS = 60  # above this number of lines, markers only hide each other
LINES = ("-", "--", "-.", ":")
INK, QUIET, ACCENT = "#1a1a1a", "#767676", "#b3402a"
DPI = 150
SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")

RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.labelsize": 8.5,
    "legend.fontsize": 7.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "text.hinting": "none",  # hinted superscripts look bold beside their base
    "text.parse_math": False,  # a dollar in a name is one
    "svg.hashsalt": "dit",
    "svg.fonttype": "path",
    "savefig.dpi": "figure",
}


@contextmanager
def styled() -> Iterator[None]:
    """Matplotlib's settings for the time in which figures are drawn and written."""
    with matplotlib.rc_context(RC):
        yield


def new_figure(columns: int = 1, rows: int = 1, width: float = 6.6, height: float = 3.7, **axes: Any) -> Any:
    """A figure and its axes (one Axes, or an array of them); sizes in inches."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    return figure, figure.subplots(rows, columns, **axes)


def write(figure: Figure) -> tuple[bytes, bytes]:
    """The figure as (PNG, SVG), the same bytes for the same content."""
    canvas = FigureCanvasAgg(figure)
    png, svg = io.BytesIO(), io.BytesIO()
    layout = figure.get_layout_engine()
    if layout is not None:  # once for both files: the layout is a third of the time
        layout.execute(figure)
        figure.set_layout_engine("none")
    # zlib's fast level: a third of the time for a tenth more bytes
    canvas.print_png(png, metadata={"Software": None}, pil_kwargs={"compress_level": 2})
    FigureCanvasSVG(figure).print_svg(
        svg, metadata={"Date": None, "Creator": None}
    )  # savefig would draw twice
    return png.getvalue(), svg.getvalue()


def shades(count: int, name: str = "viridis", low: float = 0.0, high: float = 0.82) -> list[Any]:
    """``count`` colours from dark to light, none too light for white paper."""
    return [colormaps[name](x) for x in np.linspace(low, high, max(count, 1))]


def engineering(value: float, digits: int = 3) -> str:
    """A number for a person: 0.0123, 42.5, 1.2×10¹³ (in Unicode: mathtext would cost a report 1 s)."""
    if value == 0 or not math.isfinite(value):
        return str(value)
    exponent = math.floor(math.log10(abs(value)) + 1e-12)
    if -4 < exponent < 4:
        return f"{float(f'{value:.{digits}g}'):g}"
    mantissa = float(f"{value / 10**exponent:.{digits - 1}f}")
    if mantissa >= 10:
        mantissa, exponent = mantissa / 10, exponent + 1
    power = "10" + str(exponent).translate(SUPERSCRIPT)
    return power if mantissa == 1 else f"{mantissa:g}×{power}"


def log_axis(axes: Axes, which: str) -> None:
    """Log axes (``x``, ``y`` or ``xy``) whose ticks can be read whatever the range: decades, 1-2-5, or even steps."""
    for name in which:
        getattr(axes, f"set_{name}scale")("log")
        axis = getattr(axes, f"{name}axis")
        low, high = sorted(getattr(axes, f"get_{name}lim")())
        decades = math.log10(high / low) if 0 < low < high else 1.0  # nothing is drawn there
        if decades > 3:
            axis.set_major_locator(ticker.LogLocator(base=10, numticks=9))
            axis.set_minor_locator(ticker.NullLocator())
        elif decades > 0.9:
            subs = (1.0, 3.0) if decades > 1.6 else (1.0, 2.0, 5.0)
            axis.set_major_locator(ticker.LogLocator(base=10, subs=subs, numticks=99))
            axis.set_minor_locator(ticker.LogLocator(base=10, subs=tuple(range(2, 10)), numticks=99))
        else:
            axis.set_major_locator(ticker.MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
            axis.set_minor_locator(ticker.NullLocator())
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: engineering(value)))
        axis.set_minor_formatter(ticker.NullFormatter())


def colourbar(figure: Figure, axes: Any, values: np.ndarray, label: str, name: str = "viridis") -> Any:
    """A bar for logarithmic colours and the function value -> colour that goes with it."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    low, high = float(np.min(values)), float(np.max(values))
    if high <= low:
        low, high = low / 1.5, high * 1.5
    cut = LinearSegmentedColormap.from_list("cut", shades(64, name))
    scale = ScalarMappable(LogNorm(low, high), cut)
    bar = figure.colorbar(scale, ax=axes, pad=0.015, aspect=28)
    bar.outline.set_linewidth(0.5)  # type: ignore[operator]
    bar.set_label(label)
    log_axis(bar.ax, "y")
    bar.ax.grid(False)
    return scale.to_rgba


def run_lines(axes: Axes, curves: Sequence[tuple[Any, Any]], colours: Sequence[Any]) -> None:
    """One line per run: with markers where they can be told apart, else thin and as one picture."""
    if len(curves) <= MANY_RUNS:
        for index, ((x, y), colour) in enumerate(zip(curves, colours)):
            axes.plot(x, y, marker=MARKERS[index % len(MARKERS)], color=colour, lw=1.1, ms=3.5)
        return
    lines = LineCollection(
        [np.column_stack(curve) for curve in curves], colors=list(colours), lw=0.5, alpha=0.45
    )
    lines.set_rasterized(True)
    axes.add_collection(lines)
    axes.autoscale()


def label_budget(budget: float) -> str:
    """A budget for a legend."""
    return f"C = {engineering(budget, 2)}"
