"""Images in one folder per class, on disk or in a zip file."""

import lzma
import os
import posixpath
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar

from dit.data.images import UnreadableImage, check_file_bytes, read_picture
from dit.data.sources.base import EncodedFiles, Stamp, at_home, check_regular, file_stamps, stamp_of
from dit.data.sources.captions import caption_name, caption_of, without_captions
from dit.data.sources.names import (
    EXTENSIONS,
    check_composed,
    check_distinct,
    class_folders,
    is_image,
    log,
    portable,
    say_passed_over,
    shown,
    unlisted,
    walk,
)
from dit.errors import InputError

MAX_LINK_BYTES = 4096  # as Linux: a link in a zip file is a member that holds the name it leads to


@dataclass(frozen=True)
class Folder(EncodedFiles):
    """A folder tree, one folder per class: class names in alphabetical order, then file paths in
    alphabetical order.

    Files without an image's extension and hidden ones are not listed; a folder without images is no class. A
    folder of images without sub-folders is one class. The caption of ``name.jpg`` is the text in ``name.txt``.

    Args:
        path: the folder.
    """

    path: str
    items: ClassVar[str] = "images"
    extensions: ClassVar[tuple[str, ...]] = EXTENSIONS

    @cached_property
    def _root(self) -> Path:
        return at_home(self.path)

    @cached_property
    def _files(self) -> list[tuple[str, str, os.stat_result]]:
        """(name to show, name, state) of every image, in order."""
        if not os.path.isdir(self._root):
            raise InputError("data.source.path", self.path, f"a folder of {self.items}")
        found, others = [], []
        try:
            for name, entry in walk(self._root):
                if is_image(name, self.extensions):
                    found.append((shown(name), name, entry.stat()))
                else:
                    others.append(name)
                    if entry.is_symlink() and not os.path.exists(entry.path):
                        log.warning(
                            "%s: passed over the link %s, which leads nowhere", self.path, shown(name)
                        )
        except OSError as error:
            raise unlisted(error) from error
        say_passed_over(self.path, others, self.items)
        return sorted(found, key=lambda file: file[:2])

    def _check_files(self) -> None:
        """Raises InputError for pipes, and for names that no one can tell apart."""
        for _, name, status in self._files:
            if not stat.S_ISREG(status.st_mode):
                check_regular(self._root / name)
        check_distinct(self.path, [file[0] for file in self._files])
        check_composed(self.path, (name.rpartition("/")[0] for _, name, _ in self._files))

    @cached_property
    def _listing(self):
        self._check_files()
        names, sizes = [file[0] for file in self._files], [file[2].st_size for file in self._files]
        labels, classes = class_folders(self.path, names, self.items, self.extensions)
        return names, sizes, labels, classes

    def _stamps(self) -> Iterable[Stamp]:
        return (stamp_of(name, status) for name, _, status in self._files)

    def captions(self) -> list[str | None]:
        """The text in ``name.txt`` beside each ``name.jpg``."""
        paths = [self._root / caption_name(name) for _, name, _ in self._files]
        return [
            caption_of(partial(read_picture, path), str(path)) if path.exists() else None for path in paths
        ]

    def content(self, index: int) -> bytes:
        return read_picture(self._root / self._files[index][1])


@dataclass(frozen=True)
class Zip(EncodedFiles):
    """A zip file that holds one folder per class, as `Folder`; a single outermost folder around them is
    ignored. A link is the image that it leads to in the same file.

    Args:
        path: the file.
    """

    path: str

    @cached_property
    def _file(self) -> zipfile.ZipFile:
        path = at_home(self.path)
        check_regular(path)
        try:
            return zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
            raise InputError("data.source.path", f"{self.path} ({error})", "a readable zip file") from error

    @cached_property
    def _members(self) -> list[tuple[str, zipfile.ZipInfo]]:
        """(name, member that holds it) of every image, in order."""
        infos = [info for info in self._file.infolist() if not _is_folder(info)]
        named = {portable(info.filename): info for info in infos}
        images = [info for info in infos if is_image(info.filename)]
        check_distinct(self.path, [portable(info.filename) for info in images])
        check_composed(self.path, (info.filename.rpartition("/")[0] for info in images))
        rest = [info for info in infos if not is_image(info.filename)]
        names = (portable(info.filename) for info in rest)
        say_passed_over(self.path, without_captions(names, (portable(info.filename) for info in images)))
        for info in filter(_is_link, rest):
            log.warning("%s: passed over the link %s to a folder", self.path, info.filename)
        return sorted((portable(info.filename), self._target(info, named)) for info in images)

    def _target(self, info: zipfile.ZipInfo, named: dict[str, zipfile.ZipInfo]) -> zipfile.ZipInfo:
        """The member that a link leads to, through other links; a member that is none is its own."""
        name, passed = portable(info.filename), set[str]()
        while _is_link(info):
            place = (
                self._file.read(info).decode("utf-8", "replace") if info.file_size < MAX_LINK_BYTES else ""
            )
            target = posixpath.normpath(posixpath.join(posixpath.dirname(portable(info.filename)), place))
            if target not in named or target in passed:
                got = f"({self.path}: {name}, a link to {place})"
                raise InputError("data.source.path", got, "links to files of the same archive")
            passed.add(target)
            info = named[target]
        return info

    @cached_property
    def _listing(self):
        parts = [name.split("/") for name, _ in self._members]
        wrapped = len({p[0] for p in parts}) == 1 and all(len(p) > 2 for p in parts)
        inner = ["/".join(p[1:] if wrapped else p) for p in parts]
        labels, classes = class_folders(self.path, inner)
        return inner, [info.file_size for _, info in self._members], labels, classes

    def _stamps(self) -> Iterable[Stamp]:
        return file_stamps([at_home(self.path)])

    def captions(self) -> list[str | None]:
        """The text in ``name.txt`` beside each ``name.jpg``."""
        named = {portable(info.filename): info for info in self._file.infolist()}
        found = [named.get(caption_name(name)) for name, _ in self._members]
        return [
            info
            and caption_of(partial(self._read, self._target(info, named)), f"{self.path}/{info.filename}")
            for info in found
        ]

    def content(self, index: int) -> bytes:
        return self._read(self._members[index][1])

    def _read(self, info: zipfile.ZipInfo) -> bytes:
        check_file_bytes(info.file_size)
        try:
            return self._file.read(info)
        # RuntimeError: encrypted, or compressed by a method that Python does not know
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
            raise UnreadableImage(str(error)) from error
        except (lzma.LZMAError, MemoryError) as error:
            raise UnreadableImage(f"{type(error).__name__} {error}") from error


def _is_folder(info: zipfile.ZipInfo) -> bool:
    """Whether a member is a folder, also one that Windows' separators end."""
    return info.filename.endswith(("/", "\\"))


def _is_link(info: zipfile.ZipInfo) -> bool:
    return stat.S_ISLNK(info.external_attr >> 16)
