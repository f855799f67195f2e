"""Images in tar files, in the layout of WebDataset."""

import io
import os
import posixpath
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dit.data.images import check_file_bytes
from dit.data.sources.base import EncodedFiles, Stamp, check_labels, expand, file_stamps, numbered
from dit.data.sources.names import is_hidden, is_image, say_passed_over, shown
from dit.errors import InputError

MAX_LABEL_BYTES = 1024


@dataclass(frozen=True)
class Tar(EncodedFiles):
    """Tar files in WebDataset's layout: files that share a name up to the first dot are one sample,
    ``key.jpg`` and ``key.cls``.

    One image each; ``key.mask.png`` is something else beside it. The label is the integer in ``.cls``.
    Order: tar files by name, samples as they lie in them. A link is the file that it leads to in the same tar file.

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
        return expand(self.path, ".tar")

    @cached_property
    def _files(self) -> list[int]:
        return [os.open(path, os.O_RDONLY) for path in self._paths]

    @cached_property
    def _listing(self):
        names = [f"{shown(self._paths[number].name)}/{key}" for number, key, *_ in self._samples]
        labels = [sample[4] for sample in self._samples]
        return names, [sample[3] for sample in self._samples], labels, numbered(labels)

    def _stamps(self) -> Iterable[Stamp]:
        return file_stamps(self._paths)

    def content(self, index: int) -> bytes:
        number, _, offset, size, _ = self._samples[index]
        check_file_bytes(size)
        return os.pread(self._files[number], size, offset)


class _WithinFile(io.FileIO):
    """A file that refuses to read more than it holds: headers that promise more take no memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        left = os.fstat(self.fileno()).st_size - self.tell()
        if size is None or not 0 <= size <= max(left, tarfile.RECORDSIZE):
            raise tarfile.ReadError(f"a header promises {size} bytes where {left} are left")
        return super().read(size) or b""


def _webdataset_samples(path: Path) -> list[tuple[str, int, int, int]]:
    try:
        with _WithinFile(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            members = _members(path, tar)
            images, labels = _by_key(path, file, members)
    except (OSError, tarfile.TarError, OverflowError, MemoryError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        got = f"{path} ({error})"
        raise InputError("data.source.path", got, "readable, uncompressed tar files") from error
    if not images:
        raise InputError("data.source.path", str(path), "tar files with images (key.jpg beside key.cls)")
    _check_pairs(path, images, labels)
    return [(key, member.offset_data, member.size, labels[key]) for key, member in images.items()]


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
) -> tuple[dict[str, tarfile.TarInfo], dict[str, int]]:
    """Images and labels by the key of their sample."""
    images: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, int] = {}
    others = []
    for name, member in members.items():
        folder, _, base = name.rpartition("/")
        key, _, extension = base.partition(".")
        key = f"{folder}/{key}" if folder else key
        if is_image(name) and "." not in extension:
            if key in images:
                got = f"{path.name}/{key}.{extension}, a second image of this key"
                raise InputError("data.source.path", got, "one image per key")
            images[key] = member
        elif extension == "cls":
            file.seek(member.offset_data)
            labels[key] = _class_number(file.read(min(member.size, MAX_LABEL_BYTES)), f"{path.name}/{name}")
        else:
            others.append(name)
    say_passed_over(str(path), others)
    return images, labels


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
