"""The report of a study: one page that needs nothing from outside, and every figure and table as a file.

Equal records give equal bytes: no time, no path and no version of anything is written.
"""

import base64
import json
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dit.columns import page
from dit.errors import InputError
from dit.files import plain, write_bytes, write_text
from dit.fits.approaches import apart
from dit.fits.remarks import misfits
from dit.report import (
    figures_fit,
    figures_law,
    figures_loss,
    figures_networks,
    figures_quality,
    figures_samples,
)
from dit.report.analysis import analyse
from dit.report.compare import compare as compare_studies
from dit.report.compare import uncompared
from dit.report.headline import (
    exponents_text,
    format_headline,
    headline,
    held_out_text,
    holdout_text,
    law_labels,
)
from dit.report.material import SHOWN_ROWS, Drawn, Material, Missing, Table, method_text
from dit.report.style import styled, write
from dit.report.tables import all_tables
from dit.report.tables_beside import definitions
from dit.report.verdict import epochs_of
from dit.report.words import number_text, setting_text
from dit.study.missing import lost, unread
from dit.study.records import load_study

__all__ = ["Report", "format_headline", "write_report"]

Draw = Callable[[Material], Drawn]
SECTIONS: tuple[tuple[str, tuple[Draw, ...]], ...] = (
    ("Loss and allocation", (figures_loss.loss_against_compute, figures_loss.isoflop, figures_law.allocation,
                             figures_law.frontier, figures_law.contours, figures_loss.training_curves)),
    ("Quality of the fit", (figures_fit.holdout, figures_fit.residuals, figures_fit.bootstrap_pairs,
                            figures_fit.profiles, figures_fit.sensitivity)),
    ("Samples and noise levels", (figures_samples.frechet_against_compute,
    figures_samples.frechet_against_loss,
                                  figures_quality.distance_at_infinity, figures_quality.quality_against_sampling,
                                  figures_samples.guided_accuracy, figures_samples.sample_grids,
                                  figures_samples.noise_bins)),
    ("Networks", (figures_networks.flop_breakdown, figures_networks.coordinates)),
)  # fmt: skip
OF_POINTS = {draw for _, draws in SECTIONS[:2] for draw in draws} - {figures_loss.training_curves}
OF_POINTS |= {figures_loss.comparison}
INLINE_SVG_BYTES = 400_000  # above it (thousands of points) the page carries the PNG
TEXT = {"run", "doubt", "law", "size", "loss function", "parameter", "study", "setting", "source", "what", "here",
"reason",
        "verdict", "state", "size counted in", "best run", "at equal", "branch of"}  # fmt: skip


@dataclass(frozen=True)
class Report:
    """A report as values.

    Args:
        headline: as JSON values (see ``dit.report.headline.headline``).
        tables: those of its CSV files.
    """

    headline: dict[str, Any]
    tables: list[Table]


def write_report(
    study_dir: str | Path,
    out_dir: str | Path,
    *,
    bootstrap: int = 1000,
    command: str | None = None,
    compare: Sequence[str | Path] = (),
) -> Report:
    """Writes report.html, the figures as PNG and SVG, the tables as CSV, fits.json and headline.json.

    Args:
        study_dir: a study with records (see ``dit.study.records``).
        out_dir: where the files go; made where missing. Files of an older report that this one replaces are
            overwritten.
        bootstrap: draws of the bootstrap.
        command: the command that makes this report, shown under each figure; without paths of this machine.
        compare: directories of further studies that this one is compared with.

    Returns:
        The headline and the tables.

    Raises:
        InputError: no usable records, records that cannot share an axis, or nowhere to write to.
    """
    study = load_study(study_dir)
    material = analyse(study, draws=bootstrap)
    others = tuple(analyse(load_study(other), draws=bootstrap) for other in compare)
    material.analysis["comparison"] = compare_studies(material, others)
    material = replace(material, others=others)
    out = Path(out_dir)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("report_dir", str(out), "a directory that can be made", str(error)) from None
    sections = _draw_all(material, out)
    tables = [*all_tables(material), definitions(material)]
    found = headline(material)
    head = _headline_table(material, found)
    for table in [head, *tables]:
        write_text(out / f"{table.name}.csv", table.csv())
    write_text(out / "fits.json", json.dumps(plain(material.analysis), indent=1, allow_nan=False) + "\n")
    write_text(out / "headline.json", json.dumps(plain(found), indent=1, allow_nan=False) + "\n")
    html = page(
        "dit.report",
        headline=found,
        lead=_lead(material, found),
        headline_table=_for_page(head),
        statements=_statements(found),
        warnings=_warnings(material, found),
        sections=sections,
        tables=[_for_page(table) for table in tables if table.name != "points"],
        command=command or _command(material),
    )
    write_text(out / "report.html", html)
    return Report(found, [head, *tables])


