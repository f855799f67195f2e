"""The checklist of definitions: what N, D, C and loss mean here, and how every run was trained and
measured.
"""

import json
from typing import Any

from dit.report.headline import held_out_text
from dit.report.material import Material
from dit.report.method import method_text
from dit.report.table import Table, cell_text
from dit.study.readings import MAX_BUDGET_MISS, MIN_WARMUPS, lookup


def definitions(m: Material) -> Table:
    """Each definition with the value that the records give it."""
    first, p = m.study.runs[0], m.points
    data = first["data"]
    epochs = [images / data["n_train"] for images in p.images] if data.get("n_train") else []
    warmup = _span([run["warmup_images"] for run in m.study.runs], "images")
    repeated = " (above 10: repeated data bends the law)" if max(epochs, default=0) > 10 else ""
    rows: list[list[Any]] = [
        ["N", "forward multiply-adds per token (N_flop), fits repeated with all parameters (N_total)"],
        ["D", "images seen, repetitions included"],
        ["C", "2 FLOPs per multiply-add x 3 (forward, backward) x MACs per image x images = "
              f"6 x {p.tokens} tokens x N x D; without recomputed activations, autoencoder, evaluation"],
        ["Budget", f"a reading counts where |C / budget - 1| <= {MAX_BUDGET_MISS:.0%} and at least "
                   f"{MIN_WARMUPS} warm-ups have passed"],
        ["Law", "additive: L = E + A/N^alpha + B/D^beta; isoFLOP: parabola of the loss in ln N per budget, "
                "power law through the accepted minima"],
        ["Loss", f"{_validation(m)}, {p.weights} weights"],
        ["Intervals", method_text(m)],
        ["Objective", _text(first["objective"])],
        ["Data", f"{data.get('name')}: {data.get('n_train', 'an unrecorded number of')} training images, "
                 f"{held_out_text(data.get('n_held_out'))}, manifest "
                 f"{_short(data.get('manifest_hash'))}"],
        ["Repetition", _span(epochs, "epochs") + repeated],
        ["Optimiser", _each(m, "optimizer")],
        ["Learning rate", f"{_text(first['lr_rule'])}; {_span([run['lr'] for run in m.study.runs], '')}"],
        ["Batch", _span([run["batch_size"] for run in m.study.runs], "images")],
        ["Schedule", f"constant after a warm-up of {warmup}; one run is read at every budget it passes"],
        ["EMA", _text(first["ema"])],
        ["Seeds", ", ".join(str(seed) for seed in sorted({run["seed"] for run in m.study.runs}))],
        ["Code", ", ".join(sorted({_short(run["git_commit"]) for run in m.study.runs}))],
    ]  # fmt: skip
    for group in m.samples:
        name = "guided samples" if group.guided else "unguided samples"
        parts = [
            f"{key} {_hash(value)}" for key, value in sorted(group.protocol.items()) if value is not None
        ]
        rows.append([f"Protocol of {name}", ", ".join(parts)])
    return Table("definitions", "Definitions", ["what", "here"], rows)


def _validation(m: Material) -> str:
    row = next((row for row in m.study.validation if row["weights"] == m.points.weights), None)
    if row is None:
        return "not read"
    edges = row["log_snr_edges"]
    binned = (
        f"{len(edges) - 1} bins of log-SNR from {edges[0]:.3g} to {edges[-1]:.3g}"
        if len(edges) > 1
        else "no bins"
    )
    return (
        f"mean over {row['n_draws']:,} stored (x, t, noise) draws of held-out latents, the same for every "
        f"run "
        f"(draws {_short(row['draws_hash'])}), {binned}; in {row['unit']}"
    )


def _each(m: Material, key: str) -> str:
    values = sorted({_text(lookup(run, key)) for run in m.study.runs})
    return "; ".join(values)


def _text(value: Any) -> str:
    if value is None:
        return "not recorded"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _short(value: Any) -> str:
    return "not recorded" if value is None else str(value)[:12]


def _hash(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text


def _span(values: list[Any], unit: str) -> str:
    if not values:
        return "not recorded"
    low, high = min(values), max(values)
    text = cell_text(low) if low == high else f"{cell_text(low)} to {cell_text(high)}"
    return f"{text} {unit}".strip()
