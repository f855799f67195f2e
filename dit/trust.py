"""Files that a stranger wrote or a disk damaged: each is checked, and an error is one message.

A **seal** is the hash of what a JSON object holds, kept in it under ``seal``. A reader
removes it and compares: a changed digit is an error, not a number. An object without a seal is read as it is, so a
person may change one on purpose and remove the seal. Standard library only.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dit.errors import InputError

SEAL = "seal"
CHANGED = (
    "The disk damaged it, or it was changed by hand: restore it, or, if that was on purpose, remove its seal."
)
NUMBER, INTEGER, TEXT, LIST, OBJECT, NULL = (int, float), (int,), (str,), (list,), (dict,), type(None)
MOST_PIXELS, MOST_BYTES = 2**26, 2**26  # of a picture of samples; ours have about 2**20
Fields = Mapping[str, tuple[type, ...]]
_WORDS = {
    int: "an integer",
    float: "a number",
    str: "text",
    bool: "true or false",
    list: "a list",
    dict: "an object",
    NULL: "null",
}


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with its seal."""
    plain = json.loads(json.dumps({key: one for key, one in value.items() if key != SEAL}))
    return {**plain, SEAL: _seal(plain)}


def _seal(value: dict[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def parse(text: bytes | str, where: str, remedy: str = "") -> Any:
    """The value of a JSON text; an object without its seal.

    Args:
        text: of the file or line.
        where: what messages call it.
        remedy: what to do about a damaged one.

    Raises:
        InputError: it is no JSON, or not what was sealed.
    """
    try:
        text = text.decode() if isinstance(text, bytes) else text
        value = json.loads(text, parse_int=_integer, parse_float=_finite, parse_constant=_finite)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(
                value, ensure_ascii=False
            ).encode()  # halves of pairs are no text that could be written
    except (ValueError, RecursionError) as error:  # no JSON, no text at all, or brackets without end
        raise InputError(where, f"(no JSON: {error})", "JSON as dit writes it", remedy) from error
    if isinstance(value, dict) and SEAL in value and value.pop(SEAL) != _seal(value):
        raise InputError(where, "(not what was written: its seal differs)", "JSON as dit wrote it", CHANGED)
    return value


def _integer(digits: str) -> int:
    """A whole number that arrays can hold: others end in tracebacks wherever they are computed with."""
    if len(digits) > 20 or not -(2**63) <= (value := int(digits)) < 2**63:
        raise ValueError(f"the whole number {digits[:24]} is beyond 64 bits")
    return value


def _finite(digits: str) -> float:
    """A number that is one: what is not finite stands as null in files of dit."""
    if not math.isfinite(value := float(digits)):
        raise ValueError(f"{digits[:24]} is no finite number")
    return value


def read_json(path: Path, needs: Fields = {}, may: Fields = {}) -> Any:  # noqa: B006 - never changed
    """The object in a JSON file, or None where there is no such file.

    Args:
        path: the file.
        needs: fields that it must have, and their types.
        may: fields that it may lack.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(str(path), f"({error.strerror})", "a file that can be read") from error
    value = parse(text, str(path))
    if not isinstance(value, dict):
        raise InputError(str(path), f"({_word(type(value))})", "a JSON object as dit writes it")
    check_fields(str(path), value, needs, may)
    return value


def check_fields(where: str, value: Mapping[str, Any], needs: Fields, may: Fields = {}) -> None:  # noqa: B006
    """Raises InputError where a field is missing or of another type."""
    for name, types in {**may, **needs}.items():
        if name not in value:
            if name in needs:
                raise InputError(f"{where}: {name}", "(nothing)", f"{_words(types)} under this name")
            continue
        found = value[name]
        if not isinstance(found, types) or (isinstance(found, bool) and bool not in types):
            raise InputError(f"{where}: {name}", found, _words(types))


def _words(types: Iterable[type]) -> str:
    return " or ".join(map(_word, types))


def _word(kind: type) -> str:
    return _WORDS.get(kind, kind.__name__)


def file_below(directory: Path, name: object) -> Path | None:
    """The file below a directory that a file of somebody else names; None where it lies elsewhere or is none.

    Args:
        directory: where it must lie, links followed.
        name: what the other file says.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        return None
    path = directory / name
    try:
        inside = path.resolve().is_relative_to(directory.resolve())
        return path if inside and path.is_file() else None
    except (OSError, RuntimeError, ValueError):  # a name that is too long, links that go round
        return None


def picture_below(directory: Path, name: object) -> Path | None:
    """The PNG below a directory that a row of somebody else names; None for any other file, or a huge one."""
    path = file_below(directory, name)
    if path is None:
        return None
    with path.open("rb") as file:
        head = file.read(24)  # the signature, then the first chunk: its length, IHDR, width and height
    sides = int.from_bytes(head[16:20]), int.from_bytes(head[20:24])
    good = head[:8] == b"\x89PNG\r\n\x1a\n" and head[12:16] == b"IHDR"
    return (
        path
        if good and 0 < sides[0] * sides[1] <= MOST_PIXELS and path.stat().st_size <= MOST_BYTES
        else None
    )
