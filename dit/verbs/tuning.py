"""``dit fit law=tuning``: the best learning rate and batch, from a sweep's CSV file or a study's records."""

from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from dit.columns import align
from dit.config.given import refuse_unread
from dit.config.nodes import listed
from dit.errors import InputError
from dit.fits.points import read_points
from dit.fits.table import read_table
from dit.fits.tuning import Sweep, as_dict, fit_tuning
from dit.verbs.app import check_format, show


def task(cfg: DictConfig) -> None:
    """Prints the best settings of each cell, their laws, and N* with and without them."""
    check_format(cfg.format)
    sweep = (_of_study if Path(cfg.data.path).is_dir() else _of_table)(cfg)
    draws, seed, at_flops = cfg.bootstrap, cfg.seed, listed(cfg.at_flops)
    str(cfg.law)
    refuse_unread(cfg)
    show(
        {"data": str(cfg.data.path), **as_dict(fit_tuning(sweep, draws, seed), at_flops)}, cfg.format, _print
    )


def _of_table(cfg: DictConfig) -> Sweep:
    where = listed(cfg.where)
    table = read_table(cfg.data.path).where(where)
    columns: dict[str, Any] = {str(name): value for name, value in cfg.columns.items()}
    rate, batch = columns.pop("lr"), columns.pop("batch")
    if rate is None:
        raise InputError("columns.lr", None, "the column of learning rates", "law=tuning needs it.")
    points = read_points(cfg.data.path, columns, where, 0, cfg.flops_per_nd)
    settings = [
        None if name is None else table.numbers(key, name)
        for key, name in (("columns.lr", rate), ("columns.batch", batch))
    ]
    for key, values in zip(("columns.lr", "columns.batch"), settings, strict=True):
        if values is not None and not np.all(values > 0):
            raise InputError(key, f"({values.min():g} among them)", "positive numbers")
    assert settings[0] is not None, "it was asked for"
    return Sweep(points, settings[0], settings[1])


def _of_study(cfg: DictConfig) -> Sweep:
    from dit.study.readings import collect
    from dit.study.records import load_study

    study = load_study(cfg.data.path)
    points = collect(study, cfg.weights)
    rate, batch = (
        np.array([study.run(name)[key] for name in points.run], float) for key in ("lr", "batch_size")
    )
    return Sweep(points.for_fit("n_flop"), rate, batch if len(set(batch)) > 1 else None)


def _print(found: dict[str, Any]) -> None:
    heads = ("N", "D", "C", "best rate", "best batch", "loss there")
    rows: list[tuple[str, ...]] = [heads]
    for cell in found["cells"]:
        best = [cell[name] for name in ("rate", "batch", "loss")]
        shown = (
            [cell["rejected"] or "", "", ""]
            if cell["rejected"]
            else ["-" if x is None else f"{x:.4g}" for x in best]
        )
        rows.append((*(f"{cell[name]:.4g}" for name in ("n", "d", "c")), *shown))
    print(align(rows, right=range(len(heads))))
    print()
    print(f"lr* = {_power(found['rate'])}")
    if found["batch"]:
        print(f"B*  = {_power(found['batch'])}")
    for name, law in found["laws"].items():
        title = (
            "tuned"
            if name == "tuned"
            else f"at rate {found['fixed_rate']:.4g} for all"
            if found["fixed_rate"]
            else "at one rate"
        )
        if law is None:
            print(f"{title}: these cells carry no additive law")
            continue
        places = ", ".join(f"{_estimate(one)} at {one['flops']:.3g} FLOPs" for one in law["n_opt"])
        print(f"{title}: N* ~ C^{_estimate(law['a'])}, N* {places}")


def _power(law: dict[str, Any]) -> str:
    terms = " ".join(f"{name}^{_estimate(one)}" for name, one in law["exponents"].items())
    scatter = "" if law["scatter"] is None else f"; cells scatter by {law['scatter']:.1%} about it"
    return f"{law['coefficient']:.4g} {terms}{scatter}"


def _estimate(one: dict[str, Any]) -> str:
    value, interval = one["value"], one.get("interval_95")
    shown = "-" if value is None else f"{value:.4g}"
    return shown if interval is None else f"{shown} (95 % {interval[0]:.4g} to {interval[1]:.4g})"
