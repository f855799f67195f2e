"""Tables beside the laws: noise, studies compared, cool-down branches."""

import math
from typing import Any

import numpy as np

from dit.fits.variance import components
from dit.report.material import Material
from dit.report.table import Table


def noise(m: Material) -> Table:
    """The noise of the loss, from the residuals of the laws, and of the Fréchet distance over sampling seeds."""
    rows: list[list[Any]] = []
    if m.law is not None:
        fit, points = m.law.fit, m.law.points
        problem = fit.problem(points)
        found = components(problem.residual(fit), problem.jacobian(fit), points.runs)
        rows.append(["loss, of a run (shared by its readings)", math.sqrt(found.run), found.freedom])
        rows.append(["loss, of a reading", math.sqrt(found.reading), found.freedom])
    for group in m.samples:
        spread = [
            r["frechet_distance_sd"] / r["frechet_distance"] for r in group.rows if r["frechet_distance_sd"]
        ]
        if spread:
            which = "guided" if group.guided else "unguided"
            pooled = float(np.sqrt(np.mean(np.square(spread))))
            rows.append([f"Fréchet distance, of a sampling seed ({which})", pooled, None])
    note = "The loss's noise is what the primary additive law leaves over, so a law that is wrong counts as noise too."
    return Table("noise", "Noise", ["what", "relative standard deviation", "degrees of freedom"], rows, note)


def cooldown(m: Material) -> Table:
    """What cooling the learning rate down is worth, by branch."""
    columns = ["run", "branch of", "N_flop", "images at the branch", "images at the end", "loss at constant rate",
               "loss cooled down", "ratio"]  # fmt: skip
    found = m.analysis["cooldowns"]
    keys = ("run", "trunk", "n", "branch_images", "images_seen", "constant", "cooled", "ratio")
    note = (
        "Loss at constant rate: the trunk's reading at the branch, carried on to its end by the additive law."
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
