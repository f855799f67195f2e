"""Hydra's ``local`` launcher: the jobs of a sweep on this machine, a few at a time.

Hydra accepts plugins from the ``hydra_plugins`` namespace alone, hence this folder. Each worker process runs one job
after another, so the seconds that torch takes to import are paid once per worker, and dies with the driver: after a
``kill -9`` of the driver no orphan goes on writing.
"""

import os
import signal
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from multiprocessing import get_context, resource_tracker

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from dit import signals
from dit.config.explanation import portable
from dit.launch import begin_child, tell


class LocalLauncher(Launcher):
    """Runs jobs in a pool of processes.

    Args:
        jobs: how many at a time; null is one per core.
    """

    def __init__(self, jobs: int | None = None) -> None:
        self.jobs = jobs or os.cpu_count() or 1
        self.config: DictConfig | None = None
        self.hydra_context: HydraContext | None = None
        self.task_function: TaskFunction | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context, self.task_function = config, hydra_context, task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs every job and returns what became of each; a job that fails, or whose worker dies, stops no other.

        A stop signal is passed on to the workers, which end their jobs with a checkpoint; jobs not begun are dropped.
        """
        setup_globals()
        assert self.config is not None and self.hydra_context is not None and self.task_function is not None
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        with ProcessPoolExecutor(
            max_workers=min(self.jobs, len(job_overrides)),
            mp_context=get_context("spawn"),
            initializer=_begin_worker,
        ) as pool:
            arguments = (self.hydra_context, self.config, self.task_function)
            # a signal waits for a worker that does not listen yet; the tracker's start would undo that
            resource_tracker.ensure_running()
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals.STOP_SIGNALS)
            futures = [
                pool.submit(_run, index, list(overrides), *arguments)
                for index, overrides in enumerate(job_overrides, initial_job_idx)
            ]
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            _wait(pool, futures)
        return [_outcome(future) for future in futures]


def _begin_worker() -> None:
    begin_child()
    signals.listen(interrupted=False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.STOP_SIGNALS)
    # numpy and torch read it when they are imported; a run sets its own number of threads after that
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def _run(
    index: int,
    overrides: list[str],
    hydra_context: HydraContext,
    config: DictConfig,
    task_function: TaskFunction,
) -> JobReturn:
    try:
        if signals.stop_requested():  # the pool hands out a job before its worker is free
            return JobReturn(status=JobStatus.UNKNOWN)
        return _train(index, overrides, hydra_context, config, task_function)
    except Exception as error:
        return _failed(portable(error))
    finally:
        signals.listen(interrupted=False)


def _train(
    index: int,
    overrides: list[str],
    hydra_context: HydraContext,
    config: DictConfig,
    task_function: TaskFunction,
) -> JobReturn:
    setup_globals()
    Plugins.instance()  # finds the config sources, as in a fresh driver
    job_config = hydra_context.config_loader.load_sweep_config(config, overrides)
    with open_dict(job_config):
        job_config.hydra.job.id = f"job-{index}"
        job_config.hydra.job.num = index
    OmegaConf.set_readonly(job_config.hydra, None)
    result = run_job(
        hydra_context=hydra_context,
        task_function=task_function,
        config=job_config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    # configurations of plugins do not always pickle, and nobody reads them
    result.cfg = result.hydra_cfg = None
    return result


def _wait(pool: ProcessPoolExecutor, futures: Sequence[Future[JobReturn]]) -> None:
    told: set[int] = set()
    while wait(futures, timeout=0.3).not_done:
        if not signals.stop_requested():
            continue
        for future in futures:
            future.cancel()
        now = signals.received().count(signal.SIGINT) > 1
        if (number := signals.NOW if now else signal.SIGTERM) not in told:
            told.add(number)
            tell((pool._processes or {}).values(), number)


def _outcome(future: "Future[JobReturn]") -> JobReturn:
    if future.cancelled():
        return JobReturn(status=JobStatus.UNKNOWN)
    error = future.exception()
    return future.result() if error is None else _failed(error)


def _failed(error: BaseException) -> JobReturn:
    result = JobReturn(status=JobStatus.FAILED)
    result.return_value = error
    return result
