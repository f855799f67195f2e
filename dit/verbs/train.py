"""``dit train``: trains one network, from its newest checkpoint where there is one."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from dit.rundir import RunDirectory, is_done, make_directory
from dit.verbs import building
from dit.verbs.app import Stopped, hydra_app

if TYPE_CHECKING:
    from dit.training.engine import Job

log = logging.getLogger("dit")


def task(cfg: DictConfig) -> None:
    """Runs or resumes one training run."""
    config_hash = building.identity(cfg)
    path = Path(cfg.run_dir) if cfg.run_dir else Path("runs") / (cfg.run_name or f"train-{config_hash}")
    if is_done(path, config_hash):
        log.info("%s is done already", path)
        return
    make_directory("run_dir", path)
    job = building.training_job(
        cfg, config_hash, path
    )  # checks everything: a mistake leaves an empty directory
    run_directory = RunDirectory(path, config_hash, OmegaConf.to_yaml(cfg, resolve=True))
    handler = logging.FileHandler(path / "log.txt")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    log.addHandler(handler)
    try:
        stopped_by = _train(job, run_directory)
    finally:
        log.removeHandler(handler)
        handler.close()
        run_directory.close()
    if stopped_by:
        raise Stopped(f"stopped by {stopped_by} with a checkpoint; the same command resumes {path}")
    log.info("done: %s", path)


app = hydra_app("train")(task)


def _train(job: "Job", run_directory: RunDirectory) -> str | None:
    from dit.training.engine import train

    try:
        return train(job, run_directory)
    except BaseException as error:
        run_directory.write_status("failed", message=f"{type(error).__name__}: {error}")
        log.error("failed: %s", error)
        raise
