"""What a study says in a few lines: best size per budget, exponents, hold-out error, sample quality."""

from typing import Any

from dit.data.split import FEWEST_HELD_OUT
from dit.fits.held import in_words
from dit.fits.lack import lack_of_law
from dit.fits.remarks import lack_in_words
from dit.report.compare import verdicts
from dit.report.material import LAWS, Material
from dit.report.verdict import verdict
from dit.study.readings import branches


def headline(m: Material) -> dict[str, Any]:
    """The headline as JSON values.

    Returns:
        study, runs, weights, held_out (images that the loss is measured on; None where not recorded), train_flops
        (sum over runs of their last readings; branches count for neither), budgets (one entry per budget), exponents
        (``isoflop``, ``additive`` and the primary ``law`` of N and D, each {n, d} with value and 95 % interval, or
        None), holdout (or None), verdict
        (sentences).
    """
    unguided = _best_by_budget(m)
    budgets = []
    for row in m.analysis["isoflop"]["n_flop"]["budgets"]:
        c = row["budget_flops"]
        guided = _guided(m, c, row["best_run"])
        budgets.append({
            "budget_flops": c, "n_opt": row["n_opt"], "n_opt_95": row["interval_95"], "d_opt": row["d_opt"],
            "accepted": row["edge"] is None, "verdict": verdict_text(row),
            "best_run": row["best_run"], "best_size": row["best_size"], "best_loss": row["best_loss"],
            "frechet_distance": unguided.get(c, {}).get("frechet_distance"),
            "frechet_run": unguided.get(c, {}).get("run"),
            "guided_accuracy": guided.get("accuracy"), "guidance": guided.get("guidance"),
        })  # fmt: skip
    reached: dict[str, float] = {}
    cooled = branches(m.study)
    for row in m.study.validation:
        if row["run"] in cooled:
            continue
        reached[row["run"]] = max(reached.get(row["run"], 0.0), row["train_flops"])
    held = m.analysis["holdout"]
    said = {
        "study": m.study.name,
        "runs": len(m.study.runs) - len(cooled),
        "weights": m.points.weights,
        "held_out": m.study.runs[0]["data"].get("n_held_out"),
        "train_flops": sum(reached[name] for name in sorted(reached)),
        "budgets": budgets,
        "law": m.analysis["additive"]["law"],
        "exponents": {
            "isoflop": _exponents(m.analysis["isoflop"]["n_flop"]["law"]),
            **_surfaces(m.analysis["additive"]),
        },
        "holdout": None
        if held is None
        else {key: value for key, value in held.items() if key not in ("rows", "best")},
        "lack_of_fit": lack_in_words(lack_of_law(m.law.points, m.law.fit)) if m.law else None,
    }
    return said | {"verdict": [*verdicts(m), *verdict(m, said)]}


def _surfaces(found: dict[str, Any]) -> dict[str, Any]:
    """The exponents of the primary law of N and D, and of the additive law for comparison where that is another."""
    primary = _exponents((found.get("primary") or {}).get("allocation"))
    beside = {} if found["law"] == "additive" else {"additive": _exponents(found.get("beside"))}
    return {found["law"]: primary, **beside}


def law_labels(found: dict[str, Any]) -> dict[str, str]:
    """What the laws whose exponents a headline has are called, the primary one of N and D before the other."""
    if found["law"] == "additive":
        return {"isoflop": "isoFLOP minima", "additive": "additive law"}
    return {
        "isoflop": "isoFLOP minima",
        found["law"]: f"{LAWS[found['law']]}, at the largest budget",
        "additive": "additive law for comparison",
    }


def verdict_text(row: dict[str, Any]) -> str:
    """Whether a budget's minimum counts, and what is doubtful about it."""
    if row["edge"] is not None:
        return row["edge"]
    inside = "minimum inside the row"
    return inside if row["doubt"] is None else f"{inside}, doubtful: {row['doubt']}"


def _exponents(law: dict[str, Any] | None) -> dict[str, Any] | None:
    if law is None:
        return None
    keys = {"value": "exponent", "interval_95": "interval_95", "doubt": "doubt"}
    return {x: {key: law[x][name] for key, name in keys.items()} for x in ("n", "d")}


