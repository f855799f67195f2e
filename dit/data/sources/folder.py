"""Images in one folder per class, on disk or in a zip file."""

import os
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NoReturn

from dit.data.images import UnreadableImage
from dit.data.sources.base import EXTENSIONS, EncodedFiles, is_image
from dit.errors import InputError


def _by_class_folder(path: str, names: list[str]) -> tuple[list[int], tuple[str, ...]]:
    """Labels of files named ``class/.../file``: classes in alphabetical order; one class where there are no
    folders.
    """
    if not names:
        raise InputError(
            "data.source.path", path, "images in one folder per class (" + " ".join(EXTENSIONS) + ")"
        )
    tops = [name.split("/", 1)[0] if "/" in name else "" for name in names]
    if "" in tops and len(set(tops)) > 1:
        stray = names[tops.index("")]
        raise InputError(
            "data.source.path", f"{path}: {stray} beside class folders", "one folder per class", "Move it."
        )
    classes = sorted(set(tops))
    number = {name: label for label, name in enumerate(classes)}
    return [number[top] for top in tops], tuple(name or "all" for name in classes)


def _raise(error: OSError) -> NoReturn:
    raise error


@dataclass(frozen=True)
class Folder(EncodedFiles):
    """A folder tree, one folder per class: class names in alphabetical order, then file paths in
    alphabetical order.

    Files without an image's extension and hidden ones are not listed; a folder without images is no class. A
    folder of images without sub-folders is one class.

    Args:
        path: the folder.
    """

    path: str

    @cached_property
    def _listing(self):
        root = Path(self.path)
        if not root.is_dir():
            raise InputError("data.source.path", self.path, "a folder of images")
        found = []
        try:
            for folder, _, files in os.walk(root, followlinks=True, onerror=_raise):
                prefix = Path(folder).relative_to(root).as_posix()
                for name in files:
                    relative = name if prefix == "." else f"{prefix}/{name}"
                    if is_image(relative):
                        found.append((relative, os.stat(f"{folder}/{name}").st_size))
        except OSError as error:  # left out without a word, they would change the data
            got = f"{error.filename} ({error.strerror})"
            raise InputError("data.source.path", got, "files and folders that can be read") from error
        found.sort()
        names = [name for name, _ in found]
        labels, classes = _by_class_folder(self.path, names)
        return names, [size for _, size in found], labels, classes

    def content(self, index: int) -> bytes:
        try:
            return (Path(self.path) / self._listing[0][index]).read_bytes()
        except OSError as error:
            raise UnreadableImage(str(error)) from error


@dataclass(frozen=True)
class Zip(EncodedFiles):
    """A zip file that holds one folder per class, as `Folder`; a single outermost folder around them is
    ignored.

    Args:
        path: the file.
    """

    path: str

    @cached_property
    def _file(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except (OSError, zipfile.BadZipFile) as error:
            raise InputError("data.source.path", f"{self.path} ({error})", "a readable zip file") from error

    @cached_property
    def _members(self) -> list[zipfile.ZipInfo]:
        members = [info for info in self._file.infolist() if not info.is_dir() and is_image(info.filename)]
        return sorted(members, key=lambda info: info.filename)

    @cached_property
    def _listing(self):
        names = [info.filename for info in self._members]
        parts = [PurePosixPath(name).parts for name in names]
        wrapped = len({p[0] for p in parts}) == 1 and all(len(p) > 2 for p in parts)
        inner = ["/".join(p[1:] if wrapped else p) for p in parts]
        labels, classes = _by_class_folder(self.path, inner)
        return inner, [info.file_size for info in self._members], labels, classes

    def content(self, index: int) -> bytes:
        try:
            return self._file.read(self._members[index])
        # RuntimeError: encrypted, or compressed by a method that Python does not know
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise UnreadableImage(str(error)) from error
