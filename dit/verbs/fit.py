"""``dit fit``: a scaling law with its intervals, from a study's records or any CSV file."""

import re
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dit.config.given import refuse_given, refuse_unread
from dit.config.nodes import listed
from dit.config.words import quoted
from dit.errors import InputError, check_choice
from dit.fits.answer import answer
from dit.fits.fitted import fitted
from dit.fits.points import Points, drop_outliers, read_points
from dit.fits.remarks import independent
from dit.fits.summary import print_summary
from dit.fits.table import read_table
from dit.verbs import tuning
from dit.verbs.app import check_format, hydra_app, show

SIZES = {"macs_per_token": "n_flop", "n_params_total": "n_total"}


def task(cfg: DictConfig) -> None:
    """Prints one fit."""
    if cfg.data.path is None:
        raise InputError(
            "data", None, "a CSV file or a study directory", "dit fit data=points.csv columns.n=..."
        )
    if cfg.law == "tuning":
        tuning.task(cfg)
        return
    points, others, told = (_study if Path(cfg.data.path).is_dir() else _table)(cfg)
    check_format(cfg.format)
    keys = ("law", "loss", "delta", "bootstrap", "seed", "by", "method")
    asked: list[Any] = [cfg[key] for key in keys]
    if cfg.law in ("isoflop", "envelope"):
        for key in ("loss", "delta"):
            refuse_given(cfg, key, f"law={cfg.law} is least squares")
    if cfg.law in ("isoflop", "envelope", "stacked"):
        refuse_given(cfg, "holdout", f"law={cfg.law} holds out the largest budget, or none")
    if cfg.law != "isoflop":
        refuse_given(cfg, "window", f"law={cfg.law} has no parabolas")
    if not cfg.bootstrap:
        for key in ("seed", "by", "method"):
            refuse_given(cfg, key, "bootstrap=0 draws nothing")
    cut = None if cfg.holdout is None else str(cfg.holdout)
    at_flops, fixed = listed(cfg.at_flops), tuple((str(name), value) for name, value in cfg.fix.items())
    refuse_unread(cfg)
    result = answer(fitted(points, *asked, fixed=fixed, window=cfg.window), at_flops, others, told, cut)
    show({"data": str(cfg.data.path), **result}, cfg.format, print_summary)


def app() -> None:
    """The verb's Hydra app."""
    sys.argv[1:] = [_override(word) for word in sys.argv[1:]]
    hydra_app("fit")(task)()


def _override(word: str) -> str:
    """A word of the command line as the schema has it: ``data`` is ``data.path``, and conditions are a list."""
    written, _, value = word.partition("=")
    key = written.lstrip("+")
    if key == "holdout" and not re.fullmatch(r"\s*(['\"]).*\1\s*|null", value):
        return f"{written}={quoted(value)}"
    if key == "data":
        return f"data.path={value}"
    if key != "where" or re.fullmatch(r"\[?\s*(['\"]).*\1\s*\]?", value):
        return word
    inner = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    return "where=[" + ",".join(quoted(part.strip()) for part in inner.split(",") if part.strip()) + "]"


def _table(cfg: DictConfig) -> tuple[Points, dict[str, dict[str, Points]], list[str]]:
    """Points of a CSV file; all of them, where outliers were dropped; and what to say about where they are from."""
    columns: Any = OmegaConf.to_container(cfg.columns)
    kept = read_points(cfg.data.path, columns, listed(cfg.where), 0, cfg.flops_per_nd)
    told = independent(kept, read_table(cfg.data.path).header, cfg.columns.n) if cfg.by != "run" else []
    if not cfg.drop_highest:
        return kept, {}, told
    return drop_outliers(kept, cfg.drop_highest), {"outliers": {"all kept": kept}}, told


def _study(cfg: DictConfig) -> tuple[Points, dict[str, dict[str, Points]], list[str]]:
    """Validation losses of a study at its budgets; those by the other count of N; and what is left out."""
    from dit.study.missing import left_out
    from dit.study.readings import collect
    from dit.study.records import load_study

    check_choice("size", cfg.size, SIZES)
    _refuse_selections(cfg)
    study = load_study(cfg.data.path)
    points = collect(study, cfg.weights)
    counted = {name: points.for_fit(size) for name, size in SIZES.items()}
    kept = {name: drop_outliers(value, cfg.drop_highest) for name, value in counted.items()}
    others = {"size": {name: value for name, value in kept.items() if name != cfg.size}}
    return kept[cfg.size], others, left_out(study, points)


def _refuse_selections(cfg: DictConfig) -> None:
    """Keys that select from a CSV file have no say over a study's records."""
    columns = {f"columns.{name}": value for name, value in cfg.columns.items() if name != "loss"}
    given = {"where": cfg.where, "flops_per_nd": cfg.flops_per_nd, **columns}
    for key, value in given.items():
        if value:
            raise InputError(
                key,
                listed(value) if key == "where" else value,
                "nothing: data is a study's directory",
                "Fit a CSV file, such as its report's points.csv.",
            )
