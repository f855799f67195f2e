"""Files and folders that are either absent or complete, whoever is killed, and whenever the power goes.

Everything that is written under a name that somebody may read later is written by ``whole`` or one of the three
short forms of it. Standard library only.
"""

import errno
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dit.trust import sealed

_UNFINISHED = re.compile(r"\..*\.[0-9a-f]{12}\.tmp", re.DOTALL)


@contextmanager
def whole(path: Path, scratch: Path | None = None) -> Iterator[Path]:
    """Gives a place to write a file or folder, which then appears at ``path`` by one rename, or not at all.

    Its bytes are on disk before it has its name: a rename that survives a power cut without them would leave an
    empty file. A file replaces an older one. If a folder is there already, it stays and the new one is dropped:
    processes that make the same thing at the same time make equal ones. What raises leaves nothing behind. The
    place has a random name: process ids repeat between machines that share a disk, and nobody can put a link there.

    Args:
        path: where it is to appear.
        scratch: a folder on the same file system; that of ``path`` by default, which is made where it is missing.
    """
    if scratch is None:
        scratch = path.parent
        scratch.mkdir(parents=True, exist_ok=True)
    partial = scratch / f".{path.name[:40]}.{secrets.token_hex(6)}.tmp"
    try:
        yield partial
        _sync_all(partial)
        _name(partial, path)
    finally:
        _remove(partial)  # it has another name by now, unless something failed
    sync(path.parent)


def write_bytes(path: Path, content: bytes) -> Path:
    """Replaces a file whole: a reader meets the old bytes or the new ones, never some of them."""
    with whole(path) as partial, partial.open("wb") as file:
        file.write(content)
    return path


def write_text(path: Path, text: str) -> Path:
    """Replaces a text file (UTF-8) whole."""
    return write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> Path:
    """Replaces a JSON file whole; null where a number is none; an object bears a seal (``dit.trust``)."""
    value = plain(value)
    value = sealed(value) if isinstance(value, dict) else value
    return write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False))


def plain(value: Any) -> Any:
    """``value`` in the types of JSON: tuples and arrays as lists, no numbers as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # of numpy or torch, neither of which is imported here
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def remove_unfinished(directory: Path) -> None:
    """Removes what killed processes left in a folder instead of finishing it; for its only writer."""
    for path in directory.iterdir():
        if _UNFINISHED.fullmatch(path.name):
            _remove(path)


def sync(path: Path) -> None:
    """Makes a file durable, or a folder's entry of a new file (a file's own fsync does not)."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems have no fsync of folders
            raise
    finally:
        os.close(fd)


def _sync_all(path: Path) -> None:
    """Makes a file durable, or a folder with all that is in it."""
    for folder, _, files in os.walk(path):
        for name in files:
            sync(Path(folder, name))
        sync(Path(folder))
    if path.is_file():
        sync(path)


def _name(partial: Path, path: Path) -> None:
    try:
        partial.replace(path)
    except OSError:
        if not (partial.is_dir() and path.is_dir()):
            raise


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
