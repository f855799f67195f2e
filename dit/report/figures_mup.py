"""The coordinate check of muP as a figure: activation scale against width, with muP and without."""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from dit.report.material import Drawn, Material, Missing
from dit.report.style import LINES, MARKERS, log_axis, new_figure, shades

COORDINATES = "coordinates.csv"
COMMAND = f"python -m benchmarks.coordinate_check <study>/{COORDINATES}"


def coordinates(m: Material) -> Drawn:
    """The coordinate check that lies in the study's directory."""
    path = m.study.directory / COORDINATES
    if not path.is_file():
        raise Missing(f"no coordinate check in the study's directory ({COMMAND})")
    figure, steps = draw_coordinates(path)
    caption = (
        f"Mean absolute activation of each layer after {steps} steps of Adam against the network's width, mean over "
        f"seeds. With muP the lines are flat: one learning rate serves every width. Made by {COMMAND}."
    )
    return Drawn("coordinates", "Coordinate check of muP", figure, caption)


def draw_coordinates(path: Path) -> tuple[Figure, int]:
    """The figure of a coordinate check's rows, and the number of steps it shows the state after."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    last = max(int(row["step"]) for row in rows)
    scales: dict[tuple[str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if int(row["step"]) == last:
            scales[row["parametrization"], row["layer"]][int(row["width"])].append(float(row["scale"]))
    kinds = sorted({kind for kind, _ in scales})
    layers = list(dict.fromkeys(layer for _, layer in scales))
    figure, panels = new_figure(columns=len(kinds), width=7.2, height=3.6)
    for axes, kind in zip(np.atleast_1d(panels), kinds):
        for index, (layer, colour) in enumerate(zip(layers, shades(len(layers)))):
            by_width = sorted(scales[kind, layer].items())
            axes.plot(
                [width for width, _ in by_width],
                [float(np.mean(values)) for _, values in by_width],
                color=colour,
                ls=LINES[index % len(LINES)],
                marker=MARKERS[index % len(MARKERS)],
                ms=4,
                label=layer,
            )
        log_axis(axes, "x")
        log_axis(axes, "y")
        axes.set(xlabel="width D (channels)", ylabel="mean |activation|", title=kind)
    np.atleast_1d(panels)[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=6.5)
    return figure, last
