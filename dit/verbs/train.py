"""``dit train``: trains one network, from its newest checkpoint where there is one."""

import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from dit import signals
from dit.columns import PrintableFormatter
from dit.config import job as job_config
from dit.config.checks import check_averages, check_parts, check_run
from dit.config.encoding import require_latents
from dit.config.files import to_yaml
from dit.errors import EXIT_DONE, EXIT_INPUT, EXIT_RESUMABLE, InputError, RunError, Stopped
from dit.launch import World, in_processes, leave, part, same_everywhere
from dit.records import check_prefix, readings
from dit.rundir import RunDirectory, is_done, make_directory, read_status
from dit.slurm import SlurmJob
from dit.verbs.app import explain, hydra_app

if TYPE_CHECKING:
    from dit.training.job import Job

log = logging.getLogger("dit")


def task(cfg: DictConfig) -> None:
    """Runs or resumes one training run, as one rank of the world that a launcher made, or starting the ranks itself."""
    check_run(cfg, duration=True)
    check_parts(cfg)
    require_latents(cfg)
    config_hash = job_config.identity(cfg)
    path = Path(cfg.run_dir) if cfg.run_dir else Path("runs") / (cfg.run_name or f"train-{config_hash}")
    read_at = [point.step * cfg.batch_size for point in job_config.read_points(cfg)]
    if (
        is_done(path, config_hash)
        and _has_rows(path)
        and readings(path / "records.jsonl").issuperset(read_at)
    ):
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
    _run(cfg, config_hash, path, read_at, world)


def _has_rows(path: Path) -> bool:
    """Whether the records of a finished run are those that it wrote; changed ones are an error."""
    known = (read_status(path) or {}).get("records")
    return known is None or check_prefix(path / "records.jsonl", known)


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


def _run(cfg: DictConfig, config_hash: str, path: Path, read_at: list[int], world: World) -> None:
    if world.rank:
        log.setLevel(logging.WARNING)  # what all of them do is said once
    make_directory("run_dir", path)
    job = job_config.training_job(
        cfg, config_hash, path, world
    )  # checks everything before the directory is taken
    run_directory = same_everywhere(
        world, lambda: _take(cfg, config_hash, path, read_at) if world.rank == 0 else None
    )
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
    if stopped_by == "removed":
        raise _removed(path)
    slurm_job = SlurmJob.current()
    if stopped_by == "notice" and slurm_job is not None and world.rank == 0:
        slurm_job.requeue()
    raise Stopped(f"stopped by a {stopped_by} with a checkpoint; the same command resumes {path}")


def _take(cfg: DictConfig, config_hash: str, path: Path, read_at: list[int]) -> RunDirectory:
    """The directory, held by this process.

    Raises:
        InputError: another has it; or its run has passed a point without the reading that is now asked for there.
    """
    from dit.training.checkpoint import clock
    from dit.training.saving import CheckpointManager

    directory = RunDirectory(path, config_hash, to_yaml(cfg), SlurmJob.current())
    # what is due at the clock of the checkpoint that it goes on from, and was not measured, is measured then
    seen = max(map(clock, CheckpointManager(path / "checkpoints").directories()), default=0)
    passed = [
        images for images in read_at if images < seen and images not in readings(path / "records.jsonl")
    ]
    if passed:
        directory.close()
        raise InputError(
            "duration, read_at_flops",
            f"({passed[0]} images)",
            f"readings beyond the {seen} images that {path} has seen",
            "A run that exists can only be made longer; for readings in between name another run_dir.",
        )
    return directory


def _train(job: "Job", path: Path, run_directory: RunDirectory | None) -> str | None:
    from dit.training.engine import train

    if run_directory is None:
        return train(job, path, None)
    handler = _LogFile(path / "log.txt")
    handler.setFormatter(PrintableFormatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    log.addHandler(handler)
    try:
        return train(job, path, run_directory)
    except BaseException as error:
        known = run_directory.status() or {}
        clock = {key: known[key] for key in ("images_seen", "step", "total_images") if key in known}
        if isinstance(error, (KeyboardInterrupt, signals.Interrupted)):
            run_directory.write_status("stopped", **clock)
            raise Stopped(
                f"stopped at once, without a checkpoint; the same command resumes {path}"
            ) from error
        if run_directory.lost_by() == "removed":
            raise _removed(path) from error
        run_directory.write_status("failed", message=f"{type(error).__name__}: {error}", **clock)
        log.error("failed: %s", error)
        raise
    finally:
        log.removeHandler(handler)
        with suppress(OSError):
            handler.close()


def _removed(path: Path) -> RunError:
    return RunError(f"{path} was removed, or emptied, while its run went on: there is nothing to continue")


class _LogFile(logging.FileHandler):
    """Lines for people: one that a full disk does not take ends no run, and what matters meets that disk as well."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass
