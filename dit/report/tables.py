"""The tables of a report."""

from typing import Any

import numpy as np

from dit.fits.held import in_words
from dit.report.headline import verdict_text
from dit.report.material import Material, Table, allocation_anchors, method_text
from dit.report.tables_beside import comparison, cooldown, loss_spikes, noise
from dit.study.missing import lost, unread

SIZE_NAMES = {"n_flop": "N_flop", "n_total": "N_total"}


def all_tables(m: Material) -> list[Table]:
    """Every table that the records allow, in the order of the page."""
    tables = [
        shapes(m),
        runs(m),
        minima(m),
        fits(m),
        fit_quality(m),
        noise(m),
        allocation(m),
        comparison(m),
        cooldown(m),
        loss_spikes(m),
        holdout(m),
        published(m),
        excluded(m),
        points(m),
    ]
    return [table for table in tables if table.rows or table.name == "excluded"]


def shapes(m: Material) -> Table:
    """The networks."""
    found: dict[tuple[Any, ...], int] = {}
    for run in m.study.runs:
        net = run["network"]
        key = (
            run["macs_per_token"], run["n_params_total"], *(net.get(k) for k in ("width", "depth", "heads",
            "patch_size")), run["tokens_per_image"], run["macs_per_image"], run["train_flops_per_image"],
        )  # fmt: skip
        found[key] = found.get(key, 0) + 1
    columns = ["N_flop (MACs/token)", "N_total (parameters)", "width", "depth", "heads", "patch", "tokens",
               "MACs/image", "train FLOPs/image", "runs"]  # fmt: skip
    rows = [[*key, count] for key, count in sorted(found.items(), key=lambda item: item[0][:2])]
    return Table(
        "shapes",
        "Networks",
        columns,
        rows,
        "One multiply-add (MAC) is 2 FLOPs; training is 3 forward passes.",
    )


def runs(m: Material) -> Table:
    """One line per run: how it was trained and its last reading."""
    last: dict[str, dict[str, Any]] = {}
    for row in m.study.validation:
        of = last.setdefault(row["run"], {})
        if row["images_seen"] >= of.get(row["weights"], {"images_seen": -1})["images_seen"]:
            of[row["weights"]] = row
    columns = ["run", "N_flop", "N_total", "batch", "learning rate", "seed", "images seen", "epochs", "train "
    "FLOPs",
               "loss (EMA)", "loss (raw)", "state"]  # fmt: skip
    rows = []
    for run in sorted(m.study.runs, key=lambda r: (r["macs_per_token"], r["run"])):
        of = last.get(run["run"], {})
        end = max(of.values(), key=lambda row: row["images_seen"], default=None)
        images = end["images_seen"] if end else 0
        n_train = run["data"].get("n_train")
        rows.append([
            run["run"], run["macs_per_token"], run["n_params_total"], run["batch_size"], run["lr"],
            run["seed"], images, images / n_train if n_train else None, end["train_flops"] if end else 0,
            of.get("ema", {}).get("loss"), of.get("raw", {}).get("loss"), _state(m, run["run"]),
        ])  # fmt: skip
    return Table("runs", "Runs", columns, rows, "Losses are those of the last reading.")


def _state(m: Material, run: str) -> str | None:
    status = m.study.statuses.get(run, {})
    return status.get("state", status.get("status"))


def minima(m: Material) -> Table:
    """IsoFLOP minima by budget."""
    columns = ["budget (FLOPs)", "points", "best size measured", "N*", "N* 95 % low", "N* 95 % high", "D* "
    "(images)",
               "loss at the minimum", "verdict"]  # fmt: skip
    rows = []
    for row in m.analysis["isoflop"]["n_flop"]["budgets"]:
        low, high = row["interval_95"] or (None, None)
        verdict = verdict_text(row) if row["edge"] is None else f"rejected: {row['edge']}"
        rows.append([row["budget_flops"], row["points"], row["best_size"], row["n_opt"], low, high,
        row["d_opt"],
                     row["loss"], verdict])  # fmt: skip
    note = (
        "N in multiply-adds per token. A budget whose best size is the first or last of its row is rejected. "
        f"Intervals: {method_text(m, 'isoFLOP minima', 'n_flop')}."
    )
    return Table("isoflop", "IsoFLOP minima", columns, rows, note)


def fits(m: Material) -> Table:
    """Parameters of every law with their intervals."""
    columns = [
        "law",
        "size",
        "loss function",
        "parameter",
        "value",
        "80 % low",
        "80 % high",
        "95 % low",
        "95 % high",
        "doubt",
    ]
    rows = []
    for fit in m.analysis["fits"]:
        for name, value in fit["parameters"].items():
            intervals = fit["intervals"].get(name, {})
            pairs = [bound for level in ("80", "95") for bound in intervals.get(level) or (None, None)]
            doubt = fit["doubts"][name]
            rows.append([fit["law"], SIZE_NAMES[fit["size"]], fit["loss"], name, value, *pairs, doubt])
    note = f"Intervals: {method_text(m)}. A value without an interval could not be bootstrapped."
    return Table("fits", "Fitted laws", columns, rows, note)


