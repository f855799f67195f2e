"""``dit report``: the page, tables and figures of a study, from its records alone."""

from pathlib import Path

from omegaconf import DictConfig

from dit.config import study as study_config
from dit.config.given import refuse_unread
from dit.config.loggers import log_to_wandb
from dit.config.nodes import listed
from dit.report.output import write
from dit.verbs.app import hydra_app


def task(cfg: DictConfig) -> None:
    """Writes a study's report and prints its headline."""
    directory = study_config.study_directory(cfg)
    others = [Path(str(other)) for other in listed(cfg.compare)]
    out = Path(cfg.report_dir) if cfg.report_dir else directory / "report"
    wanted = cfg.logger._target_ is not None and (cfg.logger.project, cfg.logger.mode)
    refuse_unread(cfg)
    report = write(directory, out, others)
    if wanted:
        log_to_wandb(cfg, out, report)


app = hydra_app("report")(task)
