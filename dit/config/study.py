"""A study's keys of a configuration as the plain values that a plan is made of; without torch."""

import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dit.condition import Classes
from dit.config.checks import check_averages
from dit.config.data import check_encoded, check_held_out
from dit.config.facts import Facts
from dit.config.given import given_values, refuse_given, refuse_unread
from dit.config.instantiation import instantiate
from dit.config.overhead import overhead_flops
from dit.config.parts import Parts, check_list
from dit.config.rate import measured
from dit.data.autoencoder import latent_domain
from dit.errors import InputError, check_choice, check_number
from dit.fits.tuning import FEWEST
from dit.network.counting import Counts
from dit.study.doubts import refuse_weak
from dit.study.forecast import Outlook, Surface
from dit.study.plan import Grid, Plan, make_plan
from dit.study.price import Price, budgets_in_flops, make_price

log = logging.getLogger("dit")

ROUNDS = 10  # of looking for the budgets that fill the hours: sizes and steps are whole, so compute is no straight line
CLOSE = 0.97  # share of the hours that will do


def study_directory(cfg: DictConfig) -> Path:
    """Where a study lies: ``study.directory``, or a folder of its name under ``runs/``, a sweep's beside it."""
    study = _study(cfg)
    if study.directory is not None:
        return Path(study.directory)
    if study.name is None:
        raise InputError(
            "study.directory", None, "a study's directory", "Or choose one with experiment=digits."
        )
    return Path("runs") / (f"{study.name}-tune" if study.tune else study.name)


def grid(cfg: DictConfig) -> Grid:
    """The grid of a study."""
    study = _study(cfg)
    if study.name is None:
        raise InputError("study.name", None, "the name of a study", "Choose one with experiment=digits.")
    numbers: Any = OmegaConf.to_container(study, resolve=True)
    for key in ("budgets_flops", "budgets_gpu_hours", "widths", "seeds", "extra_seeds", "cells", "tune"):
        check_list(f"study.{key}", numbers[key])
    budgets = budgets_in_flops(study.budgets_flops, numbers["budgets_gpu_hours"], _price(cfg))
    keys = ("name", "widths", "min_images", "max_images", "seeds", "sizes", "span", "cooldown_share")
    keys += ("extra_seeds", "cells")
    for factor in numbers["tune"]:
        check_number("study.tune", factor, above=0.0)
    if numbers["tune"] and (len(numbers["tune"]) < FEWEST or sorted(set(numbers["tune"])) != numbers["tune"]):
        raise InputError("study.tune", numbers["tune"], f"{FEWEST} or more ascending factors of optimizer.lr")
    rates = [float(f"{cfg.optimizer.lr * factor:.6g}") for factor in numbers["tune"]]
    return Grid(budgets_flops=list(budgets), rates=rates, **{key: numbers[key] for key in keys})


def plan(parts: Parts, grid: Grid) -> Plan:
    """The runs of a study.

    Raises:
        InputError: a grid that can tell no exponent, without ``study.force``.
    """
    cfg, facts = parts.cfg, _facts(parts)
    check_number("batch_size", cfg.batch_size, low=1, integer=True)
    check_number("warmup_images", cfg.warmup_images, low=0, integer=True)
    far = 10**15
    if parts.schedule.shared_until(far) != far:
        raise InputError(
            "schedule", cfg.schedule._target_, "schedule=constant: one run is read at every budget on its way",
            "For what a cool-down would give set study.cooldown_share.",
        )  # fmt: skip
    check_choice("study.force", cfg.study.force, (False, True))
    found = (
        _planned(parts, facts, grid, _price(cfg))
        if cfg.study.hours is None
        else _in_hours(parts, facts, grid)
    )
    if not cfg.study.force and not grid.rates:
        refuse_weak(found)
    return found


def _planned(parts: Parts, facts: Facts, grid: Grid, price: Price | None) -> Plan:
    """The runs of a grid, with what they cost."""
    cfg = parts.cfg

    def count_width(width: int) -> Counts:
        return parts.count(instantiate(cfg.network, width=width), facts)

    noise: Any = {key: cfg.study[key] for key in ("loss_noise", "run_noise", "pilot")}
    outlook = Outlook(Surface(**cfg.study.surface), **noise)
    found = make_plan(
        grid,
        count_width,
        cfg.batch_size,
        cfg.warmup_images,
        facts.n_train,
        price,
        outlook,
        ladder_step(cfg),
        facts.n_held_out,
    )
    return replace(found, overhead=overhead_flops(parts, facts, found))


