"""``dit count``: what a network costs, without building it."""

from typing import Any

from omegaconf import DictConfig

from dit.condition import Classes
from dit.config.given import refuse_unread
from dit.config.instantiation import instantiate
from dit.config.parts import Parts, check_list
from dit.domain import Domain
from dit.network.counting import count_dict
from dit.verbs.app import check_format, console, hydra_app, show


def task(cfg: DictConfig) -> None:
    """Prints parameters, multiply-adds and memory of one network."""
    check_list("input_shape", cfg.input_shape)
    domain = Domain.of(list(cfg.input_shape))
    kind = Parts(cfg).conditions.kind(Classes(cfg.num_classes))
    result = count_dict(instantiate(cfg.network), domain, kind, cfg.out_channels, cfg.batch_size)
    check_format(cfg.format)
    refuse_unread(cfg)
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
                table.add_row(f"{name}: {part}", _number(number))
        else:
            table.add_row(name, _number(value))
    console().print(table)


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
