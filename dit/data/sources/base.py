"""What sources of encoded image files have in common."""

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dit.errors import InputError

if TYPE_CHECKING:
    import numpy as np

MAX_CLASSES = 2**20  # each has a name in the manifest and a row in the network: more is a mistake
EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def is_image(name: str) -> bool:
    """Whether a relative path has the extension of an image and no hidden part: a dot in front, or the second copies
    that macOS puts into zip files.
    """
    if not name.lower().endswith(EXTENSIONS):
        return False
    return not any(part == "__MACOSX" or (part.startswith(".") and part != ".") for part in name.split("/"))


def expand(path: str, pattern: str) -> list[Path]:
    """The files that ``path`` stands for: itself, a wildcard, or everything of ``pattern`` under a folder;
    sorted.
    """
    place = Path(path)
    if place.is_file():
        return [place]
    if any(character in path for character in "*?["):
        anchor = Path(place.anchor) if place.is_absolute() else Path()
        files = sorted(anchor.glob(str(place.relative_to(place.anchor))))
    else:
        files = sorted(place.rglob(pattern)) if place.is_dir() else []
    if not files:
        raise InputError("data.source.path", path, f"a file, a folder or a wildcard that holds {pattern}")
    return files


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
