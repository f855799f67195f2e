"""The error a user can cause and the checks that raise it; the error of work that cannot go on; the exit codes.

Every message names the key, what it got, what is allowed and the remedy; the command line turns it into exit code 2
without a traceback. Imports nothing of ours, so that every layer may use it.
"""

import errno
import math
import os
import re
from collections.abc import Iterable, Iterator

# Exit codes of the command line: done, anything else, the user's input is wrong, stopped on request and resumable.
EXIT_DONE, EXIT_FAILED, EXIT_INPUT, EXIT_RESUMABLE = 0, 1, 2, 75


class InputError(ValueError):
    """The user's input is wrong: a value, a file or a combination.

    Args:
        key: the configuration key, option or file at fault, as the user would write it (``optimizer.lr``).
        got: the offending value.
        allowed: what would have been accepted, in words.
        remedy: what to do about it, where ``allowed`` does not say so already.
    """

    def __init__(self, key: str, got: object, allowed: str, remedy: str = "") -> None:
        self.key, self.got, self.allowed, self.remedy = key, got, allowed, remedy
        shown = got if isinstance(got, str) and got.startswith("(") else repr(got)
        found = "nothing was given" if got is None else f"got {shown}"
        super().__init__(printable(f"{key}: {found}; allowed: {allowed}." + (f" {remedy}" if remedy else "")))

    def __reduce__(self):
        # exceptions pickle by args alone, which would lose the four fields between processes
        return (InputError, (self.key, self.got, self.allowed, self.remedy))


def printable(text: str) -> str:
    """A text without what a terminal would obey, its lines kept: parts of it may be a stranger's."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign == "\n" else "?" for sign in text)


class Stopped(Exception):
    """The work was stopped on request and can be resumed by the same command."""


def input_error(error: BaseException | None) -> InputError | None:
    """The InputError behind an exception, through whatever was raised from it; None where there is none."""
    return next((found for found in _chain(error) if isinstance(found, InputError)), None)


def disk_trouble(error: BaseException | None) -> str | None:
    """The message of an error of a full or read-only disk; None for any other error."""
    for found in _chain(error):
        number = (
            found.errno if isinstance(found, OSError) and found.errno in _DISK else _number_in(str(found))
        )
        if number is not None:
            file = getattr(found, "filename", None)
            return f"{os.strerror(number)}{f': {file}' if file else ''}. {_DISK[number]}; the same command continues."
    return None


_ROOM, _ANOTHER = "Make room on the disk", "Choose another place, or mend this one"
_DISK = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _ROOM),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE), _ANOTHER),
}
# what libraries say instead of an OSError: safetensors and Arrow by the system's words, numpy and torch by their own
_WRITTEN_IN_PART = re.compile(
    r"\d+ requested and \d+ written|PytorchStreamWriter failed writing|unexpected pos \d+ vs \d+"
)


def _number_in(text: str) -> int | None:
    """The disk's trouble that a library's message names."""
    named = (number for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS) if os.strerror(number) in text)
    return next(named, errno.ENOSPC if _WRITTEN_IN_PART.search(text) else None)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, and what it was raised from."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        yield error
        seen.append(error)
        error = error.__cause__ or error.__context__


class RunError(RuntimeError):
    """Work that cannot go on though the input was right; its message says all, so no traceback is shown."""


def check_number(
    key: str,
    value: object,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    integer: bool = False,
) -> None:
    """Raises InputError unless ``value`` is a finite number within the bounds (low/high inclusive, above/below not)."""
    kind = "an integer" if integer else "a finite number"
    bounds = [
        f"{sign} {bound:g}"
        for sign, bound in ((">=", low), (">", above), ("<=", high), ("<", below))
        if bound is not None
    ]
    allowed = " ".join([kind, " and ".join(bounds)]).strip()
    wrong_type = isinstance(value, bool) or not isinstance(value, int if integer else (int, float))
    if wrong_type or not math.isfinite(value):  # type: ignore[arg-type]
        raise InputError(key, value, allowed)
    assert isinstance(value, (int, float))
    inside = (
        (low is None or value >= low)
        and (high is None or value <= high)
        and (above is None or value > above)
        and (below is None or value < below)
    )
    if not inside:
        raise InputError(key, value, allowed)


def check_choice(key: str, value: object, choices: Iterable[object]) -> None:
    """Raises InputError unless ``value`` is one of ``choices``."""
    choices = list(choices)
    if value not in choices:
        raise InputError(key, value, "one of " + ", ".join(str(choice) for choice in choices))


def check_name(key: str, value: object) -> None:
    """Raises InputError unless ``value`` can name one file or folder, a row of a table and a job.

    Any letters, blanks and signs will do; what uses a name quotes it.
    """
    allowed = (
        "a name: at most 200 bytes of text on one line, without / and not beginning with a dot or a minus"
    )
    if not isinstance(value, str) or not 0 < len(value.encode(errors="surrogateescape")) <= 200:
        raise InputError(key, value, allowed)
    if value[0] in ".-" or value != value.strip() or not value.isprintable() or "/" in value:
        raise InputError(key, value, allowed)
