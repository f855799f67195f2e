"""Where rows go besides the disk, as a configuration says; and the report of a study as a run of W&B's."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from dit.files import plain

if TYPE_CHECKING:
    from dit.report.page import Report


def log_to_wandb(cfg: DictConfig, out: Path, report: "Report") -> None:
    """Logs the report that was written to ``out`` as the study's summary run, where W&B is the logger."""
    if cfg.logger._target_ is None:
        return
    from dit.training.wandb_sink import log_study

    said = log_study(
        cfg.logger.project,
        cfg.logger.mode,
        study=report.headline["study"],
        directory=out,
        numbers=_summary(report.headline),
        figures={file.stem: file for file in sorted(out.glob("*.png"))},
        # the values themselves: read back from CSV, a run named 1e5 would be a number
        tables={table.name: (table.columns, plain(table.rows)) for table in report.tables},
        page=out / "report.html",
    )
    print(said)


def _summary(headline: dict[str, Any]) -> dict[str, float]:
    """What of a headline stands in the summary of its W&B run."""
    numbers = {"runs": headline["runs"], "train_flops": headline["train_flops"]}
    for law, exponents in headline["exponents"].items():
        for x, one in (exponents or {}).items():
            if one["doubt"] is None:  # a summary has no place for a doubt beside its number
                numbers[f"{law}/exponent_{x}"] = one["value"]
    if headline["holdout"] is not None:
        numbers |= {f"holdout/{key}": headline["holdout"][key] for key in ("bias", "rms")}
    return numbers
