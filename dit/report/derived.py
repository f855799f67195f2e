"""The report's numbers besides the laws: log-log lines, allocations, their cost, the least loss at each compute."""

from typing import Any

import numpy as np
from scipy.special import stdtrit
from scipy.stats import linregress, spearmanr

from dit.errors import InputError
from dit.fits.additive import AdditiveLaw
from dit.fits.bootstrap import Bootstrap
from dit.fits.data_limited import DataLimitedLaw
from dit.fits.fitted import Fitted
from dit.fits.laws import settled
from dit.fits.points import Points as FitPoints
from dit.fits.power import fit_power
from dit.study.readings import Points, branches
from dit.study.records import Study
from dit.study.sampled import Samples

BAND_POINTS = 25
TARGETS = (1.0, 10.0, 100.0)  # times the largest budget


def log_line(x: np.ndarray, y: np.ndarray) -> dict[str, Any] | None:
    """Least squares of ln y on ln x, y = coefficient x^exponent, with the usual 95 % interval of a slope.

    Args:
        x: (n,) positive.
        y: (n,) positive.

    Returns:
        exponent, coefficient, interval_95 (None with two points), n; None below two different x.
    """
    if len(np.unique(x)) < 2:
        return None
    line: Any = linregress(np.log(x), np.log(y))
    interval = None
    if len(x) > 2:
        error = line.stderr * stdtrit(len(x) - 2, 0.975)
        interval = [float(line.slope - error), float(line.slope + error)]
    found = {"exponent": float(line.slope), "coefficient": float(np.exp(line.intercept))}
    return {**found, "interval_95": interval, "n": len(x)}


def noise_bins(points: Points) -> dict[str, Any] | None:
    """Loss per bin of log-SNR of each budget's best run, and each bin's slope in compute."""
    if points.bins.size == 0 or not np.isfinite(points.bins).any():
        return None
    places = [int(np.flatnonzero(points.budget == c)[np.argmin(points.loss[points.budget == c])])
              for c in points.budgets]  # fmt: skip
    table, compute = points.bins[places], points.flops[places]
    fitted = []
    for column in table.T:
        kept = np.isfinite(column) & (column > 0)
        fitted.append(log_line(compute[kept], column[kept]))
    return {
        "edges": points.edges.tolist(),
        "best": [
            {"budget_flops": float(points.budget[i]), "run": points.run[i],
             "bins": [float(x) if np.isfinite(x) else None for x in points.bins[i]]}
            for i in places
        ],
        "exponents": [one and one["exponent"] for one in fitted],
        "intervals_95": [one and one["interval_95"] for one in fitted],
    }  # fmt: skip


def frechet(samples: list[Samples]) -> dict[str, Any]:
    """Best unguided Fréchet distance of each budget, a line through them, rank correlation with the loss."""
    rows = [
        row
        for group in samples
        if not group.guided
        for row in group.rows
        if row["frechet_distance"] is not None
    ]
    best: dict[float, dict[str, Any]] = {}
    for row in rows:
        if (
            row["frechet_distance"]
            < best.get(row["budget_flops"], {"frechet_distance": np.inf})["frechet_distance"]
        ):
            best[row["budget_flops"]] = row
    shown = [
        {k: best[c][k] for k in ("budget_flops", "train_flops", "frechet_distance", "run")}
        for c in sorted(best)
    ]
    positive = [row for row in shown if row["frechet_distance"] > 0]
    fit = log_line(
        np.array([row["train_flops"] for row in positive]),
        np.array([row["frechet_distance"] for row in positive]),
    )
    pairs = np.array([(row["loss"], row["frechet_distance"]) for row in rows if row["loss"] is not None])
    rank = None
    if len(pairs) > 2 and np.ptp(pairs[:, 0]) > 0 and np.ptp(pairs[:, 1]) > 0:
        found: Any = spearmanr(*pairs.T)
        rank = float(found.statistic)
    return {"best": shown, "fit": fit, "rank_correlation": rank}