def _command(material: Material) -> str:
    names = ",".join(f"<{other.study.name}>" for other in material.others)
    compared = f" compare=[{names}]" if names else ""
    return f"dit report {shlex.quote(f'study.name={material.study.name}')}{compared}"


def _draw_all(material: Material, out: Path) -> list[dict[str, Any]]:
    """Draws what the records allow, writes the files and returns what the page shows, section by section."""
    number = 0
    sections = []
    compared = [("Comparison", (figures_loss.comparison,))] if material.others else []
    with styled():
        for title, draws in (*compared, *SECTIONS):
            figures, missing = [], []
            for draw in draws:
                try:
                    drawn = _drawn(draw, material)
                except Missing as why:
                    missing.append({"title": _sentence(draw), "why": str(why)})
                    continue
                number += 1
                figures.append({"number": number, "caption": drawn.caption, **_files(drawn, out)})
            sections.append({"title": title, "anchor": re.sub(r"\W+", "-", title.lower()), "figures": figures,
                             "missing": missing})  # fmt: skip
    return sections


def _drawn(draw: Draw, material: Material) -> Drawn:
    if draw in OF_POINTS and not len(material.points.run):
        raise Missing(material.analysis["additive"]["why_not"])
    return draw(material)


def _files(drawn: Drawn, out: Path) -> dict[str, Any]:
    png, svg = write(drawn.figure)
    write_bytes(out / f"{drawn.name}.png", png)
    write_bytes(out / f"{drawn.name}.svg", svg)
    kind, content = ("svg+xml", svg) if len(svg) <= INLINE_SVG_BYTES else ("png", png)
    uri = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    width = round(drawn.figure.get_size_inches()[0] * 118)  # 7.2 inches fill the column
    return {"name": drawn.name, "title": drawn.title, "uri": uri, "width": width}


def _sentence(draw: Draw) -> str:
    return draw.__name__.replace("_", " ").capitalize()


def _for_page(table: Table) -> dict[str, Any]:
    text = [i for i, column in enumerate(table.columns) if column in TEXT]
    hidden = max(0, len(table.rows) - SHOWN_ROWS)
    return {"name": table.name, "title": table.title, "columns": table.columns, "shown": table.shown(),
    "note": table.note,
            "text_columns": text, "hidden": hidden}  # fmt: skip


def _headline_table(m: Material, found: dict[str, Any]) -> Table:
    columns = ["budget (FLOPs)", "N* (MACs/token)", "95 % low", "95 % high", "D* (images)", "least loss "
    "measured",
               "best run", "Fréchet distance", "guided accuracy", "verdict"]  # fmt: skip
    rows = []
    for row in found["budgets"]:
        low, high = (row["n_opt_95"] if row["accepted"] else None) or (None, None)
        rows.append([row["budget_flops"], row["n_opt"] if row["accepted"] else None, low, high,
                     row["d_opt"] if row["accepted"] else None, row["best_loss"], row["best_run"],
                     row["frechet_distance"], row["guided_accuracy"], row["verdict"]])  # fmt: skip
    note = (
        "Fréchet distance: best unguided run of the budget, which need not be the run of least loss. Guided accuracy: "
        f"of the run of least loss. Intervals of N*: {method_text(m, 'isoFLOP minima', 'n_flop')}."
    )
    return Table("headline", "Compute-optimal size at each budget", columns, rows, note)


