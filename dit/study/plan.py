"""From budgets to a grid of runs at exact compute.

A study trains one run per network width. Constant learning rate and averaged weights let one run be read at every
budget below its last, so a width costs its largest budget once. Which budgets a width serves follows from the window of
images: too few, and the warm-up and the step size show; too many, and the run repeats its data too often.
Imports no torch.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from dit.errors import InputError
from dit.network.counting import Counts
from dit.study.doubts import doubts
from dit.study.forecast import Expectation, Outlook, forecast
from dit.study.further import replicates, run_name, sweep, with_cells
from dit.study.planned import Grid, Plan, PlannedRun, Reading
from dit.study.price import Price

LARGEST_MISS = 0.01  # |C_actual / C - 1| of any planned reading
WARMUP_SHARE = 20  # no budget is read before this many times the warm-up
WIDEST = 16384  # of the widths that are looked at where widths are chosen


def make_plan(
    grid: Grid,
    count: Callable[[int], Counts],
    batch_size: int,
    warmup_images: int,
    n_train: int | None,
    price: Price | None = None,
    outlook: Outlook | None = None,
    width_step: int | None = None,
    n_held_out: int | None = None,
) -> Plan:
    """The runs that a grid asks for.

    Args:
        grid: budgets, widths and the window of images.
        count: width -> parameters and multiply-adds of that network on the study's data.
        batch_size: images per step; a reading is a whole number of steps.
        warmup_images: of the learning rate.
        n_train: training images, for the number of epochs; None where unknown.
        price: of compute.
        outlook: what the plan is judged by; None for no forecast.
        width_step: the step of the ladder that widths are chosen from; None where there is no ladder.
        n_held_out: images that the loss is measured on; None where unknown.

    Raises:
        InputError: no width serves any budget, the window lets budgets be read inside the warm-up, or no budget has
            its expected best size inside its row.
    """
    if grid.min_images < WARMUP_SHARE * warmup_images:
        raise InputError(
            "study.min_images",
            grid.min_images,
            f"at least {WARMUP_SHARE} x warmup_images = {WARMUP_SHARE * warmup_images}",
            "Shorten warmup_images or raise study.min_images.",
        )
    expected, chosen = None, not grid.widths
    if chosen:
        expected = _located(outlook, count, width_step)
        grid = replace(grid, widths=_choose_widths(grid, count, width_step or 0, expected))
    runs, warnings = _runs(grid, count, batch_size, expected if chosen else None)
    plan = Plan(grid, tuple(runs), n_train, price, n_held_out=n_held_out)
    if outlook is not None:
        expected = expected or outlook.expectation(plan.tokens, _centre(plan))
        plan = replace(plan, expected=expected)
    if grid.rates:
        return replace(plan, runs=tuple(sweep(grid, runs, plan.best_size)), warnings=tuple(warnings))
    plan = replace(plan, runs=(*runs, *replicates(grid, runs, plan.best_size)))

    def read(counts: Counts, width: int, budgets: Sequence[float]) -> tuple[Reading, ...]:
        return readings_of(replace(grid, budgets_flops=budgets), counts, batch_size, width, None, warnings)

    plan = replace(plan, runs=tuple(with_cells(grid, plan.runs, count, read)))
    if expected is not None:
        plan = replace(plan, forecast=forecast(plan.points(), expected))
    plan = replace(plan, branches=_branches(plan, batch_size))
    return replace(plan, warnings=(*warnings, *doubts(plan)))


def _runs(
    grid: Grid, count: Callable[[int], Counts], batch_size: int, row: Expectation | None
) -> tuple[list[PlannedRun], list[str]]:
    """The runs of each width and seed, and what to warn of; for ``row`` see ``readings_of``."""
    runs, warnings = [], []
    for width in grid.widths:
        counts = count(width)
        readings = readings_of(grid, counts, batch_size, width, row, warnings)
        for seed in grid.seeds if readings else ():
            runs.append(PlannedRun(run_name(width, seed), width, seed, counts, readings))
        if not readings:
            warnings.append(f"width {width} serves no budget within the window of images and is left out")
    if not runs:
        raise InputError(
            "study.budgets_flops",
            list(grid.budgets_flops),
            f"budgets that some width reaches with {grid.min_images} to {grid.max_images} images",
            "Widen study.min_images..study.max_images or change study.widths.",
        )
    return runs, warnings


def _located(outlook: Outlook | None, count: Callable[[int], Counts], width_step: int | None) -> Expectation:
    """The expectation that widths are chosen around."""
    if outlook is None or not outlook.is_located:
        raise InputError(
            "study.widths", [], "widths, or where the best size is expected",
            "Set study.surface.n_opt and study.surface.at_flops, or study.pilot, to have widths chosen.",
        )  # fmt: skip
    if width_step is None:
        raise InputError("study.widths", [], "widths", "They are chosen with network=ladder only.")
    return outlook.expectation(count(width_step).tokens)


def _choose_widths(grid: Grid, count: Callable[[int], Counts], step: int, expected: Expectation) -> list[int]:
    """Widths of the ladder nearest to sizes evenly spaced in ln N over all rows.

    Where the sizes lie does not depend on the budgets, so a grid that grows keeps the widths that it has.
    """
    law, half = expected.law, 0.5 * math.log(grid.span)
    low, high = (math.log(law.n_opt(c)) for c in (grid.budgets_flops[0], grid.budgets_flops[-1]))
    gap, anchor = 2 * half / (grid.sizes - 1), math.log(law.n_opt(1.0))
    first, last = (round((end - anchor) / gap) for end in (low - half, high + half))
    widths, logs = [], []
    for width in range(step, WIDEST + 1, step):
        widths.append(width)
        logs.append(math.log(count(width).macs_per_token))
        if logs[-1] > high + half + gap:
            break
    targets = [anchor + gap * index for index in range(first, last + 1)]
    return sorted({widths[int(np.argmin(np.abs(np.array(logs) - target)))] for target in targets})


def readings_of(
    grid: Grid, counts: Counts, batch_size: int, width: int, row: Expectation | None, warnings: list[str]
) -> tuple[Reading, ...]:
    """The budgets that a width serves; ``row`` keeps each budget's sizes within ``grid.span`` of each other."""
    readings = []
    for budget in grid.budgets_flops:
        steps = round(budget / (counts.train_flops_per_image * batch_size))
        images = steps * batch_size
        if not grid.min_images <= images <= grid.max_images or (
            row and not _in_row(grid, counts, budget, row)
        ):
            continue
        flops = images * counts.train_flops_per_image
        if abs(flops / budget - 1) > LARGEST_MISS:
            warnings.append(
                f"width {width} misses {budget:.3g} FLOPs by over 1 % at batch {batch_size}: not read there"
            )
            continue
        readings.append(Reading(budget, steps, images, flops))
    return tuple(readings)


