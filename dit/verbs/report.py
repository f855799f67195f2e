"""``dit report``: the page, tables and figures of a study, from its records alone."""

from pathlib import Path

from omegaconf import DictConfig

from dit.verbs import building
from dit.verbs.app import hydra_app


def task(cfg: DictConfig) -> None:
    """Writes a study's report and prints its headline."""
    directory = Path(building.study_directory(cfg))
    write(directory, Path(cfg.report_dir) if cfg.report_dir else directory / "report")


app = hydra_app("report")(task)


def write(study: Path, out: Path) -> None:
    """Writes the report of a study directory and prints the headline and the page's path."""
    from dit.scaling.report.page import format_headline, write_report

    print(format_headline(write_report(study, out)))
    print(f"report: {out / 'report.html'}")
