"""Hydra's ``study`` sweeper: the jobs of a sweep are the runs of a study's plan that are not done.

``dit train -m hydra/sweeper=study ...`` is what ``dit study ...`` does, on any launcher. Hydra accepts plugins from the
``hydra_plugins`` namespace alone, hence this folder; the work is done by ``dit.verbs.study``.
"""

import copy
from collections.abc import Sequence
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import configure_log
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write


class StudySweeper(Sweeper):
    """Plans, launches what is missing, and reports."""

    def __init__(self) -> None:
        self.config: DictConfig | None = None
        self.hydra_context: HydraContext | None = None
        self.task_function: TaskFunction | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context, self.task_function = config, hydra_context, task_function

    def sweep(self, arguments: list[str]) -> None:
        """Runs the study that the command line's overrides describe to its report."""
        from dit.config.given import note_given
        from dit.verbs import study  # here, because Hydra imports every plugin for every verb

        assert self.config is not None and self.hydra_context is not None
        cfg = self.hydra_context.config_loader.load_sweep_config(self.config, arguments)
        hydra_cfg = cfg.hydra
        configure_log(hydra_cfg.job_logging, hydra_cfg.verbose)
        OmegaConf.set_struct(cfg, False)
        del cfg["hydra"]
        note_given(cfg, arguments)

        def launch(name: str, jobs: Sequence[Sequence[str]]) -> Sequence[Any]:
            # what the study was told goes in front, so that a job's own settings win
            return self._launcher(name).launch([[*arguments, *job] for job in jobs], initial_job_idx=0)

        # submitit's jobs live on without us; those of other launchers end with this process
        target = str(self.config.hydra.launcher._target_)
        slurm, survives = target.endswith("SlurmLauncher"), "submitit" in target
        study.run(cfg, study.Launcher(launch, slurm, survives), dict(hydra_cfg.runtime.choices))

    def _launcher(self, name: str) -> Any:
        assert self.config is not None and self.hydra_context is not None and self.task_function is not None
        config = copy.deepcopy(self.config)
        with read_write(config), open_dict(config):
            # the study shows where its runs stand; their own lines go to their log.txt
            config.hydra.overrides.hydra.append("hydra.job_logging.handlers.console.level=WARNING")
            if "name" in config.hydra.launcher:
                config.hydra.launcher.name = name
        return Plugins.instance().instantiate_launcher(
            hydra_context=self.hydra_context, task_function=self.task_function, config=config
        )
