"""``dit train``: trains one network, from its newest checkpoint where there is one."""

import logging
from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from dit import signals
from dit.config import job as job_config
from dit.config.checks import check_averages, check_parts, check_run
from dit.config.encoding import require_latents
from dit.config.explanation import explain
from dit.config.files import to_yaml
from dit.config.parts import Parts
from dit.errors import EXIT_DONE, EXIT_INPUT, EXIT_RESUMABLE, InputError, RunError, Stopped
from dit.launch import World, in_processes, leave, part, same_everywhere
from dit.records import check_prefix, readings
from dit.rundir import is_done, make_directory, read_status
from dit.slurm import SlurmJob
from dit.verbs.app import hydra_app

log = logging.getLogger("dit")


def task(cfg: DictConfig) -> None:
    """Runs or resumes one training run, as one rank of the world that a launcher made, or starting the ranks itself."""
    parts = Parts(cfg)
    check_run(parts, whole=True)
    check_parts(parts)
    require_latents(cfg)
    config_hash = job_config.identity(parts)
    path = Path(cfg.run_dir) if cfg.run_dir else Path("runs") / (cfg.run_name or f"train-{config_hash}")
    read_at = [point.step * cfg.batch_size for point in parts.points]
    if is_done(path, config_hash) and _has_rows(path, read_at):
        log.info("%s is done already", path)
        return
    world, processes = World.of_launcher(), job_config.n_processes(cfg)
    check_averages(cfg, read_at[-1 if world.rank else 0], read_at[-1])  # what is only doubtful is said once
    if world.size == 1 and processes > 1:
        _started(in_processes(processes, _rank, cfg), path)
        return
    if world.size > 1 and processes > 1:
        raise InputError(
            "hardware.processes", processes, f"1 where a launcher started {world.size} processes"
        )
    _run(parts, config_hash, path, read_at, world)


def _has_rows(path: Path, read_at: Iterable[int]) -> bool:
    """Whether a finished run was read at all these images; raises InputError where its records were changed."""
    known, records = (read_status(path) or {}).get("records"), path / "records.jsonl"
    return (known is None or check_prefix(records, known)) and readings(records).issuperset(read_at)


def job(cfg: DictConfig) -> None:
    """The same in a process of any launcher, which has come with handlers of its own."""
    signals.listen()
    task(cfg)


app = hydra_app("train")(job)


def _rank(cfg: DictConfig) -> None:
    """One of the processes that ``dit train`` started itself."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    code = EXIT_DONE
    try:
        task(OmegaConf.merge(cfg, {"hardware": {"processes": 1}}))  # type: ignore[arg-type]
    except (Exception, signals.Interrupted) as error:
        code = explain(error)
    leave(code)


def _started(code: int, path: Path) -> None:
    if code == EXIT_INPUT:
        raise SystemExit(code)  # rank 0 has said what is wrong
    if code == EXIT_RESUMABLE:
        raise Stopped(f"stopped with a checkpoint; the same command resumes {path}")
    if code != EXIT_DONE:
        raise RunError(f"a process of the run ended with exit code {code}; see above, or {path / 'log.txt'}")


def _run(parts: Parts, config_hash: str, path: Path, read_at: list[int], world: World) -> None:
    from dit.training.directory import removed, take, train_in  # torch, which a study's driver never needs

    if world.rank:
        log.setLevel(logging.WARNING)  # what all of them do is said once
    make_directory("run_dir", path)
    # checks everything before the directory is taken
    job = job_config.training_job(parts, config_hash, path, world)
    run_directory = same_everywhere(
        world, lambda: take(path, config_hash, to_yaml(parts.cfg), read_at) if world.rank == 0 else None
    )
    try:
        stopped_by = train_in(path, job, run_directory)
    finally:
        if run_directory is not None:
            run_directory.close()
    part()
    if stopped_by is None:
        log.info("done: %s", path)
        return
    if stopped_by == "superseded":
        raise Stopped(f"stopped without writing: a newer copy of this job has taken {path} over")
    if stopped_by == "removed":
        raise removed(path)
    slurm_job = SlurmJob.current()
    if stopped_by == "notice" and slurm_job is not None and world.rank == 0:
        slurm_job.requeue()
    raise Stopped(f"stopped by a {stopped_by} with a checkpoint; the same command resumes {path}")
