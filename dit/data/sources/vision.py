"""Images of torchvision's dataset classes."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dit.data.sources.base import at_home, check_labels, numbered, stamp_of, stamps_sha256
from dit.data.sources.names import walk
from dit.errors import InputError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Torchvision:
    """A classification dataset of torchvision, by its class name; it must be on disk already.

    Args:
        name: for example ``CIFAR10``.
        root: the folder that torchvision's own class is given.
        options: further arguments of the class, for example ``{train: true}``.
    """

    name: str
    root: str
    options: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def _dataset(self) -> Any:
        from torchvision import datasets

        if self.options.get("download"):  # a configuration that is read, maybe a stranger's, writes nothing
            raise InputError("data.source.options", "download", "files that are on disk already")
        if self.name not in datasets.__all__:
            raise InputError(
                "data.source.name", self.name, "the name of a dataset class of torchvision.datasets"
            )
        try:
            return getattr(datasets, self.name)(str(at_home(self.root)), **self.options)
        except (RuntimeError, OSError) as error:
            call = f"torchvision.datasets.{self.name}({self.root!r}, download=True)"
            remedy = f'Where there is a network: `python -c "import torchvision; {call}"`.'
            raise InputError(
                "data.source.root", f"{self.root} ({error})", "the dataset's files", remedy
            ) from error
        except TypeError as error:
            raise InputError(
                "data.source.options", self.options, f"arguments of {self.name} ({error})"
            ) from error

    @cached_property
    def _labels(self) -> list[int]:
        for attribute in ("targets", "labels", "_labels"):
            if hasattr(self._dataset, attribute):
                labels = getattr(self._dataset, attribute)
                break
        else:
            labels = [self._dataset[index][1] for index in range(len(self._dataset))]
        try:
            return check_labels([int(label) for label in labels], f"{self.name} labels")
        except (TypeError, ValueError) as error:
            raise InputError(
                "data.source.name", self.name, "a dataset of classes (integer labels)"
            ) from error

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class."""
        return numbered(self._labels, [str(name) for name in getattr(self._dataset, "classes", ())] or None)

    def __len__(self) -> int:
        return len(self._dataset)

    def identity(self) -> dict[str, Any]:
        labels = hashlib.sha256(bytes(str(self._labels), "ascii")).hexdigest()
        return {"kind": "torchvision", "name": self.name, "options": self.options, "labels_sha256": labels}

    def stamp(self, *, of_copies: bool = False) -> str:
        stamps = (stamp_of(name, entry.stat()) for name, entry in walk(at_home(self.root)))
        return stamps_sha256(sorted(stamps), of_copies)

    def describe(self, index: int) -> str:
        return f"{self.name}[{index}]"

    def label(self, index: int) -> int:
        return self._labels[index]

    def content(self, index: int) -> bytes:
        from dit.data.pixels import to_rgb

        image = to_rgb(self._dataset[index][0])
        return b"%d %d\n" % image.size + image.tobytes()

    def pixels(self, content: bytes, image_size: int) -> "np.ndarray":
        from PIL import Image

        from dit.data.pixels import centre_crop

        header, data = content.split(b"\n", 1)
        width, height = map(int, header.split())
        return centre_crop(Image.frombytes("RGB", (width, height), data), image_size)
