"""What every verb shares: its Hydra app, its errors, and how it prints results."""

import functools
import json
import logging
import sys
import warnings
from collections.abc import Callable
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from dit import signals
from dit.config.explanation import explain, portable
from dit.config.given import of_this_command, unnoted
from dit.config.instantiation import config_dir
from dit.config.known import checked
from dit.config.networks import offer_networks
from dit.config.texts import check_texts
from dit.errors import EXIT_DONE, EXIT_FAILED, Stopped, check_choice
from dit.files import plain

log = logging.getLogger("dit")


def hydra_app(config_name: str) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Decorates a verb's task so that calling it composes ``conf/<config_name>.yaml`` with the command line."""
    offer_networks()

    def decorate(task: Callable[[DictConfig], None]) -> Callable[[], None]:
        main = hydra.main(config_path=config_dir(), config_name=config_name, version_base="1.3")
        composed = main(_Guarded(task))

        def app() -> None:
            sys.argv[1:] = checked(sys.argv[1:], config_name, config_dir())
            composed()

        return app

    return decorate


class _Guarded:
    """A task that explains its errors before Hydra sees them, which would print a line of its own.

    Warnings are log lines of their text alone: the line of our code that gave one is no news to a user.

    In a sweep a job's error goes back to the launcher instead, as one that can travel between processes, so that it
    ends neither the other jobs nor the launcher's worker; a job that was stopped ends its process with that exit code.

    A class rather than a closure, so that a launcher can send it to other processes.
    """

    def __init__(self, task: Callable[[DictConfig], None]) -> None:
        functools.update_wrapper(self, task)
        self.task = task

    def __call__(self, cfg: DictConfig) -> None:
        # not catch_warnings, which would take back the filters of modules that are imported meanwhile
        shown, warnings.showwarning = warnings.showwarning, lambda message, *_: log.warning("%s", message)
        try:
            of_this_command(cfg)
            with unnoted():
                check_texts(cfg)
            self.task(cfg)
        except Exception as error:
            if isinstance(error, Stopped) or HydraConfig.get().mode is not RunMode.MULTIRUN:
                sys.exit(explain(error))
            raise portable(error) from error
        finally:
            warnings.showwarning = shown


def run(app: Callable[[], None]) -> int:
    """Runs a Hydra app and returns the exit code."""
    try:
        app()
        sys.stdout.flush()  # a full disk is found here, not in the interpreter's own way out
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else EXIT_FAILED
    except (Exception, KeyboardInterrupt, signals.Interrupted) as error:
        return explain(error)
    return EXIT_DONE


def check_format(format: str) -> None:
    """Refuses a form of output that there is not, before any work."""
    check_choice("format", format, ("table", "json"))


def show(result: dict[str, Any], format: str, table: Callable[[dict[str, Any]], None]) -> None:
    """Prints a result as one JSON document, or as the verb's table."""
    check_format(format)
    if format == "json":
        print(json.dumps(plain(result), indent=2, allow_nan=False))
    else:
        table(result)


@functools.cache
def console() -> Any:
    """The console that tables are printed on."""
    from rich.console import Console

    return Console()
