"""Images in tar files, in the layout of WebDataset."""

import os
import tarfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dit.data.sources.base import EncodedFiles, check_labels, expand, is_image, numbered
from dit.errors import InputError


@dataclass(frozen=True)
class Tar(EncodedFiles):
    """Tar files in WebDataset's layout: files that share a name up to the first dot are one sample,
    ``key.jpg`` and ``key.cls``.

    One image each; ``key.mask.png`` is something else beside it. The label is the integer in ``.cls``.
    Order: tar files by name, samples as they lie in them.

    Args:
        path: a tar file, a folder of them, or a wildcard.
    """

    path: str

    @cached_property
    def _samples(self) -> list[tuple[int, str, int, int, int]]:
        """(number of the tar file, key, offset, bytes, label) of every image."""
        return [
            (number, *sample)
            for number, path in enumerate(self._paths)
            for sample in _webdataset_samples(path)
        ]

    @cached_property
    def _paths(self) -> list[Path]:
        return expand(self.path, "*.tar")

    @cached_property
    def _files(self) -> list[int]:
        return [os.open(path, os.O_RDONLY) for path in self._paths]

    @cached_property
    def _listing(self):
        names = [f"{self._paths[number].name}/{key}" for number, key, *_ in self._samples]
        labels = [sample[4] for sample in self._samples]
        return names, [sample[3] for sample in self._samples], labels, numbered(labels)

    def content(self, index: int) -> bytes:
        number, _, offset, size, _ = self._samples[index]
        return os.pread(self._files[number], size, offset)


def _webdataset_samples(path: Path) -> list[tuple[str, int, int, int]]:
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                folder, _, name = member.name.rpartition("/")
                key, _, extension = name.partition(".")
                key = f"{folder}/{key}" if folder else key
                if member.isfile() and is_image(member.name) and "." not in extension:
                    if key in images:
                        got = f"{path.name}/{key}.{extension}, a second image of this key"
                        raise InputError("data.source.path", got, "one image per key")
                    images[key] = (member.offset_data, member.size)
                elif member.isfile() and extension == "cls":
                    extracted = tar.extractfile(member)
                    assert extracted is not None, "a regular file has content"
                    labels[key] = _class_number(extracted.read(), f"{path.name}/{member.name}")
    except (OSError, tarfile.TarError) as error:
        raise InputError(
            "data.source.path", f"{path} ({error})", "readable, uncompressed tar files"
        ) from error
    if not images:
        raise InputError("data.source.path", str(path), "tar files with images (key.jpg beside key.cls)")
    for key in images:
        if key not in labels:
            raise InputError("data.source.path", f"{path.name}/{key} without a label", f"{key}.cls beside it")
    return [(key, offset, size, labels[key]) for key, (offset, size) in images.items()]


def _class_number(text: bytes, name: str) -> int:
    try:
        label = int(text)
    except ValueError as error:
        raise InputError(name, text[:40].decode(errors="replace"), "an integer class label") from error
    return check_labels([label], name)[0]