def ladder_step(cfg: DictConfig) -> int | None:
    """The step between the widths of a study's networks; None where they are no ladder."""
    ladder = {key: cfg.network[key] for key in ("aspect", "head_dim") if key in cfg.network}
    for key, value in ladder.items():
        check_number(f"network.{key}", value, low=1, integer=True)
    return math.lcm(*ladder.values()) if ladder else None


def _in_hours(parts: Parts, facts: Facts, grid: Grid) -> Plan:
    """The grid with its budgets scaled by one factor, the largest that keeps all of it within ``study.hours``.

    Raises:
        InputError: a rate that is given or cannot be measured, or hours into which no grid of these sizes fits.
    """
    cfg, hours = parts.cfg, parts.cfg.study.hours
    check_number("study.hours", hours, above=0.0)
    for key in ("flops_per_second", "hardware", "mfu", "budgets_gpu_hours"):
        refuse_given(cfg, f"study.{key}", "study.hours is at a rate that is measured here", of_file_too=True)
    price = measured(facts, _planned(parts, facts, grid, None), cfg.batch_size, cfg.study.devices)
    best, least, factor = None, "", 1.0
    for _ in range(ROUNDS):
        budgets = [float(f"{budget * factor:.4g}") for budget in grid.budgets_flops]
        try:
            found = _planned(parts, facts, replace(grid, budgets_flops=budgets), price)
        except InputError as why:
            least, factor = (
                least or f"At {factor:.2g} times these budgets: {why}",
                factor * (0.5 if factor > 1 else 2),
            )
            continue
        cost = found.cost()
        assert cost is not None, "the price is known"
        ratio = cost["whole"]["days"] * 24 / hours
        if ratio <= 1 and (best is None or found.flops > best.flops):
            best = found
        if CLOSE <= ratio <= 1:
            break
        if ratio > 1:
            share = 1 - cost["gpu_hours"] / cost["whole"]["gpu_hours"]
            least = f"At {factor:.2g} times these budgets it takes {ratio * hours:.3g}, {share:.0%} beside training."
        factor *= 0.5 * (1 + CLOSE) / ratio
    if best is None:
        remedy = f"{least} Give more hours, fewer or smaller study.widths, or evaluation=none."
        raise InputError("study.hours", hours, "hours into which a grid of these sizes fits", remedy)
    return best


def refuse_unused(cfg: DictConfig, plan: Plan) -> None:
    """Refuses what was given to a study and has no effect on its plan or its runs; says what is doubtful."""
    refuse_given(cfg, "seed", "study.seeds are the seeds of a study's runs", of_file_too=True)
    if cfg.study.widths:
        for key in ("sizes", "span"):
            refuse_given(cfg, f"study.{key}", "study.widths says which networks there are")
    if plan.grid.rates:
        for key in ("extra_seeds", "cells", "cooldown_share"):
            refuse_given(cfg, f"study.{key}", "study.tune has a sweep in place of the grid", of_file_too=True)
    if cfg.study.hardware is None:
        refuse_given(cfg, "study.mfu", "it is a share of the peak of study.hardware, which is not named")
    first, last = (min(run.readings[i].images for run in plan.runs) for i in (0, -1))
    check_averages(cfg, first, last)
    for given in given_values(cfg, of_file_too=True):
        if given.word == "network.width" and given.word not in given.read:
            log.warning("network.width=%s has no say in a study: study.widths has", given)
            given.read.add(given.word)
    # which a study's report and its runs use
    unplanned = ("data", "autoencoder", "condition", "logger", "hardware")
    refuse_unread(cfg, besides=unplanned, of_file_too=True)


def _price(cfg: DictConfig) -> Price | None:
    """The rate at which a study computes; None where nothing says it."""
    return make_price(**{key: cfg.study[key] for key in ("flops_per_second", "hardware", "mfu", "devices")})


def _facts(parts: Parts) -> Facts:
    """What the data are, or what the study says of data that are not there yet."""
    cfg, said = parts.cfg, parts.cfg.study.data
    if said.num_classes is None or parts.is_encoded:
        check_encoded(parts)
        check_held_out(parts)
        return parts.facts
    check_number("study.data.num_classes", said.num_classes, low=0, integer=True)
    if said.n_train is not None:
        check_number("study.data.n_train", said.n_train, low=1, integer=True)
    size = cfg.data.get("image_size")
    source = None if size is not None else parts.source  # arrays say what they are
    domain = latent_domain(parts.spec, source, size)
    return Facts(domain, parts.conditions.kind(Classes(said.num_classes)), said.n_train, None)


def _study(cfg: DictConfig) -> DictConfig:
    """The keys of a study, which ``study=<directory>`` would replace as a whole."""
    if not isinstance(cfg.study, DictConfig):
        allowed = "its keys, such as study.directory"
        raise InputError("study", cfg.study, allowed, "For a directory, write study.directory=...")
    return cfg.study
