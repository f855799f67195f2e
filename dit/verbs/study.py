"""``dit study``: encode, plan, train what is missing, report. The same command continues where the last one ended.

The verb is ``dit train`` under the ``study`` sweeper (``hydra_plugins/dit_study``), which calls ``run`` here.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dit import signals
from dit.config import job as job_config
from dit.config import study as study_config
from dit.config.checks import check_planned
from dit.config.data import check_images
from dit.config.encoding import GROUPS, leaves
from dit.errors import EXIT_INPUT, EXIT_RESUMABLE, InputError, RunError, Stopped, check_number
from dit.files import remove_unfinished, write_json
from dit.launch import in_child
from dit.locks import Lock
from dit.overrides import override
from dit.rundir import make_directory
from dit.study.driver import Driver, Launcher
from dit.study.files import read_plan
from dit.study.launches import DRIVER_LOCK
from dit.study.ledger import Ledger
from dit.study.plan import Plan, PlannedRun
from dit.verbs import report, train
from dit.verbs.app import check_texts, hydra_app

__all__ = ["Launcher", "app", "run"]

log = logging.getLogger("dit")

app = hydra_app("study")(train.job)


def run(cfg: DictConfig, launcher: Launcher, choices: dict[str, Any]) -> None:
    """Runs a study to its report.

    Args:
        cfg: the configuration that its runs share.
        launcher: what turns lists of overrides into runs of ``dit train``.
        choices: the choice of each group of configuration files.
    """
    check_texts(cfg)
    grid = study_config.grid(cfg)
    check_planned(cfg)  # of every run, before any is launched
    check_number("study.retries", cfg.study.retries, low=0, integer=True)
    study_config.refuse_unused(cfg, study_config.plan(cfg, grid))  # before anything is encoded
    directory = make_directory("study.directory", study_config.study_directory(cfg))
    with _only_driver(directory):
        encode_if_missing(cfg, choices)
        plan = study_config.plan(cfg, grid)
        _write_plan(directory, job_config.identity(cfg), plan)
        for warning in plan.warnings:
            log.info("plan: %s", warning)
        ledger = Ledger(directory)
        jobs = {run.name: _overrides(ledger, run) for run in plan.all_runs}
        failed = Driver(grid.name, ledger, launcher, jobs, cfg.study.retries).run()
        if failed:
            reasons = "".join(f"\n  {name}: {reason}" for name, reason in failed.items())
            raise RunError(
                f"{len(failed)} of {len(jobs)} runs not done after {1 + cfg.study.retries} attempts; "
                f"their logs are {directory / 'runs'}/<run>/log.txt; the same command tries again{reasons}"
            )
        written = report.write_if_changed(directory, directory / "report")
        if written is not None:
            report.log_to_wandb(cfg, directory / "report", written)


def _overrides(ledger: Ledger, run: PlannedRun) -> list[str]:
    """What makes a planned run in this study's directory."""
    found = [*run.overrides(), override("run_dir", str(ledger.run_directory(run.name)))]
    if run.branch_of is None:
        return found
    checkpoint = f"checkpoints/images-{run.branch_images:012d}"
    return [*found, override("branch_from", str(ledger.run_directory(run.branch_of) / checkpoint))]


def encode_if_missing(cfg: DictConfig, choices: dict[str, Any]) -> None:
    """Encodes the study's data in a process of its own, unless the latents are there."""
    if (Path(cfg.data.directory) / "manifest.json").is_file():
        check_images(cfg)
        return
    log.info("encoding %s", cfg.data.directory)
    words = []
    for group in GROUPS:
        # every setting, since an experiment's file changes them too, and encode takes no experiment
        settings = leaves(group, OmegaConf.to_container(cfg[group], resolve=True))
        words += [f"{group}={choices[group]}", *(f"++{override(key, value)}" for key, value in settings)]
    code = in_child([sys.executable, "-m", "dit", "encode", *words])
    if code == EXIT_RESUMABLE or signals.stop_requested():
        raise Stopped("stopped while encoding; the same command continues the study")
    if code == EXIT_INPUT:
        raise SystemExit(code)  # it has said what is wrong
    if code:
        raise RunError(f"dit encode ended with exit code {code}")


def _write_plan(directory: Path, settings: str, plan: Plan) -> None:
    """Replaces the study's plan by one of the same settings; its grid may grow.

    Raises:
        InputError: the directory belongs to other settings, or a run has passed a budget that it now should be read at.
    """
    known = read_plan(directory)
    if known is not None:
        if known.get("settings") != settings:
            raise InputError(
                "study.directory",
                str(directory),
                "a new directory, or a study of these very settings (its grid may grow)",
                "Name another study.directory, or undo the change to continue.",
            )
        _check_growth(directory, known, plan)
    write_json(directory / "plan.json", {"settings": settings, **plan.as_dict()})


def _check_growth(directory: Path, known: dict[str, Any], plan: Plan) -> None:
    read_at = {run["name"]: {reading["images"] for reading in run["readings"]} for run in known["runs"]}
    for entry in Ledger(directory).entries():
        new = next((run for run in plan.runs if run.name == entry.name), None)
        for reading in new.readings if new else ():
            if reading.images <= entry.images_seen and reading.images not in read_at[entry.name]:
                raise InputError(
                    "study.budgets_flops",
                    reading.budget_flops,
                    f"budgets above {entry.images_seen} images of run {entry.name}, which it has seen already",
                    "A study grows upwards and sideways; for budgets in between name another study.directory.",
                )


@contextmanager
def _only_driver(directory: Path) -> Iterator[None]:
    """One driver per study at a time; the lock ends with the process, however it ends."""
    lock = Lock(directory / DRIVER_LOCK)
    try:
        if not lock.take():
            allowed = "a study that no other driver is running"
            raise InputError("study.directory", str(directory), allowed, "See dit status.")
        for folder in (directory, directory / "launches"):
            if folder.is_dir():
                remove_unfinished(folder)
        yield
    finally:
        lock.release()
