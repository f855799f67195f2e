"""``dit count``: what a network costs, without building it."""

from typing import Any

from omegaconf import DictConfig

from dit.network.counting import activation_bytes, count
from dit.verbs.app import console, hydra_app, instantiate, show


def task(cfg: DictConfig) -> None:
    """Prints parameters, multiply-adds and memory of one network."""
    network, shape = instantiate(cfg.network), tuple(cfg.input_shape)
    result = count(network, shape, cfg.num_classes, cfg.out_channels).as_dict()
    result["activation_bytes"] = {
        "batch_size": cfg.batch_size,
        "bytes_per_element": cfg.bytes_per_element,
        "total": activation_bytes(network, shape, cfg.num_classes, cfg.batch_size, cfg.bytes_per_element),
    }
    show(result, cfg.format, _print)


app = hydra_app("count")(task)


def _print(result: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table()
    table.add_column("what")
    table.add_column("count", justify="right")
    for name, value in result.items():
        if isinstance(value, dict):
            for part, number in value.items():
                table.add_row(f"{name}: {part}", f"{number:,}")
        else:
            table.add_row(name, f"{value:,}")
    console().print(table)
