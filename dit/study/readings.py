"""The points of a law: measurements read at a budget, comparable with each other, and those left out and
why.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dit.errors import InputError, check_choice
from dit.fits.points import LARGEST
from dit.fits.points import Points as FitPoints
from dit.older import branch_of
from dit.study.records import Row, Study

# What one law holds fixed: runs that differ here are not points of one surface.
FIXED_IN_RUNS = (
    "objective",
    "data.manifest_hash",
    "tokens_per_image",
    "network.patch_size",
    "network.conditioning",
    "network.mlp_ratio",
    "ema",
    "lr_rule",
)
FIXED_IN_VALIDATION = ("unit", "draws_hash", "n_draws", "log_snr_edges")
MAX_BUDGET_MISS = 0.01
MIN_WARMUPS = 20


@dataclass(frozen=True)
class Points:
    """Measurements of one kind of weights at the budgets, in the order (budget, N, run); P points.

    Args:
        weights: ``ema`` or ``raw``.
        run: P names.
        budget: (P,) planned FLOPs.
        flops: (P,) exact training FLOPs.
        n: (P,) forward multiply-adds per token.
        n_total: (P,) parameters.
        images: (P,) images seen.
        loss: (P,) validation loss.
        bins: (P, bins) validation loss per bin of log-SNR.
        edges: (bins + 1,) limits of the bins.
        tokens: tokens per image, so that C = 6 tokens N D.
        excluded: what was left out: run, budget, what, reason.
        unique: training images; None where not recorded.
    """

    weights: str
    run: list[str]
    budget: np.ndarray
    flops: np.ndarray
    n: np.ndarray
    n_total: np.ndarray
    images: np.ndarray
    loss: np.ndarray
    bins: np.ndarray
    edges: np.ndarray
    tokens: int
    excluded: list[dict[str, Any]]
    unique: float | None = None

    @property
    def budgets(self) -> np.ndarray:
        """The distinct budgets, rising."""
        return np.unique(self.budget)

    @property
    def weights_name(self) -> str:
        """The weights as a reader knows them."""
        return "EMA" if self.weights == "ema" else self.weights

    def for_fit(self, size: str = "n_flop", keep: np.ndarray | None = None) -> FitPoints:
        """The same points as the fits take them; ``size`` n_flop or n_total, ``keep`` (P,) which of them."""
        n = self.n if size == "n_flop" else self.n_total
        unique = None if self.unique is None else np.full(len(n), self.unique)
        points = FitPoints(
            self.loss,
            n=n,
            d=self.images,
            c=self.flops,
            run=np.array(self.run),
            budget=self.budget,
            unique=unique,
        )
        return points if keep is None else points[keep]


def collect(study: Study, weights: str | None = None) -> Points:
    """The points of a study's law.

    Args:
        study: the records.
        weights: ``ema`` or ``raw``; by default ``ema`` where it was measured.

    Raises:
        InputError: runs or measurements that cannot share an axis (the field in conflict is named), or no
            point left.
    """
    points = readings(study, weights)
    if not len(points.run):
        raise InputError(
            "study", f"({len(study.validation)} validation rows, {len(points.excluded)} left out)",
            f"at least one validation row with budget_flops and weights {points.weights!r}", why_none(points),
        )  # fmt: skip
    return points


def why_none(points: Points) -> str:
    """Why a study has no point, in a sentence."""
    if points.excluded:
        return f"First reason: {points.excluded[0]['reason']}."
    return "Wait until a run has reached a budget."


def readings(study: Study, weights: str | None = None) -> Points:
    """The same, where there may be no point at all: every run may have diverged.

    Raises:
        InputError: runs or measurements that cannot share an axis (the field in conflict is named).
    """
    require_equal((run for run in study.runs), FIXED_IN_RUNS, "run")
    require_equal(study.validation, FIXED_IN_VALIDATION, "validation")
    known = sorted({row["weights"] for row in study.validation})
    if weights is not None and known:
        check_choice("weights", weights, known)
    chosen = weights or ("ema" if "ema" in known else (known[0] if known else "ema"))
    rows, excluded = [], []
    for row in study.validation:
        if row["weights"] != chosen or row["budget_flops"] is None:
            continue
        reason = why_excluded(row, study.run(row["run"]))
        if reason:
            excluded.append(
                {
                    "run": row["run"],
                    "budget_flops": row["budget_flops"],
                    "what": "validation",
                    "reason": reason,
                }
            )
        else:
            rows.append(row)
    rows.sort(key=lambda row: (row["budget_flops"], study.run(row["run"])["macs_per_token"], row["run"]))
    of_run, n_train = [study.run(row["run"]) for row in rows], study.runs[0]["data"].get("n_train")
    return Points(
        weights=chosen,
        run=[row["run"] for row in rows],
        budget=_column(rows, "budget_flops"),
        flops=_column(rows, "train_flops"),
        n=_column(of_run, "macs_per_token"),
        n_total=_column(of_run, "n_params_total"),
        images=_column(rows, "images_seen"),
        loss=_column(rows, "loss"),
        bins=_bins(rows),
        edges=np.array(rows[0]["log_snr_edges"] if rows else [], dtype=float),
        tokens=study.runs[0]["tokens_per_image"],
        excluded=excluded,
        unique=float(n_train) if n_train else None,
    )


def why_excluded(row: Row, run: Row) -> str | None:
    """Why a measurement at a budget is no point of the law; None where it is one."""
    budget, loss = row["budget_flops"], row.get("loss", row.get("frechet_distance"))
    if loss is None:
        return f"not finite ({', '.join(row.get('non_finite', {}).values()) or 'null'}): diverged"
    if loss <= 0:
        return f"loss {loss:g} is not positive"
    if not 1 / LARGEST < loss < LARGEST:
        return f"loss {loss:g} is beyond what laws are fitted to"
    miss = row["train_flops"] / budget - 1
    if abs(miss) > MAX_BUDGET_MISS:
        return f"compute misses the budget by {miss:+.1%} (allowed: 1 %)"
    if row["images_seen"] < MIN_WARMUPS * run["warmup_images"]:
        return f"read at {row['images_seen'] / run['warmup_images']:.1f} warm-ups (at least {MIN_WARMUPS})"
    return None


def require_equal(rows: Iterable[Row], fields: Iterable[str], kind: str) -> None:
    """Raises InputError naming the first field in which rows differ that must share an axis."""
    first: Row | None = None
    fields = tuple(fields)
    for row in rows:
        if first is None:
            first = row
            continue
        for name in fields:
            one, two = lookup(first, name), lookup(row, name)
            if one != two:
                raise InputError(
                    f"{kind}.{name}",
                    f"({two!r} in run {row['run']})",
                    f"{one!r}, as run {first['run']} has",
                    "Numbers of different protocols are not put on one axis: report them as two studies.",
                )


def branches(study: Study) -> dict[str, str | None]:
    """Runs that begin from another run's checkpoint (cool-downs), and that run; None where the study has it not.

    By the hash of the other run in the run's row; where an older version wrote the row, by the plan, or by its name.
    """
    by_hash = {run["config_hash"]: run["run"] for run in study.runs}
    names = sorted(run["run"] for run in study.runs)
    planned = {run.get("name"): run.get("branch_of") for run in study.plan.get("runs", [])}
    found: dict[str, str | None] = {}
    for name in names:
        run = study.run(name)
        if run.get("branch"):
            found[name] = by_hash.get(run["branch"]["config_hash"])
        elif "branch" not in run:
            trunk = planned[name] if name in planned else branch_of(name, names)
            found |= {name: trunk} if trunk else {}
    return found


def lookup(row: Mapping[str, Any], dotted: str) -> Any:
    """The value of a dotted key; None where a part of it is missing."""
    value: Any = row
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _bins(rows: list[Row]) -> np.ndarray:
    """(rows, bins) losses per bin; NaN where one diverged, or a row has another number of them than edges."""
    count = max(len(rows[0]["log_snr_edges"]) - 1, 0) if rows else 0
    found = np.full((len(rows), count), np.nan)
    for row, losses in zip(found, (row["loss_bins"] for row in rows)):
        if len(losses) == count:
            row[:] = [np.nan if x is None else x for x in losses]
    return found


def _column(rows: list[Row], name: str) -> np.ndarray:
    return np.array([row[name] for row in rows], dtype=float)
