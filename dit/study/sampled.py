"""Measures of generated images read at the budgets, one protocol at a time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dit.study.readings import require_equal, why_excluded
from dit.study.records import Row, Study


@dataclass(frozen=True)
class Samples:
    """Sample metrics under one protocol (the sampling seed apart), one entry per run and budget.

    Args:
        protocol: the fields all of them share.
        guided: whether guidance was on.
        rows: run, budget_flops, images_seen, train_flops, n (MACs per token), loss (validation loss of the
            same weights at the same budget, or None), frechet_distance and accuracy (means over seeds, or
            None), their standard deviations over seeds (None with one seed), seeds, grid.
    """

    protocol: dict[str, Any]
    guided: bool
    rows: list[dict[str, Any]]


def collect_samples(study: Study) -> list[Samples]:
    """The sample metrics at budgets: unguided first, then each guidance; averaged weights where measured.

    Raises:
        InputError: rows of the same guidance and weights whose protocols differ in more than the seed.
    """
    groups: dict[str, list[Row]] = {}
    known = {row["weights"] for row in study.samples}
    weights = "ema" if "ema" in known else min(known, default="ema")
    for row in study.samples:
        if row["budget_flops"] is not None and row["weights"] == weights:
            groups.setdefault(str(row["protocol"].get("guidance", "none")), []).append(row)
    loss = {
        (row["run"], row["budget_flops"]): row["loss"]
        for row in study.validation
        if row["weights"] == weights
    }
    found = []
    for guidance, rows in sorted(groups.items(), key=lambda item: (item[0] != "none", item[0])):
        fields = {name for row in rows for name in row["protocol"]} - {"seed"}
        require_equal(rows, [f"protocol.{name}" for name in sorted(fields)], "samples")
        shared = {name: rows[0]["protocol"].get(name) for name in sorted(fields)}
        found.append(Samples(shared, guidance != "none", _over_seeds(study, rows, loss)))
    return found


def _over_seeds(study: Study, rows: list[Row], loss: Mapping[tuple[str, float], Any]) -> list[dict[str, Any]]:
    """One entry per (run, budget): the mean over sampling seeds and the spread, never the minimum."""
    by_place: dict[tuple[float, float, str], list[Row]] = {}
    for row in rows:
        if why_excluded({**row, "loss": row["frechet_distance"]}, study.run(row["run"])) is None:
            size = study.run(row["run"])["macs_per_token"]
            by_place.setdefault((row["budget_flops"], size, row["run"]), []).append(row)
    entries = []
    for (budget, size, run), place in sorted(by_place.items()):
        entry: dict[str, Any] = {"run": run, "budget_flops": budget, "n": size, "seeds": len(place)}
        entry |= {name: place[0][name] for name in ("images_seen", "train_flops")}
        entry |= {"loss": loss.get((run, budget)), "grid": place[0].get("grid")}
        for name in ("frechet_distance", "accuracy"):
            values = [row[name] for row in place if row.get(name) is not None]
            entry[name] = float(np.mean(values)) if values else None
            entry[f"{name}_sd"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
        entries.append(entry)
    return entries
