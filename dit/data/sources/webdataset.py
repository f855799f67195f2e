"""Images in tar files, in the layout of WebDataset."""

import io
import os
import posixpath
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

from dit.data.images import check_file_bytes
from dit.data.sources.base import EncodedFiles, Stamp, check_labels, expand, file_stamps, numbered
from dit.data.sources.captions import caption_of
from dit.data.sources.names import is_hidden, is_image, say_passed_over, shown
from dit.errors import InputError

MAX_LABEL_BYTES = 1024


@dataclass(frozen=True)
class Tar(EncodedFiles):
    """Tar files in WebDataset's layout: files that share a name up to the first dot are one sample,
    ``key.jpg`` and ``key.cls``.

    One image each; ``key.mask.png`` is something else beside it. The label is the integer in ``.cls``, the caption the
    text in ``.txt``; images with captions need no labels, and are then of one class.
    Order: tar files by name, samples as they lie in them. A link is the file that it leads to in the same tar file.

    Args:
        path: a tar file, a folder of them, or a wildcard.
    """

    path: str

    @cached_property
    def _samples(self) -> list[tuple[int, "_Sample"]]:
        """Every image, and the number of its tar file."""
        found = [
            (number, sample)
            for number, path in enumerate(self._paths)
            for sample in _webdataset_samples(path)
        ]
        if len({sample.label is None for _, sample in found}) > 1:
            got = f"({self.path}: labels in some of its tar files alone)"
            raise InputError("data.source.path", got, "labels in all of them, or in none")
        return found

    @cached_property
    def _paths(self) -> list[Path]:
        return expand(self.path, ".tar")

    @cached_property
    def _files(self) -> list[int]:
        return [os.open(path, os.O_RDONLY) for path in self._paths]

    @cached_property
    def _listing(self):
        names = [f"{shown(self._paths[number].name)}/{sample.key}" for number, sample in self._samples]
        labels = [sample.label or 0 for _, sample in self._samples]
        return names, [sample.image[1] for _, sample in self._samples], labels, numbered(labels)

    def _stamps(self) -> Iterable[Stamp]:
        return file_stamps(self._paths)

    def content(self, index: int) -> bytes:
        number, sample = self._samples[index]
        return self._read(number, sample.image)

    def captions(self) -> list[str | None]:
        """The text in ``key.txt`` beside each ``key.jpg``."""
        return [
            sample.text
            and caption_of(
                partial(self._read, number, sample.text), f"{self._paths[number].name}/{sample.key}.txt"
            )
            for number, sample in self._samples
        ]

    def _read(self, number: int, place: tuple[int, int]) -> bytes:
        """The bytes of a member of a tar file, by offset and size."""
        offset, size = place
        check_file_bytes(size)
        return os.pread(self._files[number], size, offset)


class _Sample(NamedTuple):
    """One sample of a tar file: offset and size of its image and of its caption; its label. None: it has none."""

    key: str
    image: tuple[int, int]
    label: int | None
    text: tuple[int, int] | None


class _WithinFile(io.FileIO):
    """A file that refuses to read more than it holds: headers that promise more take no memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        left = os.fstat(self.fileno()).st_size - self.tell()
        if size is None or not 0 <= size <= max(left, tarfile.RECORDSIZE):
            raise tarfile.ReadError(f"a header promises {size} bytes where {left} are left")
        return super().read(size) or b""


def _webdataset_samples(path: Path) -> list[_Sample]:
    try:
        with _WithinFile(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            members = _members(path, tar)
            images, labels, texts = _by_key(path, file, members)
    except (OSError, tarfile.TarError, OverflowError, MemoryError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        got = f"{path} ({error})"
        raise InputError("data.source.path", got, "readable, uncompressed tar files") from error
    if not images:
        raise InputError("data.source.path", str(path), "tar files with images (key.jpg beside key.cls)")
    if labels or not texts:
        _check_pairs(path, images, labels)
    return [_Sample(key, place, labels.get(key), texts.get(key)) for key, place in images.items()]


def _members(path: Path, tar: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    """The file behind every name that is not hidden, links followed; in the order of the archive."""
    found: dict[str, tarfile.TarInfo] = {}
    for member in tar:
        if member.size < 0:
            raise tarfile.ReadError(f"{member.name} of {member.size} bytes")
        name = shown(member.name)
        if member.isdir() or is_hidden(name):
            continue
        if name in found:
            raise InputError("data.source.path", f"({path.name}/{name} is there twice)", "every name once")
        found[name] = member
    files = {name: _target(path, name, found) for name in found}
    return {name: member for name, member in files.items() if member is not None}


def _target(path: Path, name: str, found: dict[str, tarfile.TarInfo]) -> tarfile.TarInfo | None:
    """The regular file that a member is or leads to; None for devices and the like."""
    member, passed, place = found[name], set[str](), name
    while member.issym() or member.islnk():
        folder = posixpath.dirname(place) if member.issym() else ""  # hard links count from the archive's top
        place = shown(posixpath.normpath(posixpath.join(folder, member.linkname)))
        if place not in found or place in passed:
            if not name.lower().endswith(".cls") and not is_image(name):
                return None  # a link to a folder, say: no part of a sample
            got = f"({path.name}/{name}, a link to {shown(member.linkname)})"
            raise InputError("data.source.path", got, "links to files of the same archive")
        passed.add(place)
        member = found[place]
    if member.issparse():
        raise InputError("data.source.path", f"({path.name}/{name}, a sparse file)", "plain files in it")
    return member if member.isfile() else None


def _by_key(
    path: Path, file: io.FileIO, members: dict[str, tarfile.TarInfo]
) -> tuple[dict[str, tuple[int, int]], dict[str, int], dict[str, tuple[int, int]]]:
    """Images, labels and captions by the key of their sample; of images and captions offset and size."""
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, int] = {}
    texts: dict[str, tuple[int, int]] = {}
    others = []
    for name, member in members.items():
        folder, _, base = name.rpartition("/")
        key, _, extension = base.partition(".")
        key = f"{folder}/{key}" if folder else key
        if is_image(name) and "." not in extension:
            if key in images:
                got = f"{path.name}/{key}.{extension}, a second image of this key"
                raise InputError("data.source.path", got, "one image per key")
            images[key] = (member.offset_data, member.size)
        elif extension == "cls":
            file.seek(member.offset_data)
            labels[key] = _class_number(file.read(min(member.size, MAX_LABEL_BYTES)), f"{path.name}/{name}")
        elif extension == "txt":
            texts[key] = (member.offset_data, member.size)
        else:
            others.append(name)
    say_passed_over(str(path), others)
    return images, labels, texts


def _check_pairs(path: Path, images: Iterable[str], labels: Iterable[str]) -> None:
    """Every image has a label, and every label an image: else it is of a kind that is not read."""
    images, labels = set(images), set(labels)
    for key in sorted(images - labels):
        raise InputError("data.source.path", f"{path.name}/{key} without a label", f"{key}.cls beside it")
    if alone := sorted(labels - images):
        got = f"({path.name}: {len(alone)} labels without an image: {', '.join(alone[:5])})"
        allowed = "an image beside every key.cls (.jpg, .png, .webp, ...)"
        raise InputError("data.source.path", got, allowed)


def _class_number(text: bytes, name: str) -> int:
    try:
        label = int(text)
    except ValueError as error:
        raise InputError(name, text[:40].decode(errors="replace"), "an integer class label") from error
    return check_labels([label], name)[0]
