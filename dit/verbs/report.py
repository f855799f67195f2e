"""``dit report``: the page, tables and figures of a study, from its records alone."""

import csv
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

import dit
from dit.config import study as study_config
from dit.config.given import refuse_unread
from dit.config.nodes import listed
from dit.errors import InputError
from dit.files import write_json
from dit.trust import TEXT, read_json
from dit.verbs.app import hydra_app

ROWS = ("records.jsonl", "evaluations.jsonl")
DATA = ("plan.json", *ROWS, "*.csv", *(f"runs/*/{name}" for name in (*ROWS, "status.json", "samples/*.png")))
MADE_FROM = "made_from.json"  # beside the page: the hash of its inputs, and the headline


def task(cfg: DictConfig) -> None:
    """Writes a study's report and prints its headline."""
    directory = study_config.study_directory(cfg)
    others = [Path(str(other)) for other in listed(cfg.compare)]
    out = Path(cfg.report_dir) if cfg.report_dir else directory / "report"
    wanted = cfg.logger._target_ is not None and (cfg.logger.project, cfg.logger.mode)
    refuse_unread(cfg)
    write(directory, out, others)
    if wanted:
        log_to_wandb(cfg, out)


app = hydra_app("report")(task)


def write(study: Path, out: Path, compare: Sequence[Path] = ()) -> None:
    """Writes the report of a study directory and prints the headline and the page's path."""
    from dit.report.page import format_headline, write_report

    inputs = _inputs(study)
    headline = format_headline(write_report(study, out, compare=compare))
    # a page that compares is not the one that dit study asks for
    write_json(out / MADE_FROM, {"inputs": None if compare else inputs, "headline": headline})
    _say(headline, out)


def write_if_changed(study: Path, out: Path) -> bool:
    """The same, but only says the headline again where records, plan and code are those of the page that is there.

    Returns:
        Whether a page was written.
    """
    made_from = _made_from(out)
    if made_from.get("inputs") == _inputs(study) and (out / "report.html").is_file():
        _say(made_from["headline"], out)
        return False
    write(study, out)
    return True


def _made_from(out: Path) -> dict[str, Any]:
    """The inputs of the page that is there; empty where there is no page, or where they are unknown."""
    try:
        return read_json(out / MADE_FROM, {"headline": TEXT}) or {}
    except InputError:
        return {}


def log_to_wandb(cfg: DictConfig, out: Path) -> None:
    """Logs the report in ``out`` as the study's summary run, where W&B is the logger."""
    if cfg.logger._target_ is None:
        return
    from dit.training.wandb_sink import log_study

    tables = {}
    for file in sorted(out.glob("*.csv")):
        with open(file, newline="", encoding="utf-8") as opened:
            columns, *rows = csv.reader(opened)
        tables[file.stem] = (columns, [[_cell(cell) for cell in row] for row in rows])
    headline = json.loads((out / "headline.json").read_text())
    said = log_study(
        cfg.logger.project,
        cfg.logger.mode,
        study=headline["study"],
        directory=out,
        numbers=_summary(headline),
        figures={file.stem: file for file in sorted(out.glob("*.png"))},
        tables=tables,
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


def _cell(text: str) -> float | str | None:
    """A cell of a CSV as what it was."""
    try:
        return float(text)
    except ValueError:
        return text or None


def _say(headline: str, out: Path) -> None:
    print(headline)
    print(f"report: {out / 'report.html'}")


def _inputs(study: Path) -> str:
    """The hash of what a report is made from: plan, records, evaluations, states, pictures, and the code that reads."""
    package = Path(dit.__file__).parent
    code = [file for pattern in ("*.py", "*.j2", "*.csv") for file in package.rglob(pattern)]
    data = [file for pattern in DATA for file in study.glob(pattern)]
    digest = hashlib.sha256()
    for file in (*sorted(code), *sorted(data)):
        content = _without_heartbeat(file) if file.name == "status.json" else file.read_bytes()
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def _without_heartbeat(file: Path) -> bytes:
    try:
        status = {key: value for key, value in (read_json(file) or {}).items() if key != "heartbeat"}
    except InputError:  # damaged: the page says it
        return file.read_bytes() if file.is_file() else b""
    return json.dumps(status, sort_keys=True).encode()