def targets(
    fit: AdditiveLaw | DataLimitedLaw, boot: Bootstrap | None, largest: float, n_train: int | None
) -> list[dict[str, Any]]:
    """Allocation of the primary law at TARGETS times the largest budget, and the cost of missing N*.

    Args:
        fit: the law.
        boot: its bootstrap.
        largest: the largest budget, FLOPs.
        n_train: images in the training set.
    """
    rows = []
    for factor in TARGETS:
        c = factor * largest
        n, loss = float(fit.n_opt(c)), float(fit.loss_opt(c))
        row: dict[str, Any] = {"budget_flops": c, "n": n, "d": float(fit.d_opt(c)), "loss": loss}
        row["epochs"] = row["d"] / n_train if n_train else None
        for name, off in (("half", 0.5), ("double", 2.0)):
            missed = float(fit.predict(off * n, c / (fit.k * off * n)))
            row[f"loss_{name}"] = missed
            row[f"waste_{name}"] = _wasted(fit, missed, loss, c)
        if boot is not None:
            row["n_interval_95"] = list(boot.interval(lambda law, c=c: law.n_opt(c)))
            row["loss_interval_95"] = list(boot.interval(lambda law, c=c: law.loss_opt(c)))
        rows.append(row)
    return rows


def _wasted(fit: AdditiveLaw | DataLimitedLaw, missed: float, loss: float, c: float) -> float:
    """The share of compute ``c``, whose least loss is ``loss``, that the best size would not need for ``missed``.

    Along C = k N D the additive law's frontier is E + K C^-p with p = alpha beta / (alpha + beta).
    """
    if isinstance(fit, DataLimitedLaw):
        return 1 - float(fit.flops_for(missed)) / c
    p = fit.alpha * fit.beta / (fit.alpha + fit.beta)
    return 1 - ((missed - fit.E) / (loss - fit.E)) ** (-1 / p)


def cooldowns(study: Study, points: Points, fit: AdditiveLaw | DataLimitedLaw) -> list[dict[str, Any]]:
    """What cooling down is worth: the constant rate's loss at a branch's end over the branch's own.

    The constant rate's loss there is the trunk's last reading before the branch, carried on by the primary law.
    Published diffusion work finds a constant factor, 1.0245 +- .0014.
    """
    rows = []
    for name, trunk in branches(study).items():
        ends = [
            r for r in study.validation if r["run"] == name and r["weights"] == points.weights and r["loss"]
        ]
        before = [i for i, run in enumerate(points.run) if run == trunk]
        end = max(ends, key=lambda row: row["images_seen"], default=None)
        before = [i for i in before if end is not None and points.images[i] < end["images_seen"]]
        if end is None or not before:
            continue
        last = max(before, key=lambda i: points.images[i])
        n = float(points.n[last])
        carried = float(fit.predict(n, end["images_seen"]) / fit.predict(n, points.images[last]))
        constant = float(points.loss[last]) * carried
        rows.append({
            "run": name, "trunk": trunk, "n": n, "branch_images": int(points.images[last]),
            "images_seen": end["images_seen"], "constant": constant, "cooled": end["loss"],
            "ratio": constant / end["loss"],
        })  # fmt: skip
    return rows


def frontier_curve(points: Points, law: Fitted) -> dict[str, Any]:
    """L*(C) of the primary law up to ten times the largest budget, with its 95 % band."""
    grid, boot = np.geomspace(points.budgets[0] / 1.5, points.budgets[-1] * 10, BAND_POINTS), law.drawn()
    floor, band = float(law.parameter("E")(law.fit)), None
    if boot is not None:
        low, high = boot.band(lambda law, c: law.loss_opt(c), grid)
        band = {"c": grid, "low": low, "high": high}
    return {"c": grid, "value": law.fit.loss_opt(grid), "floor": floor, "band": band}


def frontier(isoflop: dict[str, Any]) -> dict[str, Any] | None:
    """Power laws with and without a floor through the least losses of the budgets with a minimum."""
    kept = [row for row in isoflop["budgets"] if row["edge"] is None and row["n_opt"] is not None]
    if len(kept) < 2:
        return None
    budgets = np.array([row["budget_flops"] for row in kept])
    losses = np.array([row["loss"] for row in kept])
    found: dict[str, Any] = {"budgets": budgets.tolist(), "losses": losses.tolist()}
    for name, floor in (("power", False), ("power_floor", True)):
        try:
            law = fit_power(FitPoints(losses, c=budgets), floor=floor, loss="mse_log")
        except InputError as why:
            found[name], found[f"{name}_why_not"] = None, str(why)
            continue
        least = float(settled("floor", law.floor, losses))
        found[name] = {"exponent": law.exponent, "coefficient": law.coefficient, "floor": least,
                       "objective": law.objective, "n": len(losses)}  # fmt: skip
    return found
