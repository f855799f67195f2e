"""Samples that are no pictures: arrays of numbers in a ``.npy`` file. Trajectories, spectrograms, fields, clips."""

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dit.data.images import UnreadableImage
from dit.data.sources.base import at_home, check_labels, check_regular, file_stamps, numbered, stamps_sha256
from dit.domain import Domain
from dit.errors import InputError

if TYPE_CHECKING:
    import numpy as np

NUMBERS = "float16, float32, float64 or uint8"


@dataclass(frozen=True)
class Array:
    """The items (n, C, size, ...) of a ``.npy`` file, which is mapped into memory and never unpickled.

    Items keep the units of the file; the normalisation per channel of the latent directory is the only scaling.

    Args:
        path: the file of items, float or uint8.
        labels: a ``.npy`` file of n classes >= 0; None makes all items one class.
    """

    path: str
    labels: str | None = None

    def __post_init__(self) -> None:
        for key, value in (("path", self.path), ("labels", self.labels)):
            if (not isinstance(value, str) or not value) and (key, value) != ("labels", None):
                raise InputError(f"data.source.{key}", value, "a .npy file")

    @cached_property
    def _items(self) -> "np.ndarray":
        items = open_npy(self.path, "data.source.path")
        if items.ndim < 3 or not items.size:
            got = f"(an array of shape {items.shape})"
            raise InputError("data.source.path", got, "items (n, channels, size, ...), at least one of each")
        if items.dtype.str[1:] not in ("f2", "f4", "f8", "u1"):
            remedy = "Convert them, as by np.save(path, items.astype(np.float32))."
            raise InputError("data.source.path", f"(numbers of {items.dtype})", NUMBERS, remedy)
        return items

    @cached_property
    def _labels(self) -> list[int]:
        if self.labels is None:
            return [0] * len(self)
        labels = open_npy(self.labels, "data.source.labels")
        if labels.shape != (len(self),) or labels.dtype.kind not in "iu":
            got, allowed = f"({labels.dtype} {labels.shape})", f"integers ({len(self)},), one for each item"
            raise InputError("data.source.labels", got, allowed)
        return check_labels(labels.tolist(), "data.source.labels")

    @property
    def domain(self) -> Domain:
        """What one item is."""
        return Domain.of(self._items.shape[1:])

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """One name per class."""
        return ("all",) if self.labels is None else numbered(self._labels)

    def __len__(self) -> int:
        return len(self._items)

    def identity(self) -> dict[str, Any]:
        labels = hashlib.sha256(",".join(map(str, self._labels)).encode()).hexdigest()
        about = {"count": len(self), "shape": list(self.domain.shape), "dtype": self._items.dtype.str}
        return {"kind": "array", **about, "labels_sha256": labels}

    def stamp(self, *, of_copies: bool = False) -> str:
        paths = [self.path] if self.labels is None else [self.path, self.labels]
        return stamps_sha256(file_stamps(map(at_home, paths)), of_copies)

    def describe(self, index: int) -> str:
        return f"{Path(self.path).name}[{index}]"

    def label(self, index: int) -> int:
        return self._labels[index]

    def content(self, index: int) -> bytes:
        return self._items[index].tobytes()

    def pixels(self, content: bytes, image_size: int | None = None) -> "np.ndarray":
        """One item (C, size, ...) float32, in the units of the file.

        Raises:
            UnreadableImage: it holds a number that is not finite as float32.
        """
        import numpy as np

        with np.errstate(over="ignore"):  # what float32 cannot hold is told below
            item = np.frombuffer(content, self._items.dtype).reshape(self.domain.shape).astype(np.float32)
        if not np.isfinite(item).all():
            raise UnreadableImage("numbers that are not finite as float32")
        return item


def open_npy(path: str, key: str) -> "np.ndarray":
    """The array of a ``.npy`` file, mapped into memory: nothing is allocated, and no object is unpickled.

    Raises:
        InputError: it cannot be read, or its header and its size do not agree; the message calls it ``key``.
    """
    import numpy as np

    place = at_home(path)
    size = check_regular(place, key).st_size
    allowed = "a .npy file as np.save writes it, without Python objects"
    try:
        with np.errstate(over="ignore"):  # of a shape that no file has; told below
            array = np.lib.format.open_memmap(place, mode="r")
    except Exception as error:  # the header's parser raises whatever it runs into
        raise InputError(key, f"({path}: {' '.join(str(error).split())[:200]})", allowed) from error
    told = array.offset + math.prod(array.shape) * array.itemsize
    if size != told:
        raise InputError(key, f"({path}: {size} bytes)", f"the {told} bytes that its header tells")
    return array
