"""``dit plan``: the runs that a study would make, and what they would cost."""

from typing import Any

from omegaconf import DictConfig

from dit.verbs import building
from dit.verbs.app import console, hydra_app, show


def task(cfg: DictConfig) -> None:
    """Prints the plan of a study."""
    show(building.plan(cfg, building.grid(cfg)).as_dict(), cfg.format, _print)


app = hydra_app("plan")(task)


def _print(plan: dict[str, Any]) -> None:
    from rich.table import Table

    budgets = plan["budgets_flops"]
    table = Table(title=f"study {plan['study']}: images at each budget", title_justify="left")
    for heading in (
        "run",
        "params",
        "MACs/image",
        *(f"{budget:.3g} FLOPs" for budget in budgets),
        "epochs",
        "hours",
    ):
        table.add_column(heading, justify="right")
    for run in plan["runs"]:
        images = {reading["budget_flops"]: f"{reading['images']:,}" for reading in run["readings"]}
        epochs = "-" if run["epochs"] is None else f"{run['epochs']:.1f}"
        table.add_row(
            run["name"],
            f"{run['n_params_total']:,}",
            f"{run['macs_per_image']:.3g}",
            *(images.get(budget, "") for budget in budgets),
            epochs,
            f"{run['hours']:.3g}",
        )
    console().print(table)
    console().print(
        f"total {plan['total_flops']:.3g} training FLOPs, {plan['total_hours']:.3g} hours of one job at an assumed "
        f"{plan['assumed_flops_per_second']:.3g} FLOP/s (study.flops_per_second); encoding and sampling not counted"
    )
    for warning in plan["warnings"]:
        console().print(f"warning: {warning}")