def exponents_text(found: dict[str, Any] | None) -> str:
    """The exponents of a law in one line, each with its interval and its doubts, or why there are none."""
    if found is None:
        return "no exponents"
    return ", ".join(_exponent(x, found[x]) for x in ("n", "d"))


def _exponent(x: str, one: dict[str, Any]) -> str:
    if one["value"] is None:
        return f"{x.upper()}* {one['doubt']}"
    ends = one["interval_95"]
    beside = [f"95 % {ends[0]:.3f} to {ends[1]:.3f}" if ends else "no interval"]
    beside += [f"DOUBTFUL: {one['doubt']}"] if one["doubt"] else []
    return f"{x.upper()}* ~ C^{one['value']:.3f} ({'; '.join(beside)})"


def _best_by_budget(m: Material) -> dict[float, dict[str, Any]]:
    """Budget -> its row of least Fréchet distance without guidance."""
    best: dict[float, dict[str, Any]] = {}
    for group in [group for group in m.samples if not group.guided][:1]:
        for row in group.rows:
            known, distance = best.get(row["budget_flops"]), row["frechet_distance"]
            if distance is not None and (known is None or distance < known["frechet_distance"]):
                best[row["budget_flops"]] = row
    return best


def _guided(m: Material, budget: float, run: str) -> dict[str, Any]:
    """The guided row of the run of least loss at a budget (no choice by accuracy); empty where none was measured."""
    for group in [group for group in m.samples if group.guided][:1]:
        for row in group.rows:
            if row["budget_flops"] == budget and row["run"] == run:
                return {**row, "guidance": group.protocol.get("guidance")}
    return {}


def format_headline(found: dict[str, Any]) -> str:
    """The headline as lines of text for a terminal."""
    lines = [
        f"{found['study']}: {found['runs']} runs, {found['train_flops']:.3g} training FLOPs, losses of "
        f"{found['weights']} weights on {held_out_text(found['held_out'])}",
        "",
        *found["verdict"],
        "",
        f"{'budget':>10}  {'best N':>10}  {'95 % interval':>22}  {'D (images)':>10}  {'best loss':>9}  "
        f"{'Fréchet':>8}  "
        f"{'guided':>7}  verdict",
    ]
    for row in found["budgets"]:
        interval = row["n_opt_95"] if row["accepted"] else None
        size = row["n_opt"] if row["n_opt"] is not None else row["best_size"]
        lines.append(
            f"{row['budget_flops']:>10.3g}  {size:>10.4g}  {_pair(interval, '.4g'):>22}  "
            f"{_number(row['d_opt'] if row['accepted'] else None, '.4g'):>10}  {row['best_loss']:>9.5g}  "
            f"{_number(row['frechet_distance'], '.4g'):>8}  {_number(row['guided_accuracy'], '.1%'):>7}  "
            f"{row['verdict']}"
        )
    lines += ["(N: multiply-adds per token; guided: share of the best run's guided samples judged right)", ""]
    for name, label in law_labels(found).items():
        exponents = found["exponents"][name]
        lines.append(f"{label:<15} {exponents_text(exponents)}{'' if exponents else ': see the report'}")
    lines.append(holdout_text(found["holdout"]))
    return "\n".join(lines)


def held_out_text(count: int | None) -> str:
    """The number of held-out images, in words."""
    if count is None:
        return "held-out images (number not recorded)"
    return f"{count:,} held-out images" + (
        " (few: all exponents rest on them)" if count < FEWEST_HELD_OUT else ""
    )


def holdout_text(held: dict[str, Any] | None) -> str:
    """The hold-out in a line."""
    if held is None:
        return "hold-out        none: the records do not allow one"
    return f"hold-out        {held['budget_flops']:.3g} FLOPs: {in_words(held)}"


def _pair(interval: list[float] | None, form: str) -> str:
    return "–" if interval is None else f"{interval[0]:{form}} – {interval[1]:{form}}"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else f"{value:{form}}"