def fit_quality(m: Material) -> Table:
    """How well every law fits and how it was found."""
    columns = ["law", "size", "loss function", "objective", "n", "starts", "starts that converged",
               "bootstrap draws", "draws that converged"]  # fmt: skip
    keys = ("law", "size", "loss", "objective", "n", "starts", "converged", "draws", "draws_converged")
    rows = [[SIZE_NAMES.get(fit[key], fit[key]) for key in keys] for fit in m.analysis["fits"]]
    note = "Objective: the sum over points of the loss function at the optimum (Huber: of residuals of ln L)."
    return Table("fit_quality", "Objectives and convergence", columns, rows, note)


def allocation(m: Material) -> Table:
    """What to train at three target budgets, and what it costs to miss the best size by a factor of two."""
    columns = ["budget (FLOPs)", "N*", "N* 95 % low", "N* 95 % high", "D* (images)", "epochs", "loss",
               "loss 95 % low", "loss 95 % high", "compute lost at N*/2", "compute lost at 2 N*", "doubt"]  # fmt: skip
    rows = []
    primary = m.analysis["additive"]["primary"]
    doubt = primary and primary["allocation"]["n"]["doubt"]
    for row in m.analysis["targets"]:
        n_pair, loss_pair = (row.get(key) or (None, None) for key in ("n_interval_95", "loss_interval_95"))
        rows.append([row["budget_flops"], row["n"], *n_pair, row["d"], row["epochs"], row["loss"], *loss_pair,
                     row["waste_half"], row["waste_double"], doubt])  # fmt: skip
    beyond = (
        "Beyond a few epochs of repeated data the law promises too much. "
        if m.analysis["additive"]["law"] == "additive"
        else ""
    )
    note = (
        f"By the {m.law_name}, at the largest budget, ten and a hundred times it. Compute lost: the share of "
        f"the budget that the best size would not have needed for the same loss. {beyond}"
        f"Intervals: {method_text(m, m.analysis['additive']['law'], 'n_flop')}."
    )
    return Table("allocation", "Allocation at target budgets", columns, rows, note)


def holdout(m: Material) -> Table:
    """The held-out budget, point by point."""
    columns = ["run", "N_flop", "images seen", "measured", "predicted", "95 % low", "95 % high", "error"]
    held = m.analysis["holdout"]
    rows = []
    for row in held["rows"] if held else []:
        low, high = row["interval_95"] or (None, None)
        rows.append([row["run"], row["n"], row["d"], row["measured"], row["predicted"], low, high,
                     row["predicted"] / row["measured"] - 1])  # fmt: skip
    note = (
        ""
        if held is None
        else f"Fitted to budgets below {held['budget_flops']:.4g} FLOPs; error: predicted / measured - 1. "
        f"{in_words(held)}."
    )
    return Table("holdout", "Hold-out of the largest budget", columns, rows, note)


def published(m: Material) -> Table:
    """This study's exponents beside published ones."""
    columns = [
        "study",
        "N* exponent",
        "sd",
        "D* exponent",
        "Fréchet exponent",
        "N* minus ours",
        "in our sd",
        "source",
        "doubt",
    ]
    law, primary = m.analysis["isoflop"]["n_flop"]["law"], m.analysis["additive"].get("primary")
    ours = primary["allocation"] if primary and primary["allocation"]["n"]["exponent"] is not None else law
    rows: list[list[Any]] = []
    sd = ours["n"]["sd"] if ours else None
    doubt = ours["n"]["doubt"] if ours else None
    if ours:
        fit = m.analysis["frechet"]["fit"]
        which = "isoFLOP minima" if ours is law else m.law_name
        rows.append([f"this study ({which})", ours["n"]["exponent"], sd, ours["d"]["exponent"],
                     fit["exponent"] if fit else None, None, None, "records", doubt])  # fmt: skip
    for anchor in allocation_anchors():
        gap = anchor["n_exponent"] - ours["n"]["exponent"] if ours else None
        rows.append([
            f"{anchor['name']} ({anchor['setting']})", anchor["n_exponent"], anchor["n_exponent_sd"],
            anchor["d_exponent"], anchor["frechet_exponent"], gap,
            gap / sd if gap is not None and sd else None, anchor["source"], doubt and "ours is doubtful",
        ])  # fmt: skip
    note = (
        "Only exponents are comparable. Ours counts size in multiply-adds per token, the published ones in "
        "parameters; that choice alone moves the exponent by up to .1 (see the sensitivity figure)."
    )
    return Table("published", "Published exponents", columns, rows, note)


def excluded(m: Material) -> Table:
    """Measurements that are no points of the law, and why."""
    rows = [[e["run"], e["budget_flops"], e["what"], e["reason"]] for e in m.points.excluded]
    rows += [[run, None, "run", why] for run, why in lost(m.study).items()]
    for file in m.study.torn:
        rows.append([file, None, "last line", "cut short by a kill; left out"])
    rows += [[file, None, "file", why] for file, why in unread(m.study).items()]
    note = "" if rows else "None."
    return Table("excluded", "Excluded points", ["run", "budget (FLOPs)", "what", "reason"], rows, note)


def points(m: Material) -> Table:
    """Every point of the law."""
    p = m.points
    columns = ["run", "budget_flops", "train_flops", "n_flop", "n_params_total", "images_seen", "loss"]
    columns += [f"loss_bin_{k}" for k in range(p.bins.shape[1])]
    numbers = np.column_stack([p.budget, p.flops, p.n, p.n_total, p.images, p.loss, p.bins])
    rows = [[run, *(float(x) for x in line)] for run, line in zip(p.run, numbers)]
    return Table("points", f"Points of the law ({p.weights} weights)", columns, rows)
