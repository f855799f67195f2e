"""``dit evaluate``: sample metrics of a run's checkpoint, with the protocol beside every number."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from dit.errors import InputError
from dit.verbs.app import check_format, console, hydra_app, instantiate, show


def task(cfg: DictConfig) -> None:
    """Measures one checkpoint under every protocol of the configuration."""
    check_format(cfg.format)
    if cfg.run is None:
        raise InputError("run", None, "the directory of a run", "Name one: dit evaluate run=runs/...")
    if not cfg.evaluation.protocols:
        raise InputError(
            "evaluation", "(no protocols)", "a choice of conf/evaluation", "Add evaluation=digits."
        )
    from dit.verbs.loading import load_run  # torch from here on
    from dit.verbs.measuring import SampleMeasure, Yardstick

    hardware = instantiate(cfg.hardware)
    device = hardware.torch_device()
    loaded = load_run(cfg.run, cfg.weights, cfg.images_seen, device)
    loaded.cfg.evaluation = cfg.evaluation
    yardstick = Yardstick(loaded.cfg, device)
    moment = f"images-{loaded.images_seen:012d}"
    rows = []
    for name, protocol in cfg.evaluation.protocols.items():
        fields = SampleMeasure(yardstick, str(name), protocol, Path(cfg.run))(
            loaded.denoiser, moment, cfg.weights
        )
        rows.append({"name": name, "run": str(cfg.run), "images_seen": loaded.images_seen, **fields})
    show({"evaluations": rows}, cfg.format, _print)


app = hydra_app("evaluate")(task)


def _print(result: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(show_lines=True)
    for heading in ("protocol", "metric", "value", "made with"):
        table.add_column(heading)
    for row in result["evaluations"]:
        protocol = ", ".join(f"{key}={value}" for key, value in row["protocol"].items() if value is not None)
        for key, value in row.items():
            if isinstance(value, float):
                table.add_row(row["name"], key, f"{value:.6g}", protocol)
                protocol = '"'
    console().print(table)
