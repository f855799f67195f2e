"""The benchmark report: models by metrics, one table per protocol, curves, sample grids.

Equal rows give equal bytes: nothing of the machine or the time is written.
"""

import ast
import base64
import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from dit.columns import csv_text, legend_text, page
from dit.errors import InputError, check_choice
from dit.evaluation.protocol import GUIDANCE, Protocol, over_seeds, require_equal
from dit.files import write_text

PUBLISHED = Path(__file__).parent / "assets" / "published.csv"
SWEPT = (*GUIDANCE, "nfe", "solver", "grid", "seed")  # what one command varies
AXES = {  # what may differ along a curve, and between the curves of a figure
    "guidance": (*GUIDANCE, "nfe"),
    "nfe": ("nfe", "grid", "solver"),
}
NO_CURVE = ("_sd", "_se", "_size", "_over_seeds", "seeds")


@dataclass(frozen=True)
class Row:
    """One evaluation of one model.

    Args:
        model: its name in tables and legends.
        metrics: numbers by their recorded names.
        protocol: how they were made.
        picture: a PNG file's bytes of the first samples, the same seeds for every model; None for none.
        resolution: width of the images, by which published values are chosen; None shows none.
    """

    model: str
    metrics: Mapping[str, float | int | None]
    protocol: Protocol
    picture: bytes | None = None
    resolution: int | None = None


def write_report(
    rows: Sequence[Row], out: str | Path, title: str = "Sample quality", notes: Sequence[str] = ()
) -> Path:
    """Writes ``report.html``, which needs nothing from outside, and ``evaluations.csv``; gives the page.

    Numbers of different protocols never share a table or an axis.

    Args:
        rows: evaluations, of any protocols.
        out: the directory.
        title: of the page.
        notes: what a reader must know before believing the numbers, above them.
    """
    if not rows:
        raise InputError("report", "no evaluations", "at least one evaluation")
    out = Path(out)
    write_text(out / "evaluations.csv", _csv(rows))
    means = averaged(rows)
    html = page(
        "dit.evaluation",
        title=title,
        notes=notes,
        tables=[_table(group) for group in grouped(means)],
        figures=[_figure(axis, group) for axis in AXES for group in curves(means, axis)],
    )
    return write_text(out / "report.html", html + "\n")


