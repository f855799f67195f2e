"""What sources of encoded image files have in common."""

import glob
import hashlib
import importlib.util
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dit.data.sources.names import check_one_split, is_hidden, unlisted, walk
from dit.errors import InputError

if TYPE_CHECKING:
    import numpy as np

MAX_CLASSES = 2**20  # each has a name in the manifest and a row in the network: more is a mistake
Stamp = tuple[
    str, int, int, int
]  # name, size in bytes, times of the last change of content and of anything in ns


def at_home(path: str) -> Path:
    """A path with ``~`` read as a shell would."""
    return Path(os.path.expanduser(path))  # of nobody's home it leaves the text, where pathlib raises


def check_installed(data: str, extra: str, *modules: str) -> None:
    """Raises InputError unless the packages that read such data are there; imports none of them."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        allowed = f"data that the installed packages read; {', '.join(missing)} is missing"
        raise InputError("data", data, allowed, f"Install the extra: pip install 'dit-scaling[{extra}]'.")


def expand(path: str, ending: str) -> list[Path]:
    """The files that ``path`` stands for: itself, a wildcard, or everything of ``ending`` under a folder;
    sorted, hidden ones left out.

    Raises:
        InputError: there are none, one is no regular file, or they are of several splits.
    """
    place = at_home(path)
    if os.path.isdir(place):
        files = [place / name for name, _ in walk(place) if name.endswith(ending)]
    elif os.path.exists(place):
        files = [place]
    else:
        found = glob.glob(str(place), recursive=True)
        files = [Path(name) for name in found if not is_hidden(os.path.relpath(name, _fixed(place)))]
    if not files:
        raise InputError("data.source.path", path, f"a file, a folder or a wildcard that holds *{ending}")
    for file in files:
        check_regular(file)
    common = os.path.commonpath([file.parent for file in files])
    check_one_split(path, [file.relative_to(common).as_posix() for file in files])
    return sorted(files)


def _fixed(pattern: Path) -> Path:
    """The folder before the first wildcard."""
    parts = pattern.parts
    first = next((number for number, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    return Path(*parts[:first])


def check_regular(path: Path, key: str = "data.source.path") -> os.stat_result:
    """The state of a file that can be read to its end: no pipe, no device; messages call it ``key``."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise unlisted(error, key) from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(key, f"({path}, a pipe, a device or a folder)", "regular files")
    return status


class EncodedFiles:
    """What sources of encoded files have in common: a path, and a listing of (name, size, label)."""

    path: str

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not self.path:
            raise InputError("data.source.path", self.path, "where the images are")

    @cached_property
    def _listing(self) -> tuple[Sequence[str], Sequence[int], Sequence[int], tuple[str, ...]]:
        """Names, sizes in bytes, labels, and class names."""
        raise NotImplementedError

    def _stamps(self) -> Iterable[Stamp]:
        """Of every file that is read."""
        raise NotImplementedError

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class."""
        return self._listing[3]

    def __len__(self) -> int:
        return len(self._listing[0])

    def identity(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for name, size, label in zip(*self._listing[:3]):
            digest.update(f"{name}\0{size}\0{label}\n".encode())
        return {"kind": type(self).__name__.lower(), "count": len(self), "listing_sha256": digest.hexdigest()}

    def stamp(self, *, of_copies: bool = False) -> str:
        return stamps_sha256(self._stamps(), of_copies)

    def describe(self, index: int) -> str:
        return self._listing[0][index]

    def label(self, index: int) -> int:
        return int(self._listing[2][index])

    @cached_property
    def _decode(self) -> 'Callable[[bytes, int], "np.ndarray"]':
        from dit.data.pixels import decode_square  # Pillow: not needed to list images

        return decode_square

    def pixels(self, content: bytes, image_size: int) -> "np.ndarray":
        return self._decode(content, image_size)


def stamp_of(name: str, status: os.stat_result) -> Stamp:
    """The name, size and times of a file: they identify it without reading it."""
    return name, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def stamps_sha256(stamps: Iterable[Stamp], of_copies: bool) -> str:
    """One hash for names, sizes and times of files; ``of_copies`` leaves out the time that no copy can keep."""
    digest = hashlib.sha256()
    for name, size, *times in stamps:
        shown = "\0".join(map(str, times[:1] if of_copies else times))
        digest.update(f"{name}\0{size}\0{shown}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def file_stamps(paths: Iterable[Path]) -> Iterable[Stamp]:
    """The stamps of containers of images, which are known by their names alone: a folder may move."""
    for path in paths:
        yield stamp_of(path.name, check_regular(path))


def check_labels(labels: list[int], name: str) -> list[int]:
    """Returns the labels; raises InputError, naming ``name``, where one is missing, negative or absurd."""
    for label in labels:
        if label is None or label < 0:
            raise InputError(name, label, "class labels >= 0", "A split without labels cannot be used.")
        if label >= MAX_CLASSES:
            raise InputError(name, label, f"class labels below {MAX_CLASSES:,}", "Number classes from 0.")
    return labels


def numbered(labels: Sequence[int], names: Sequence[str] | None = None) -> tuple[str, ...]:
    """Class names by number where the files have none."""
    top = max(labels)
    if names is not None and top >= len(names):
        raise InputError(
            "data.source.path", f"label {top}", f"labels below the number of class names, {len(names)}"
        )
    return tuple(names or (str(label) for label in range(top + 1)))
