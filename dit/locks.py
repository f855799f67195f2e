"""Locks on files: they decide who may write to a run and who drives a study. A lock ends with its process.

Neither process ids nor clocks say who lives: an id comes back, and clocks of hosts differ. Standard library only.
"""

import errno
import fcntl
import logging
import time
from pathlib import Path

log = logging.getLogger("dit")

# of file systems that know no locks (Lustre without -o flock), or have lost their lock server
_UNSUPPORTED = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


class Lock:
    """An exclusive lock on a file, which is made where missing; not taken yet.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("a+")

    def take(self, patience: float = 1.0) -> bool:
        """Whether this process holds it now, after waiting so many seconds at most for another one.

        The default outlasts those who only ask ``is_held``. Where the file system knows no locks it is taken for held.
        """
        deadline = time.monotonic() + patience
        while (free := _try(self._file.fileno(), fcntl.LOCK_EX)) is False and time.monotonic() < deadline:
            time.sleep(0.05)
        if free is None:
            log.warning("%s: this file system knows no locks; begin nothing twice", self.path)
        return free is not False

    def release(self) -> None:
        """Lets go of it; a second call does nothing."""
        self._file.close()


def is_held(path: Path) -> bool | None:
    """Whether a living process, of any host, holds the lock on a file; None where the file system cannot tell."""
    try:
        with path.open() as file:
            free = _try(file.fileno(), fcntl.LOCK_SH)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return None
    return None if free is None else not free


def _try(fd: int, kind: int) -> bool | None:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except OSError as error:
        return None if error.errno in _UNSUPPORTED else False
    return True
