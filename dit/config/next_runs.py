"""``dit plan study.next=K``: the next runs of a study, from its records so far; without torch."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dit.config.instantiation import instantiate
from dit.config.parts import Parts
from dit.config.study import ladder_step, study_directory
from dit.errors import InputError, check_choice, check_number
from dit.fits.additive import AdditiveLaw
from dit.network.counting import Counts
from dit.study.forecast import BEYOND, from_records
from dit.study.next_runs import AIMS, SPAN, Choice, candidates, choose
from dit.study.plan import WIDEST, readings_of
from dit.study.planned import Plan, Reading

NORMAL_95 = 1.96


def next_runs(parts: Parts, plan: Plan) -> dict[str, Any]:
    """The runs that shrink the interval of the study's answer most per FLOP, as JSON values.

    Raises:
        InputError: no records, records without a law, or nothing that could be run.
    """
    study = parts.cfg.study
    check_number("study.next", study.next, low=1, integer=True)
    if plan.grid.rates:
        raise InputError("study.next", study.next, "null beside study.tune, whose runs are points of no law")
    check_choice("study.aim", study.aim, AIMS)
    target = BEYOND * plan.budgets_flops[-1] if study.target is None else study.target
    check_number("study.target", target, above=0.0)
    largest = plan.budgets_flops[-1] if study.largest is None else study.largest
    check_number("study.largest", largest, low=plan.budgets_flops[0])
    found, points = from_records(study_directory(parts.cfg), plan.tokens, "study.directory")
    budgets = _budgets(plan.budgets_flops, largest)

    def read(counts: Counts, width: int, asked: Sequence[float]) -> tuple[Reading, ...]:
        grid = replace(plan.grid, budgets_flops=list(asked))
        return readings_of(grid, counts, parts.cfg.batch_size, width, None, [])

    def answer(law: AdditiveLaw) -> Any:
        return law.n_opt(target) if study.aim == "n_opt" else law.loss_opt(target)

    if not np.isfinite(answer(found.law)):
        allowed = f"records that tell {AIMS[study.aim]}: of sizes on both sides of it, at two budgets or more"
        raise InputError("study.next", f"({found.source}: no {AIMS[study.aim]})", allowed)
    possible = candidates(plan, found.law, budgets, _widths(parts, plan, found.law, budgets), read)
    if not possible:
        raise InputError(
            "study.next", study.next, "a study with something left to run", "Raise study.largest."
        )
    chosen = choose(points, found.law, found.noise, possible, answer, study.next)
    return {"study": plan.grid.name, "aim": study.aim, "target_flops": target} | _told(
        plan, found.source, chosen
    )


def _told(plan: Plan, source: str, chosen: Choice) -> dict[str, Any]:
    """A choice as JSON values, and the cells that ``dit study`` takes: those of before, and these."""
    cells = {(width, seed): (width, budget, seed) for width, budget, seed in plan.grid.cells}
    steps = []
    for one in chosen.steps:
        run, (width, budget, seed) = one.candidate, one.candidate.cell
        cells[width, seed] = run.cell
        hours = None if plan.price is None else plan.price.device_hours(run.flops, run.n)
        row = {"run": run.run, "width": width, "seed": seed, "macs_per_token": run.n, "budget_flops": budget}
        steps.append(
            {**row, "flops": run.flops, "gpu_hours": hours, "interval_95": _interval(chosen.value, one.sd)}
        )
    return {
        "source": source,
        "value": chosen.value,
        "interval_95": _interval(chosen.value, chosen.sd),
        "runs": steps,
        "flops": sum(one.candidate.flops for one in chosen.steps),
        "cells": [list(cell) for cell in cells.values()],
    }


def _interval(value: float, sd: float) -> list[float]:
    return [value * math.exp(sign * NORMAL_95 * sd) for sign in (-1, 1)]


def _budgets(known: Sequence[float], largest: float) -> list[float]:
    """The budgets of a study up to the largest, continued by the step between its last two."""
    found = [budget for budget in known if budget <= largest]
    step = known[-1] / known[-2] if len(known) > 1 else math.sqrt(10)
    while found[-1] * step <= largest * (1 + 1e-9):
        found.append(float(f"{found[-1] * step:.4g}"))
    return found


def _widths(parts: Parts, plan: Plan, law: AdditiveLaw, budgets: Sequence[float]) -> list[tuple[int, Counts]]:
    """The widths that candidates are of: the ladder's, or the plan's where there is none."""
    step = ladder_step(parts.cfg)
    if step is None:
        return sorted({run.width: run.counts for run in plan.runs}.items())
    found = []
    for width in range(step, WIDEST + 1, step):
        counts = parts.count(instantiate(parts.cfg.network, width=width), parts.facts)
        if counts.macs_per_token > SPAN * float(law.n_opt(budgets[-1])):
            break
        found.append((width, counts))
    return found
