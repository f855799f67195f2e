"""``dit bench train|sample|data``: throughput, MFU, memory and where the time goes."""

import logging
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dit.config.checks import check_run
from dit.config.explanation import explain
from dit.config.job import n_processes
from dit.config.parts import Parts
from dit.errors import EXIT_DONE, RunError, check_choice, check_number
from dit.launch import World, in_processes, part
from dit.verbs.app import check_format, console, hydra_app, show


def task(cfg: DictConfig) -> None:
    """Times one of the three, as one rank of the world that a launcher made, or starting the ranks itself."""
    world, processes = World.of_launcher(), n_processes(cfg)
    if world.size == 1 and processes > 1:
        code = in_processes(processes, _rank, cfg)
        if code != EXIT_DONE:
            raise RunError(f"a process of the benchmark ended with exit code {code}; see above")
        return
    check_format(cfg.format)
    check_run(Parts(cfg), whole=False)  # a benchmark is of the run that this command line would train
    check_choice("what", cfg.what, ("train", "sample", "data"))
    check_choice("latents", cfg.latents, ("synthetic", "data"))
    for key, low in (("steps", 1), ("warm_up", 0), ("batch_size", 1)):
        check_number(key, cfg[key], low=low, integer=True)
    from dit.config.bench import figures  # torch: after the cheap checks

    result = figures(cfg, world)
    if world.rank == 0:
        show(result, cfg.format, _print)
    part()


app = hydra_app("bench")(task)


def _rank(cfg: DictConfig) -> None:
    """One of the processes that ``dit bench`` started itself."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        task(OmegaConf.merge(cfg, {"hardware": {"processes": 1}}))  # type: ignore[arg-type]
    except Exception as error:
        raise SystemExit(explain(error)) from error


def _print(result: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table()
    table.add_column("what")
    table.add_column("value", justify="right")
    for name, value in result.items():
        for key, number in value.items() if isinstance(value, dict) else [("", value)]:
            shown = f"{number:.4g}" if isinstance(number, float) else str(number)
            table.add_row(f"{name} {key}".strip(), shown)
    console().print(table)
