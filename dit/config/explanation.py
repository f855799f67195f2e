"""What a verb says of an error, and the exit code it ends with; and an error that travels between processes."""

import os
import sys
import traceback
from contextlib import suppress

from hydra.errors import HydraException, InstantiationException
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from dit import signals
from dit.errors import (
    EXIT_FAILED,
    EXIT_INPUT,
    EXIT_RESUMABLE,
    InputError,
    RunError,
    Stopped,
    disk_trouble,
    input_error,
    printable,
)


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


def portable(error: Exception) -> Exception:
    """The user's mistake behind an error, the error itself if it is ours, or its text: a library's may not pickle."""
    mistake, trouble = input_error(error), disk_trouble(error)
    if mistake is not None:
        return mistake
    if type(error).__module__.startswith("dit."):
        return error
    return RunError(trouble) if trouble else RuntimeError(repr(error))
