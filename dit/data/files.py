"""Files that are either absent or complete, whoever is killed while writing them."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path, scratch: Path) -> Iterator[Path]:
    """Gives a place in ``scratch`` to write a file or folder, which then appears at ``path`` by one rename.

    If a folder is there already, it stays and the new one is dropped: processes that make the same thing at
    the same time make equal ones. The name is random, since process ids repeat between machines that share
    a disk.

    Args:
        path: where it is to appear.
        scratch: a folder on the same file system.
    """
    partial = scratch / f"{path.name}.{secrets.token_hex(6)}"
    yield partial
    if partial.is_file():
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        partial.rename(path)
        return
    try:
        partial.rename(path)
    except OSError:
        if not path.is_dir():
            raise
        shutil.rmtree(partial)