def grouped(rows: Iterable[Row], varying: Sequence[str] = ()) -> list[list[Row]]:
    """The rows by protocol, in order of first appearance; fields in ``varying`` may differ within a group."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        fields = {name: value for name, value in row.protocol.as_dict().items() if name not in varying}
        groups.setdefault(json.dumps(fields, sort_keys=True), []).append(row)
    for group in groups.values():
        require_equal([row.protocol for row in group], varying=varying)
    return list(groups.values())


def averaged(rows: Iterable[Row]) -> list[Row]:
    """The rows, with those that differ in nothing but the sampling seed as one: means, and their sd over seeds."""
    by_model: dict[str, list[Row]] = {}
    for row in rows:
        by_model.setdefault(row.model, []).append(row)
    found = []
    for model_rows in by_model.values():
        for group in grouped(model_rows, varying=["seed"]):
            if len(group) > 1:
                metrics, protocol = over_seeds([(row.metrics, row.protocol) for row in group])
                group = [replace(group[0], metrics=metrics, protocol=protocol)]
            found += group
    return found


def curves(rows: Iterable[Row], axis: str) -> list[list[Row]]:
    """The groups of rows in which one model at least was measured at several places of an axis."""
    check_choice("axis", axis, AXES)
    found = []
    for group in grouped(rows, AXES[axis]):
        places = {
            model: {place(row, axis) for row in group if row.model == model}
            for model in {r.model for r in group}
        }
        solvers = {row.protocol.solver for row in group}
        if max(map(len, places.values())) > 1 and (axis == "nfe" or len(solvers) == 1):
            found.append(group)
    return found


def place(row: Row, axis: str) -> float:
    """Where a row stands on an axis: its guidance scale (1 is off) or its network calls."""
    if axis == "nfe":
        return float(row.protocol.nfe or 0)
    scale = row.protocol.guidance_scale
    return 1.0 if scale is None else float(scale)


def published(row: Row) -> list[dict[str, str]]:
    """Published values of a row's extractor and what it does to images, resolution, number of samples and guidance.

    Guidance is equal in every setting: scale, guided channels, interval. Solvers and steps are the papers' own, and
    named beside the values.
    """
    protocol = row.protocol
    key = (protocol.extractor, str(row.resolution), str(protocol.n), _settings(protocol.guidance))
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        known = list(csv.DictReader(file))
    return [
        one
        for one in known
        if (one["extractor"], one["resolution"], one["n"], _settings(one["guidance"])) == key
        and one["preprocessing"] in ("", protocol.preprocessing)
    ]


def _settings(guidance: str) -> tuple[str, dict[str, object]]:
    """A guidance as ``describe`` writes it: its name, and the settings that do something."""
    try:
        call = ast.parse(guidance, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # a text of the caller's own
        return guidance, {}
    if not isinstance(call, ast.Call):
        return guidance, {}
    settings: dict[str, object] = {str(one.arg): ast.unparse(one.value) for one in call.keywords}
    with suppress(KeyError, ValueError):  # there is none, or it is no number
        settings["scale"] = float(str(settings["scale"]))  # 2 and 2.0 are one
    return ast.unparse(call.func), {name: value for name, value in settings.items() if value != "None"}


def columns(rows: Iterable[Row]) -> list[str]:
    """The metrics that some row has, in order of first appearance."""
    names: dict[str, None] = {}
    for row in rows:
        names |= dict.fromkeys(name for name, value in row.metrics.items() if value is not None)
    return [name for name in names if name != "n"]


def _csv(rows: Sequence[Row]) -> str:
    names = columns(rows)
    # a metric and a field of protocols may share a name, as precision does
    fields = (f"protocol {name}" if name in names else name for name in rows[0].protocol.as_dict())
    cells = (
        [row.model, *(row.metrics.get(name) for name in names), *row.protocol.as_dict().values()]
        for row in rows
    )
    return csv_text([["model", *names, *fields], *cells])


def _table(group: Sequence[Row]) -> dict[str, object]:
    """A protocol's numbers, the published ones beside them, and the pictures, as the template takes them."""
    protocol, names = group[0].protocol, columns(group)
    beside = []
    for row in published(group[0]):
        source = f"({row['paper']}, {row['steps']} sampling steps)"
        name = f"{row['model']}, {row['train_steps']} training steps {source}"
        beside.append((row["seen"], [name, *(_text(row.get(name)) for name in names)]))
    return {
        "hash": protocol.hash,
        "protocol": _fields(protocol.as_dict()),
        "columns": [name.replace("_", " ") for name in ["model", *names]],
        "rows": [[row.model, *(_text(row.metrics.get(name)) for name in names)] for row in group],
        "published": beside,
        "pictures": [
            (row.model, base64.b64encode(row.picture).decode()) for row in group if row.picture is not None
        ],
    }


def _fields(protocol: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in protocol.items() if value is not None)


def _figure(axis: str, group: Sequence[Row]) -> dict[str, str]:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    shown = [name for name in columns(group) if not name.endswith(NO_CURVE)]
    with matplotlib.rc_context({"svg.hashsalt": "dit", "svg.fonttype": "none", "text.parse_math": False}):
        figure = Figure(figsize=(4.2 * len(shown), 3.2), layout="constrained")
        for panel, name in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown):
            for (model, solver), line in _lines(group, axis, name).items():
                panel.plot(*zip(*sorted(line)), marker="o", label=legend_text(f"{model}, {solver}"))
            panel.set_xlabel({"guidance": "guidance scale", "nfe": "network calls per image"}[axis])
            panel.set_ylabel(name.replace("_", " "))
            panel.grid(alpha=0.3)
        figure.axes[0].legend(fontsize=8)
        file = io.StringIO()
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    shared = require_equal([row.protocol for row in group], varying=AXES[axis])
    heading = {"guidance": "Over guidance", "nfe": "Over network calls and solvers"}[axis]
    return {"title": heading, "svg": svg[svg.index("<svg") :], "protocol": _fields(shared)}


def _lines(group: Sequence[Row], axis: str, metric: str) -> dict[tuple[str, str], list[tuple[float, float]]]:
    lines: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in group:
        value = row.metrics.get(metric)
        if value is not None:
            key = row.model, row.protocol.solver or "images"
            lines.setdefault(key, []).append((place(row, axis), float(value)))
    return lines


def _text(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else "" if value is None else str(value)
