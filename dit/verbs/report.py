"""``dit report``: the page, tables and figures of a study, from its records alone."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

import dit
from dit.config import study as study_config
from dit.config.given import refuse_unread
from dit.config.nodes import listed
from dit.errors import InputError
from dit.files import plain, write_json
from dit.study.files import NAME, PREFIX
from dit.trust import TEXT, read_json
from dit.verbs.app import hydra_app

if TYPE_CHECKING:
    from dit.report.page import Report

ROWS = ("records.jsonl", NAME, PREFIX)
DATA = ("plan.json", *ROWS, "*.csv", *(f"runs/*/{name}" for name in (*ROWS, "status.json", "samples/*.png")))
MADE_FROM = "made_from.json"  # beside the page: the hash of its inputs, and the headline


def task(cfg: DictConfig) -> None:
    """Writes a study's report and prints its headline."""
    directory = study_config.study_directory(cfg)
    others = [Path(str(other)) for other in listed(cfg.compare)]
    out = Path(cfg.report_dir) if cfg.report_dir else directory / "report"
    wanted = cfg.logger._target_ is not None and (cfg.logger.project, cfg.logger.mode)
    refuse_unread(cfg)
    report = write(directory, out, others)
    if wanted:
        log_to_wandb(cfg, out, report)


app = hydra_app("report")(task)


def write(study: Path, out: Path, compare: Sequence[Path] = ()) -> "Report":
    """Writes the report of a study directory and prints the headline and the page's path."""
    from dit.report.page import format_headline, write_report

    inputs = _inputs(study)
    report = write_report(study, out, compare=compare)
    headline = format_headline(report.headline)
    # a page that compares is not the one that dit study asks for
    write_json(out / MADE_FROM, {"inputs": None if compare else inputs, "headline": headline})
    _say(headline, out)
    return report


def write_if_changed(study: Path, out: Path) -> "Report | None":
    """The same, but only says the headline again where records, plan and code are those of the page that is there.

    Returns:
        The report that was written; None where none was.
    """
    made_from = _made_from(out)
    if made_from.get("inputs") == _inputs(study) and (out / "report.html").is_file():
        _say(made_from["headline"], out)
        return None
    return write(study, out)


def _made_from(out: Path) -> dict[str, Any]:
    """The inputs of the page that is there; empty where there is no page, or where they are unknown."""
    try:
        return read_json(out / MADE_FROM, {"headline": TEXT}) or {}
    except InputError:
        return {}


def log_to_wandb(cfg: DictConfig, out: Path, report: "Report") -> None:
    """Logs the report that was written to ``out`` as the study's summary run, where W&B is the logger."""
    if cfg.logger._target_ is None:
        return
    from dit.training.wandb_sink import log_study

    said = log_study(
        cfg.logger.project,
        cfg.logger.mode,
        study=report.headline["study"],
        directory=out,
        numbers=_summary(report.headline),
        figures={file.stem: file for file in sorted(out.glob("*.png"))},
        # the values themselves: read back from CSV, a run named 1e5 would be a number
        tables={table.name: (table.columns, plain(table.rows)) for table in report.tables},
        page=out / "report.html",
    )
    print(said)


def _summary(headline: dict[str, Any]) -> dict[str, float]:
    """What of a headline stands in the summary of its W&B run."""
    numbers = {"runs": headline["runs"], "train_flops": headline["train_flops"]}
    for law, exponents in headline["exponents"].items():
        for x, one in (exponents or {}).items():
            if one["doubt"] is None:  # a summary has no place for a doubt beside its number
                numbers[f"{law}/exponent_{x}"] = one["value"]
    if headline["holdout"] is not None:
        numbers |= {f"holdout/{key}": headline["holdout"][key] for key in ("bias", "rms")}
    return numbers


def _say(headline: str, out: Path) -> None:
    print(headline)
    print(f"report: {out / 'report.html'}")


def _inputs(study: Path) -> str:
    """The hash of what a report is made from: plan, records, evaluations, states, pictures, and the code that reads.

    Names are hashed too: a page says which run a number is of, and which runs have no records.
    """
    package = Path(dit.__file__).parent
    code = [file for pattern in ("*.py", "*.j2", "*.csv") for file in package.rglob(pattern)]
    data = [file for pattern in (*DATA, "runs/*") for file in study.glob(pattern)]
    digest = hashlib.sha256()
    for file in (*sorted(code), *sorted(data)):
        name = file.relative_to(package if file.is_relative_to(package) else study)
        digest.update(hashlib.sha256(os.fsencode(name)).digest())
        digest.update(hashlib.sha256(_content(file)).digest())
    return digest.hexdigest()


def _content(file: Path) -> bytes:
    """The bytes of a file that a page depends on: of a status all but its heartbeat, of a folder none."""
    if file.is_dir():
        return b""
    if file.name != "status.json":
        return file.read_bytes()
    try:
        status = {key: value for key, value in (read_json(file) or {}).items() if key != "heartbeat"}
    except InputError:  # damaged: the page says it
        return file.read_bytes() if file.is_file() else b""
    return json.dumps(status, sort_keys=True).encode()
