"""Tables beside the laws: definitions, noise, studies compared, cool-down branches."""

import math
from typing import Any

import numpy as np

from dit.fits.noise import noise_of
from dit.report.headline import held_out_text
from dit.report.material import Material, Table, method_text
from dit.report.verdict import epochs_of
from dit.report.words import number_text, setting_text
from dit.study.readings import MAX_BUDGET_MISS, MIN_WARMUPS, lookup
from dit.study.spikes import BACK, SPIKE_MEMORY, SPIKE_SDS, spikes


def definitions(m: Material) -> Table:
    """Each definition with the value that the records give it."""
    first, p = m.study.runs[0], m.points
    data = first["data"]
    epochs = epochs_of(m)
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
                "power law through the minima inside their rows"],
        ["Loss", f"{_validation(m)}, {p.weights} weights"],
        ["Intervals", method_text(m)],
        ["Objective", setting_text(first["objective"])],
        ["Data", f"{data.get('name')}: {data.get('n_train', 'an unrecorded number of')} training images, "
                 f"{held_out_text(data.get('n_held_out'))}, manifest "
                 f"{_short(data.get('manifest_hash'))}"],
        ["Repetition", _span(epochs, "epochs") + repeated],
        ["Optimiser", _each(m, "optimizer")],
        ["Learning rate", f"{setting_text(first['lr_rule'])}; {_span([run['lr'] for run in m.study.runs], '')}"],
        ["Batch", _span([run["batch_size"] for run in m.study.runs], "images")],
        ["Schedule", f"constant after a warm-up of {warmup}; one run is read at every budget it passes"],
        ["EMA", setting_text(first["ema"])],
        ["Seeds", ", ".join(str(seed) for seed in sorted({run["seed"] for run in m.study.runs}))],
        ["Code", ", ".join(sorted({_short(run["git_commit"]) for run in m.study.runs}))],
    ]  # fmt: skip
    for group in m.samples:
        name = "guided samples" if group.guided else "unguided samples"
        parts = [
            f"{key} {_hash(value)}" for key, value in sorted(group.protocol.items()) if value is not None
        ]
        rows.append([f"Protocol of {name}", "; ".join(parts)])
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
    values = sorted({setting_text(lookup(run, key)) for run in m.study.runs})
    return "; ".join(values)


def _short(value: Any) -> str:
    return "not recorded" if value is None else str(value)[:12]


def _hash(value: Any) -> str:
    return value[:12] if isinstance(value, str) and len(value) == 64 else setting_text(value)


def _span(values: list[Any], unit: str) -> str:
    if not values:
        return "not recorded"
    low, high = min(values), max(values)
    text = number_text(low) if low == high else f"{number_text(low)} to {number_text(high)}"
    return f"{text} {unit}".strip()


def noise(m: Material) -> Table:
    """The noise of the loss, from the residuals of the laws, and of the Fréchet distance over sampling seeds."""
    rows: list[list[Any]] = []
    if m.law is not None:
        fit, points = m.law.fit, m.law.points
        found = noise_of(fit.problem(points), fit, points)
        rows.append(["loss, of a run (shared by its readings)", math.sqrt(found.run), found.freedom])
        if found.walk:
            rows.append(["loss, along a run (per root e-fold of D)", math.sqrt(found.walk), found.freedom])
        rows.append(["loss, of a reading", math.sqrt(found.reading), found.freedom])
    for group in m.samples:
        spread = [
            r["frechet_distance_sd"] / r["frechet_distance"] for r in group.rows if r["frechet_distance_sd"]
        ]
        if spread:
            which = "guided" if group.guided else "unguided"
            pooled = float(np.sqrt(np.mean(np.square(spread))))
            rows.append([f"Fréchet distance, of a sampling seed ({which})", pooled, None])
    note = "The loss's noise is what the primary law leaves over, so a law that is wrong counts as noise too."
    return Table("noise", "Noise", ["what", "relative standard deviation", "degrees of freedom"], rows, note)


def cooldown(m: Material) -> Table:
    """What cooling the learning rate down is worth, by branch."""
    columns = ["run", "branch of", "N_flop", "images at the branch", "images at the end", "loss at constant rate",
               "loss cooled down", "ratio"]  # fmt: skip
    found = m.analysis["cooldowns"]
    keys = ("run", "trunk", "n", "branch_images", "images_seen", "constant", "cooled", "ratio")
    note = (
        "Loss at constant rate: the trunk's reading at the branch, carried on to its end by the primary law."
    )
    if len(found) > 1:
        ratios = np.array([row["ratio"] for row in found])
        note += f" Mean ratio {ratios.mean():.4f}, standard deviation {ratios.std(ddof=1):.4f}; published: 1.0245."
    return Table(
        "cooldown", "Cool-down branches", columns, [[row[key] for key in keys] for row in found], note
    )


def comparison(m: Material) -> Table:
    """Compute for equal loss and for equal Fréchet distance, other studies over this one."""
    columns = ["study", "at equal", "level", f"FLOPs of {m.study.name}", "FLOPs of the study", "ratio", "80 % low",
               "80 % high", "95 % low", "95 % high"]  # fmt: skip
    rows = []
    for entry in m.analysis.get("comparison", []):
        for key, what in (("by_loss", "loss"), ("by_distance", "Fréchet distance")):
            for row in entry[key]:
                ends = [end for level in ("80", "95") for end in row[f"interval_{level}"] or (None, None)]
                cells = (row[name] for name in ("level", "flops_first", "flops_other", "ratio"))
                rows.append([entry["study"], what, *cells, *ends])
    note = "A ratio below 1: the study needs less compute than this one. An end that is missing is unbounded."
    return Table("comparison", "Studies compared", columns, rows, note)


def loss_spikes(m: Material) -> Table:
    """The noted spikes of the training loss, what they are measured against, and what followed."""
    columns = ["run", "images seen", "loss", "mean before", "sd above it", "images until back"]
    keys = ("run", "images_seen", "loss", "mean_before", "sds", "images_until_back")
    note = (
        f"Spike: a step {SPIKE_SDS:.0f} standard deviations above the mean of about {SPIKE_MEMORY} steps before it. "
        f"Back: the mean loss between two readings is at most {BACK - 1:.0%} above that mean; a dash: not to the end "
        "of the run, or not recorded."
    )
    return Table(
        "spikes", "Loss spikes", columns, [[row[key] for key in keys] for row in spikes(m.study)], note
    )
