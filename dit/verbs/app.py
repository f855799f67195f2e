"""What every verb shares: its Hydra app, its errors, and how it prints results."""

import functools
import json
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from dit import signals
from dit.config.given import of_this_command, unnoted
from dit.config.instantiation import config_dir
from dit.config.known import checked
from dit.config.networks import offer_networks
from dit.config.words import NAMES, PATHS
from dit.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INPUT,
    EXIT_RESUMABLE,
    InputError,
    RunError,
    Stopped,
    check_choice,
    check_name,
    disk_trouble,
    input_error,
    printable,
)
from dit.files import plain

log = logging.getLogger("dit")
LONGEST = 255  # bytes of a file's name, on every file system in use


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


def portable(error: Exception) -> Exception:
    """The user's mistake behind an error, the error itself if it is ours, or its text: a library's may not pickle."""
    mistake, trouble = input_error(error), disk_trouble(error)
    if mistake is not None:
        return mistake
    if type(error).__module__.startswith("dit."):
        return error
    return RunError(trouble) if trouble else RuntimeError(repr(error))


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


def explain(error: BaseException) -> int:
    """Says on stderr what went wrong, a user's mistake as one message, and returns the exit code."""
    if isinstance(error, (Stopped, KeyboardInterrupt, signals.Interrupted)):
        signals.leave_at_next()
        _say(str(error) if isinstance(error, Stopped) else "interrupted; the same command continues")
        return EXIT_RESUMABLE
    if isinstance(error, BrokenPipeError):  # whoever read our output has seen enough: dit ... | head
        _drop_output()
        return EXIT_FAILED
    # submitit's: SLURM refused the jobs, or one has died; the text says which, and how it ended
    if isinstance(error, RunError) or type(error).__module__.startswith("submitit."):
        print(f"dit: {printable(str(error))}", file=sys.stderr)
        return EXIT_FAILED
    message = input_message(error)
    if message is not None:
        _say(message)
        return EXIT_INPUT
    trouble = disk_trouble(error)
    if trouble is not None:
        _drop_output()
        print(f"dit: {trouble}", file=sys.stderr)
    else:
        traceback.print_exception(error)
    return EXIT_FAILED


def _drop_output() -> None:
    """Discards the output that is still to be printed: the interpreter would try once more when it exits."""
    with suppress(OSError, ValueError):  # ValueError: a stream that is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(message: str) -> None:
    """Prints what all ranks of a launcher have to say, once."""
    if os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0":
        print(f"dit: {printable(message)}", file=sys.stderr)


def input_message(error: BaseException) -> str | None:
    """The message for a mistake of the user's, or None where the error is not one."""
    mistake = input_error(error)
    if mistake is not None:
        return str(mistake)
    if isinstance(error, InstantiationException):
        return f"{error} See the signature in the source, or dit <verb> --cfg job for the keys in use."
    if isinstance(error, MissingMandatoryValue):
        key = str(error.full_key)
        return str(InputError(key, "(nothing)", "a value of your own", f"Set it: {key}=..."))
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        text = " ".join(str(error).split())
        return f"{text} (--cfg job shows the keys that exist, conf/ the choices of each group)"
    return None


def check_texts(cfg: DictConfig) -> None:
    """Refuses a number, a list and the like where a path or a name belongs."""
    for key in (*PATHS, *NAMES):
        value = OmegaConf.select(cfg, key)
        if value is not None and not isinstance(value, str):
            remedy = f"If that is its name, quote it twice: '{key}=\"{value}\"'."
            raise InputError(key, value, "text or null", remedy)
        if key in PATHS and any(len(os.fsencode(part)) > LONGEST for part in (value or "").split("/")):
            raise InputError(key, value, f"a path whose names have at most {LONGEST} bytes each")
    for key in ("run_name", "data.name", "study.name"):
        if OmegaConf.select(cfg, key) is not None:
            check_name(key, OmegaConf.select(cfg, key))
    if not (OmegaConf.select(cfg, "name") or "").isprintable():  # of a model, as in "DiT-XL/2"
        raise InputError("name", cfg.name, "a name on one line")
    if OmegaConf.select(cfg, "data.directory", default="") is None:
        raise InputError(
            "data.directory", None, "a directory", "Leave it out for the one named after the data."
        )


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
