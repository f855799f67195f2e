"""``dit train``: trains one network, from its newest checkpoint where there is one."""

import logging
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from dit.errors import InputError
from dit.rundir import RunDirectory
from dit.verbs import building
from dit.verbs.app import Stopped, hydra_app

log = logging.getLogger("dit")


def task(cfg: DictConfig) -> None:
    """Runs or resumes one training run."""
    _, config_hash = building.identity(cfg)
    path = Path(cfg.run_dir) if cfg.run_dir else Path("runs") / (cfg.run_name or f"train-{config_hash}")
    run_directory = RunDirectory(path, config_hash, OmegaConf.to_yaml(cfg, resolve=True))
    try:
        _train(cfg, config_hash, run_directory)
    finally:
        run_directory.close()


app = hydra_app("train")(task)


def _train(cfg: DictConfig, config_hash: str, run_directory: RunDirectory) -> None:
    status = run_directory.status()
    if status is not None and status["state"] == "done":
        log.info("%s is done already", run_directory.path)
        return
    handler = logging.FileHandler(run_directory.path / "log.txt")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    log.addHandler(handler)
    try:
        from dit.training.engine import train  # torch and Lightning: after everything cheap has been checked

        job = building.training_job(cfg, config_hash, run_directory)
        stopped_by = train(job, run_directory)
    except InputError:
        raise
    except BaseException as error:
        run_directory.write_status("failed", message=f"{type(error).__name__}: {error}")
        log.exception("failed")
        raise
    finally:
        log.removeHandler(handler)
        handler.close()
    if stopped_by:
        raise Stopped(
            f"stopped by {stopped_by} with a checkpoint; the same command resumes {run_directory.path}"
        )
    log.info("done: %s", run_directory.path)
