"""``dit study``: encode, plan, train what is missing, report. The same command continues where the last one ended.

The verb is ``dit train`` under the ``study`` sweeper (``hydra_plugins/dit_study``), which calls ``run`` here.
"""

import logging
import shlex
from typing import Any

from omegaconf import DictConfig

from dit.config import job as job_config
from dit.config import study as study_config
from dit.config.checks import check_planned
from dit.config.encoding import encode_if_missing
from dit.config.loggers import log_to_wandb
from dit.config.parts import Parts
from dit.config.texts import check_texts
from dit.errors import InputError, RunError, check_number
from dit.overrides import override
from dit.report.output import write_if_changed
from dit.rundir import make_directory
from dit.study.directory import only_driver, replace_plan
from dit.study.driver import Driver, Launcher
from dit.study.ledger import Ledger
from dit.study.plan import PlannedRun
from dit.verbs import train
from dit.verbs.app import hydra_app

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
    if cfg.study.hours is not None:
        remedy = "dit plan says the budgets that fill the hours: give study.budgets_flops, so that the study may grow."
        raise InputError("study.hours", cfg.study.hours, "null in a study", remedy)
    grid = study_config.grid(cfg)
    parts = Parts(cfg)
    check_planned(parts)  # of every run, before any is launched
    check_number("study.retries", cfg.study.retries, low=0, integer=True)
    plan = study_config.plan(parts, grid)
    study_config.refuse_unused(cfg, plan)  # before anything is encoded
    directory = make_directory("study.directory", study_config.study_directory(cfg))
    with only_driver(directory):
        if encode_if_missing(parts, choices):
            parts = Parts(cfg)  # of the data that now are there
            plan = study_config.plan(parts, grid)
        replace_plan(directory, job_config.identity(parts), plan)
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
        if grid.rates:  # no points of one law
            print(shlex.join(["dit", "fit", f"data={directory}", "law=tuning"]))
            return
        written = write_if_changed(directory, directory / "report")
        if written is not None:
            log_to_wandb(cfg, directory / "report", written)


def _overrides(ledger: Ledger, run: PlannedRun) -> list[str]:
    """What makes a planned run in this study's directory."""
    found = [*run.overrides(), override("run_dir", str(ledger.run_directory(run.name)))]
    if run.branch_of is None:
        return found
    checkpoint = f"checkpoints/images-{run.branch_images:012d}"
    return [*found, override("branch_from", str(ledger.run_directory(run.branch_of) / checkpoint))]
