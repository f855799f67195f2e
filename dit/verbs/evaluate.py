"""``dit evaluate``: numbers of a run's samples or of images, the protocol beside each; and a page of many."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from dit.config import job as job_config
from dit.config.given import refuse_unread
from dit.config.parts import check_list
from dit.errors import InputError, printable
from dit.verbs.app import check_format, hydra_app, show

SPREAD = "_sd_over_seeds"


def task(cfg: DictConfig) -> None:
    """Measures what was named, and writes the page that was asked for."""
    check_format(cfg.format)
    page = cfg.report
    named = [key for key in ("run", "images") if cfg[key] is not None]
    if len(named) > 1 or not (named or cfg.report):
        allowed = "one of run=RUN, images=FOLDER (or .zip, .parquet, .npz), report=DIR"
        raise InputError("run, images, report", ", ".join(named) or None, allowed)
    for key in ("metrics", "protocols", "subsets", "models"):
        if cfg[key] is not None:
            check_list(key, cfg[key])
    if not isinstance(cfg.sweep, DictConfig):
        raise InputError("sweep", cfg.sweep, "its keys, such as sweep.n_steps=[10,25]")
    if cfg.models is not None and cfg.report is None:
        raise InputError("models", list(cfg.models), "null without report=DIR")
    if named == ["run"] and not cfg.evaluation.protocols:
        raise InputError(
            "evaluation", "(no protocols)", "a choice of conf/evaluation", "Add evaluation=digits."
        )
    if not named:
        refuse_unread(cfg)
    first = _measure(cfg) if named else True
    if page is not None and first:
        from dit.evaluation.gathering import report_of

        print(report_of(Path(page), cfg.models))


app = hydra_app("evaluate")(task)


def _measure(cfg: DictConfig) -> bool:
    """Measures, with the other processes if there are some; whether this process is the one that speaks."""
    from dit import launch
    from dit.config.evaluation import of_images, of_run

    world, device = job_config.meet(cfg)
    rows = (of_run if cfg.run is not None else of_images)(cfg, device, world.size > 1)
    if world.rank == 0 and rows:
        show({"evaluations": rows, "over_seeds": _over_seeds(rows)}, cfg.format, _print)
    launch.part()
    return world.rank == 0


def _over_seeds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and sd of each metric over sampling seeds, where there were several."""
    from dit.evaluation.gathering import as_row
    from dit.evaluation.protocol import over_seeds
    from dit.evaluation.report import grouped

    summaries = []
    for group in grouped([as_row(row) for row in rows], varying=["seed"]):
        if len(group) > 1:
            metrics, protocol = over_seeds([(row.metrics, row.protocol) for row in group])
            summaries.append({**metrics, "protocol": protocol.as_dict(), "protocol_hash": protocol.hash})
    return summaries


def _print(result: dict[str, Any]) -> None:
    """One table per protocol, but for what was swept, which has columns of its own; sampling seeds as mean and sd."""
    from dit.columns import align
    from dit.evaluation.gathering import as_row
    from dit.evaluation.report import SWEPT, averaged, columns, grouped

    for group in grouped(averaged(map(as_row, result["evaluations"])), varying=SWEPT):
        swept = [name for name in SWEPT if len({str(getattr(row.protocol, name)) for row in group}) > 1]
        names = [name for name in columns(group) if not name.endswith(SPREAD)]
        table = [["model", *swept, *(name.replace("_", " ") for name in names)]]
        for row in group:
            settings = [_short(getattr(row.protocol, name)) for name in swept]
            table.append([row.model, *settings, *(_number(row.metrics, name) for name in names)])
        print(align(table, right=range(1 + len(swept), len(table[0]))))
        protocol = group[0].protocol.as_dict()
        made = [f"{key}={value}" for key, value in protocol.items() if value is not None and key not in swept]
        print(printable(f"made with: {', '.join(made)}\n"))


def _number(metrics: Mapping[str, Any], name: str) -> str:
    value, spread = metrics.get(name), metrics.get(name + SPREAD)
    return "" if value is None else f"{value:.6g}" + (f" ± {spread:.2g}" if spread is not None else "")


def _short(setting: object) -> str:
    """A setting without the options that are off: ``ClassifierFree(scale=1.5)``."""
    return re.sub(r"\w+=None(, )?|\(\)", "", str(setting))