def _in_row(grid: Grid, counts: Counts, budget: float, expected: Expectation) -> bool:
    """Within half the span of the best size, and half a step more: widths of a ladder lie beside their targets."""
    half = 0.5 * math.log(grid.span) * (1 + 1 / (grid.sizes - 1))
    return abs(math.log(counts.macs_per_token / float(expected.law.n_opt(budget)))) <= half


def _branches(plan: Plan, batch_size: int) -> tuple[PlannedRun, ...]:
    """One cool-down branch per budget, of the run nearest to the expected best size: what the budget gives when spent.

    It begins at the run's reading of the budget, whose checkpoint is kept, and ends where the cool-down is its share.
    """
    share, found = plan.grid.cooldown_share, []
    for budget in plan.grid.budgets_flops if share is not None else ():
        if share is None or not plan.sizes(budget):
            continue
        best = math.log(plan.best_size(budget))
        served = [run for run in plan.runs if budget in run.budgets_flops and run.seed == plan.grid.seeds[0]]
        trunk = min(served, key=lambda run: abs(math.log(run.counts.macs_per_token) - best))
        begin = next(reading for reading in trunk.readings if reading.budget_flops == budget)
        steps = max(begin.steps + 1, round(begin.steps / (1 - share)))
        flops = float(steps * batch_size * trunk.counts.train_flops_per_image)
        end = Reading(flops, steps, steps * batch_size, flops)
        name = f"{trunk.name}-cool-{begin.images}"
        found.append(
            replace(trunk, name=name, readings=(end,), branch_of=trunk.name, branch_images=begin.images)
        )
    return tuple(found)


def _centre(plan: Plan) -> tuple[float, float]:
    """The middle of the grid in ln N and ln C."""
    rows = [(budget, plan.sizes(budget)) for budget in plan.grid.budgets_flops if plan.sizes(budget)]
    middles = [0.5 * math.log(sizes[0] * sizes[-1]) for _, sizes in rows]
    flops = [math.log(budget) for budget, _ in rows]
    return math.exp(sum(middles) / len(rows)), math.exp(sum(flops) / len(rows))