def _statements(found: dict[str, Any]) -> list[str]:
    lines = [f"Losses are of {found['weights']} weights on {held_out_text(found['held_out'])}."]
    for name, label in law_labels(found).items():
        lines.append(f"{label[0].upper()}{label[1:]}: {exponents_text(found['exponents'][name])}.")
    minima, law = found["exponents"]["isoflop"], found["exponents"]["additive"]
    if minima and law and (told := apart(minima["n"], law["n"])):
        lines.append(f"{told[0].upper()}{told[1:]}.")
    if found["lack_of_fit"]:
        lines.append(f"{found['lack_of_fit'][0].upper()}{found['lack_of_fit'][1:]}.")
    held = " ".join(holdout_text(found["holdout"]).split())
    lines.append(held.replace("hold-out ", "Hold-out: ", 1) + ".")
    return lines


def _warnings(m: Material, found: dict[str, Any]) -> list[str]:
    """What a reader must know before believing the numbers."""
    lines = []
    rejected = [row for row in found["budgets"] if not row["accepted"]]
    if rejected:
        names = "; ".join(f"{row['budget_flops']:.3g} FLOPs ({row['verdict']})" for row in rejected)
        lines.append(f"{len(rejected)} of {len(found['budgets'])} budgets are rejected: {names}.")
    lines += [f"{told[0].upper()}{told[1:]}." for told in (misfits(m.law.points, m.law.fit) if m.law else [])]
    if m.points.excluded:
        lines.append(
            f"{len(m.points.excluded)} readings are left out; the table of excluded points says why."
        )
    silent = lost(m.study)
    if silent:
        named = ", ".join(silent)
        lines.append(f"{len(silent)} runs left no point: {named}; the table of excluded points says why.")
    if unreadable := unread(m.study):
        lines.append(
            f"Damaged, and left out: {', '.join(unreadable)}; the table of excluded points says why."
        )
    lines += uncompared(m)
    lines += [m.analysis["additive"]["why_not"]] if m.analysis["additive"].get("why_not") else []
    return lines


def _lead(m: Material, found: dict[str, Any]) -> str:
    """What was trained, on what, and towards what, in a few sentences."""
    first, sizes = m.study.runs[0], sorted({run["macs_per_token"] for run in m.study.runs})
    span = f"{number_text(sizes[0])} to {number_text(sizes[-1])}"
    epochs = epochs_of(m)
    classes, autoencoder = first["data"].get("num_classes"), first["data"].get("autoencoder")
    batches = sorted({run["batch_size"] for run in m.study.runs})
    of_data = [
        f"{number_text(first['data'].get('n_train'))} training images"
        if first["data"].get("n_train")
        else None,
        f"{number_text(classes)} classes" if classes else None,
        held_out_text(first["data"].get("n_held_out")),
        f"autoencoder {autoencoder}" if autoencoder else None,
        f"each image seen up to {number_text(round(max(epochs), 1))} times" if epochs else None,
    ]
    return (
        f"{found['runs']} runs of {len(sizes)} sizes ({span} multiply-adds per token), read at {len(found['budgets'])} "
        f"budgets; {number_text(found['train_flops'])} training FLOPs in all. Data: {first['data'].get('name')}, "
        f"{'; '.join(filter(None, of_data))}. Objective: {setting_text(first['objective'])}. Batch: "
        f"{' or '.join(map(number_text, batches))}. Losses are those of the {m.points.weights_name} weights unless a "
        f"table says otherwise. Code: {', '.join(sorted({str(run['git_commit'])[:12] for run in m.study.runs}))}."
    )
