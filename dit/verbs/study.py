"""``dit study``: encode, plan, train what is missing, report. The same command continues where the last one ended."""

import fcntl
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from dit import signals
from dit.errors import InputError, RunError
from dit.rundir import make_directory, read_json, write_json
from dit.verbs import building, report, train
from dit.verbs.app import Stopped, config_dir, hydra_app

log = logging.getLogger("dit")


def task(cfg: DictConfig) -> None:
    """Runs a study to its report."""
    from dit.scaling.ledger import Ledger

    grid = building.grid(cfg)
    directory = make_directory("study.directory", Path(building.study_directory(cfg)))
    with _only_driver(directory):
        encode_if_missing(cfg)
        plan = building.plan(cfg, grid)
        settings = building.identity(cfg)
        known = read_json(directory / "plan.json")
        if known is not None and known["settings"] != settings:
            raise InputError(
                "study.directory",
                str(directory),
                "a new directory, or a study of these very settings (its grid may grow)",
                "Name another study.directory, or undo the change to continue.",
            )
        write_json(directory / "plan.json", {"settings": settings, **plan.as_dict()})
        for warning in plan.warnings:
            log.info("plan: %s", warning)
        ledger = Ledger(directory)
        for attempt in range(1 + cfg.study.retries):
            missing = [run for run in plan.runs if not ledger.is_done(run.name)]
            if not missing:
                break
            if attempt:
                log.info("retrying %s", ", ".join(run.name for run in missing))
            missing.sort(
                key=lambda run: -run.readings[-1].budget_flops
            )  # longest first: the workers end together
            with _watch(ledger):
                launch(
                    cfg, [[*run.overrides(), f"run_dir={ledger.run_directory(run.name)}"] for run in missing]
                )
            if signals.stop_requested():
                raise Stopped("stopped on request; the same command continues the study")
        failed = [run.name for run in plan.runs if not ledger.is_done(run.name)]
        if failed:
            raise RunError(
                f"runs not done after {1 + cfg.study.retries} attempts: {', '.join(failed)}; "
                f"see log.txt in {directory / 'runs'}/<run>, or dit status study.directory={directory}"
            )
        report.write_if_changed(directory, directory / "report")


app = hydra_app("study")(task)


def launch(cfg: DictConfig, jobs: list[list[str]]) -> None:
    """Runs ``dit train`` once per list of overrides, through whichever Hydra launcher is chosen."""
    hydra_cfg = HydraConfig.get()
    # the study shows where its runs stand; their own lines go to their log.txt
    quiet = "hydra.job_logging.handlers.console.level=WARNING"
    overrides = [*hydra_cfg.overrides.task, *_launcher_overrides(hydra_cfg), quiet]
    loader = ConfigLoaderImpl(create_config_search_path(config_dir()))
    train_config = loader.load_configuration("train", overrides=overrides, run_mode=RunMode.MULTIRUN)
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=HydraContext(config_loader=loader, callbacks=_no_callbacks()),
        task_function=train.task,
        config=train_config,
    )
    # what the study was told goes in front, so that a job's own settings win
    for result in launcher.launch([[*hydra_cfg.overrides.task, *job] for job in jobs], initial_job_idx=0):
        _log_failure(result)


def encode_if_missing(cfg: DictConfig) -> None:
    """Encodes the study's data in a process of its own, unless the latents are there."""
    if (Path(cfg.data.directory) / "manifest.json").is_file():
        return
    log.info("encoding %s", cfg.data.directory)
    groups = [
        item
        for item in HydraConfig.get().overrides.task
        if item.split("=")[0].lstrip("+") in ("data", "autoencoder")
    ]
    nested = [item for item in HydraConfig.get().overrides.task if item.startswith(("data.", "autoencoder."))]
    choices = HydraConfig.get().runtime.choices
    chosen = [f"{group}={choices[group]}" for group in ("data", "autoencoder")]
    command = [
        sys.executable,
        "-m",
        "dit",
        "encode",
        *chosen,
        *(item for item in nested if item not in groups),
    ]
    code = subprocess.run(command).returncode
    if code == 75 or signals.stop_requested():
        raise Stopped("stopped while encoding; the same command continues the study")
    if code:
        raise RunError(f"dit encode ended with exit code {code}")


def _launcher_overrides(hydra_cfg: Any) -> list[str]:
    chosen = hydra_cfg.runtime.choices["hydra/launcher"]
    settings = [
        item for item in hydra_cfg.overrides.hydra if "hydra.launcher." in item or "hydra.sweep" in item
    ]
    return [f"hydra/launcher={chosen}", *settings]


def _no_callbacks() -> Any:
    from hydra._internal.callbacks import Callbacks

    return Callbacks()


def _log_failure(result: Any) -> None:
    from hydra.core.utils import JobStatus

    if result.status is JobStatus.FAILED:
        error = result._return_value
        if isinstance(error, InputError):
            raise error  # the same for every run, and trying again would not mend it
        if not isinstance(error, Stopped):
            log.error("a run failed: %s", error)


@contextmanager
def _only_driver(directory: Path) -> Iterator[None]:
    """One driver per study at a time; the lock ends with the process, however it ends."""
    with (directory / ".driver.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                "study.directory",
                str(directory),
                "a study that no other driver is running",
                "See dit status.",
            ) from error
        yield


@contextmanager
def _watch(ledger: Any) -> Iterator[None]:
    """Shows where the runs stand while the launcher blocks."""
    from dit.verbs.status import watch

    stop = threading.Event()
    thread = threading.Thread(target=watch, args=(ledger, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
