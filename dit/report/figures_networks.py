"""Figures of the networks: where their compute goes by size, and the coordinate check of muP."""

import csv
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dit.condition import Classes
from dit.domain import Domain
from dit.errors import InputError
from dit.network.config import DiTConfig
from dit.report.material import Drawn, Material, Missing
from dit.report.style import INK, LINES, MARKERS, engineering, log_axis, new_figure, shades
from dit.study.records import Row

COORDINATES = "coordinates.csv"
COMMAND = f"python -m benchmarks.coordinate_check <study>/{COORDINATES}"
PARTS = {
    "MLP": ("mlp",),
    "attention: projections": ("attention_projections", "cross_attention"),
    "attention: scores": ("attention_scores",),
    "modulation": ("modulation",),
}
REST = "embeddings, output, skips"
HATCHES = ("", "//", "..", "xx", "--")
SAME = 1e-6


def flop_breakdown(m: Material) -> Drawn:
    """The share of each part of the blocks in the multiply-adds of an image."""
    sizes: dict[float, dict[str, float]] = {}
    for run in sorted(m.study.runs, key=lambda run: run["macs_per_token"]):
        if run["macs_per_token"] not in sizes:
            sizes[run["macs_per_token"]] = shares(run)
    figure, axes = new_figure(width=7.2, height=1.3 + 0.3 * len(sizes))
    left = np.zeros(len(sizes))
    names = (*PARTS, REST)
    for name, colour, hatch in zip(names, shades(len(names), low=0.25, high=0.95), HATCHES):
        share = np.array([100 * one[name] for one in sizes.values()])
        axes.barh(
            range(len(sizes)), share, left=left, color=colour, hatch=hatch, edgecolor=INK, lw=0.5, label=name
        )
        left += share
    axes.set_yticks(range(len(sizes)), [f"N = {engineering(size, 3)}" for size in sizes])
    axes.set(xlabel="share of an image's multiply-adds (%)", xlim=(0, 100))
    axes.grid(axis="y", visible=False)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    caption = (
        "Multiply-adds of one image by part, for each size (N in multiply-adds per token). Modulation runs once per "
        "image, whatever the number of tokens. Rates and MFU are no part of the records, which are the same on every "
        "machine: see log.txt of a run, or W&B."
    )
    return Drawn("flop_breakdown", "Where the compute goes", figure, caption)


def shares(run: Row) -> dict[str, float]:
    """Each part's share of a run's multiply-adds per image; what is in no block is the rest.

    Raises:
        Missing: the recorded network is not described well enough to count it.
    """
    known: dict[str, Any] = {k: v for k, v in run["network"].items() if k in DiTConfig.__dataclass_fields__}
    tokens = run["tokens_per_image"]
    try:
        # what blocks cost depends on the number of their tokens alone
        network = DiTConfig(**{**known, "patch_size": 1})
        parts = network.count(Domain(1, (tokens,)), Classes(0)).macs_by_part
    except (InputError, TypeError) as error:
        raise Missing(
            f"the network of run {run['run']} cannot be counted from its record ({error})"
        ) from None
    found = {name: sum(parts.get(part, 0) for part in members) for name, members in PARTS.items()}
    rest = run["macs_per_image"] - sum(found.values())
    if rest < -SAME * run["macs_per_image"]:
        raise Missing(f"the record of run {run['run']} does not say all of its network")
    return {name: value / run["macs_per_image"] for name, value in {**found, REST: max(rest, 0)}.items()}


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
        log_axis(axes, "xy")
        axes.set(xlabel="width D (channels)", ylabel="mean |activation|", title=kind)
    np.atleast_1d(panels)[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=6.5)
    return figure, last
