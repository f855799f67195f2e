"""``dit train``: trains one network, from its newest checkpoint where there is one."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from dit import signals
from dit.errors import EXIT_DONE, EXIT_RESUMABLE, InputError, RunError
from dit.launch import World, in_processes, part, same_everywhere
from dit.rundir import RunDirectory, is_done, make_directory
from dit.slurm import SlurmJob
from dit.verbs import building
from dit.verbs.app import Stopped, explain, hydra_app

if TYPE_CHECKING:
    from dit.training.engine import Job

log = logging.getLogger("dit")


def task(cfg: DictConfig) -> None:
    """Runs or resumes one training run, as one rank of the world that a launcher made, or starting the ranks itself."""
    signals.listen()  # again, for a launcher's process, whose own handlers are those of the launcher
    config_hash = building.identity(cfg)
    path = Path(cfg.run_dir) if cfg.run_dir else Path("runs") / (cfg.run_name or f"train-{config_hash}")
    if is_done(path, config_hash):
        log.info("%s is done already", path)
        return
    world = World.of_launcher()
    if world.size == 1 and cfg.hardware.processes > 1:
        _started(in_processes(cfg.hardware.processes, _rank, cfg), path)
        return
    if world.size > 1 and cfg.hardware.processes > 1:
        raise InputError(
            "hardware.processes", cfg.hardware.processes, f"1 where a launcher started {world.size} processes"
        )
    _run(cfg, config_hash, path, world)


app = hydra_app("train")(task)


def _rank(cfg: DictConfig) -> None:
    """One of the processes that ``dit train`` started itself."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        task(OmegaConf.merge(cfg, {"hardware": {"processes": 1}}))  # type: ignore[arg-type]
    except Exception as error:
        raise SystemExit(explain(error)) from error


def _started(code: int, path: Path) -> None:
    if code == EXIT_RESUMABLE:
        raise Stopped(f"stopped with a checkpoint; the same command resumes {path}")
    if code != EXIT_DONE:
        raise RunError(f"a process of the run ended with exit code {code}; see above, or {path / 'log.txt'}")


def _run(cfg: DictConfig, config_hash: str, path: Path, world: World) -> None:
    if world.rank:
        log.setLevel(logging.WARNING)  # what all of them do is said once
    make_directory("run_dir", path)
    job = building.training_job(
        cfg, config_hash, path, world
    )  # checks everything before the directory is taken
    run_directory = same_everywhere(world, lambda: _take(cfg, config_hash, path) if world.rank == 0 else None)
    try:
        stopped_by = _train(job, path, run_directory)
    finally:
        if run_directory is not None:
            run_directory.close()
    part()
    if stopped_by is None:
        log.info("done: %s", path)
        return
    if stopped_by == "superseded":
        raise Stopped(f"stopped without writing: a newer copy of this job has taken {path} over")
    slurm_job = SlurmJob.current()
    if stopped_by == "notice" and slurm_job is not None and world.rank == 0:
        slurm_job.requeue()
    raise Stopped(f"stopped by a {stopped_by} with a checkpoint; the same command resumes {path}")


def _take(cfg: DictConfig, config_hash: str, path: Path) -> RunDirectory:
    return RunDirectory(path, config_hash, OmegaConf.to_yaml(cfg, resolve=True), SlurmJob.current())


def _train(job: "Job", path: Path, run_directory: RunDirectory | None) -> str | None:
    from dit.training.engine import train

    if run_directory is None:
        return train(job, path, None)
    handler = logging.FileHandler(path / "log.txt")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    log.addHandler(handler)
    try:
        return train(job, path, run_directory)
    except BaseException as error:
        run_directory.write_status("failed", message=f"{type(error).__name__}: {error}")
        log.error("failed: %s", error)
        raise
    finally:
        log.removeHandler(handler)
        handler.close()
