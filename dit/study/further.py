"""Runs beside a study's grid: further seeds of a few of its cells, a sweep of rates, cells chosen one by one.

Imports no torch.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from dit.errors import InputError
from dit.network.counting import Counts
from dit.study.planned import Grid, PlannedRun, Reading

CELLS = 3  # under further seeds: of the lowest budgets, where they cost least and stay as the grid grows

Read = Callable[[Counts, int, Sequence[float]], tuple[Reading, ...]]  # of a network, its width and budgets


def replicates(grid: Grid, runs: Sequence[PlannedRun], best: Callable[[float], float]) -> list[PlannedRun]:
    """Runs of ``grid.extra_seeds`` of one network at each of the lowest budgets, read up to there.

    Seeds of one cell tell the noise of a seed from that of a reading, and both from a law that does not fit.

    Args:
        grid: has the seeds; those that every run has anyway make none.
        runs: of the grid.
        best: the expected best size at a budget; each cell is of the network nearest to it that no other cell has.
    """
    return [
        replace(
            trunk,
            name=run_name(trunk.width, seed),
            seed=seed,
            readings=tuple(one for one in trunk.readings if one.budget_flops <= budget),
        )
        for trunk, budget in _trunks(grid, runs, best)
        for seed in grid.extra_seeds
        if seed not in grid.seeds
    ]


def sweep(grid: Grid, runs: Sequence[PlannedRun], best: Callable[[float], float]) -> list[PlannedRun]:
    """Runs of the same networks at each of ``grid.rates``, read at the lowest budgets that they serve.

    The rate is constant, so that a run has a reading at every budget on its way: sizes and amounts of data that vary
    independently, which the law of the best rate needs.
    """
    lowest = sorted({budget for run in runs for budget in run.budgets_flops})[:CELLS]
    return [
        replace(
            trunk,
            name=f"{trunk.name}-lr{rate:.4g}",
            rate=rate,
            readings=tuple(one for one in trunk.readings if one.budget_flops in lowest),
        )
        for trunk, _ in _trunks(grid, runs, best)
        for rate in grid.rates
    ]


def _trunks(
    grid: Grid, runs: Sequence[PlannedRun], best: Callable[[float], float]
) -> list[tuple[PlannedRun, float]]:
    """For each of the lowest budgets, the run nearest to its best size that no other budget has, and the budget."""
    found: dict[str, tuple[PlannedRun, float]] = {}
    for budget in sorted({budget for run in runs for budget in run.budgets_flops}):
        served = [
            run
            for run in runs
            if run.seed == grid.seeds[0] and budget in run.budgets_flops and run.name not in found
        ]
        if served and len(found) < CELLS:
            near = math.log(best(budget))
            trunk = min(served, key=lambda run: abs(math.log(run.counts.macs_per_token) - near))
            found[trunk.name] = trunk, budget
    return list(found.values())


def with_cells(
    grid: Grid, runs: Sequence[PlannedRun], count: Callable[[int], Counts], read: Read
) -> list[PlannedRun]:
    """The runs, and those of ``grid.cells`` (width, budget, seed) beside them, read at every budget on their way.

    A cell of a run that is there lengthens it to the cell's budget.

    Raises:
        InputError: a budget that the width does not reach within the window of images.
    """
    found = {run.name: run for run in runs}
    budgets = sorted({*grid.budgets_flops, *(budget for _, budget, _ in grid.cells)})
    for width, budget, seed in sorted(grid.cells, key=lambda cell: cell[1]):
        counts = count(width)
        name = run_name(width, seed)
        known = found[name].readings if name in found else ()
        seen = known[-1].budget_flops if known else 0.0
        ahead = [one for one in budgets if seen < one <= budget]
        more = read(counts, width, ahead) if ahead else ()
        if not more or more[-1].budget_flops != budget:
            images = budget / counts.train_flops_per_image
            if known and budget <= seen:
                allowed = f"budgets above the {seen:.4g} FLOPs that run {name} is trained for"
            else:
                allowed = f"cells of {grid.min_images} to {grid.max_images} images, and whole steps within 1 % of them"
            raise InputError("study.cells", f"([{width},{budget:g},{seed}]: {images:.4g} images)", allowed)
        found[name] = PlannedRun(name, width, seed, counts, (*known, *more))
    return list(found.values())


def run_name(width: int, seed: int) -> str:
    """The name of a planned run: no other one when seeds are added."""
    return f"w{width:04d}" + (f"-s{seed}" if seed else "")
