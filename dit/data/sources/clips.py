"""Clips: video files, animated pictures and folders of frames; three colours on the axes time, row and column."""

import io
import itertools
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar

from dit.data.images import UnreadableImage, check_file_bytes, read_picture
from dit.data.sources.base import check_installed, stamp_of
from dit.data.sources.folder import Folder
from dit.data.sources.names import EXTENSIONS, class_folders
from dit.domain import Domain
from dit.errors import InputError, check_number

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

# the demuxer of each extension: FFmpeg is not asked to guess, since some formats name other files to read
VIDEO = {".avi": "avi", ".m4v": "mov", ".mkv": "matroska", ".mov": "mov", ".mp4": "mov", ".webm": "matroska"}
GIF, FRAMES = "gif", "frames"


@dataclass(frozen=True)
class Clips(Folder):
    """Clips in one folder per class; each gives its first frames, every ``stride``-th, as (3, frames, size, size).

    A clip is a video file, a ``.gif``, or a folder of pictures, which are its frames in alphabetical order. Frames are
    brought to a square as pictures are (halving, bicubic, the middle cut out); colours lie in [-1, 1].

    Args:
        path: the folder.
        frames: of one item; a shorter clip cannot be read.
        stride: 1 takes every frame, 2 every other one.
        size: pixels per side.
    """

    frames: int = 16
    stride: int = 1
    size: int = 64

    items: ClassVar[str] = "clips"
    extensions: ClassVar[tuple[str, ...]] = (*VIDEO, *EXTENSIONS)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("frames", "stride", "size"):
            check_number(f"data.source.{name}", getattr(self, name), low=1, integer=True)

    @property
    def domain(self) -> Domain:
        """What one item is."""
        return Domain(3, (self.frames, self.size, self.size))

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"frames": self.frames, "stride": self.stride, "size": self.size}

    @cached_property
    def _clips(self) -> list[tuple[str, list[int]]]:
        """(name, places of its files among ``_files``) of every clip, in order."""
        clips: dict[str, list[int]] = {}
        for place, (name, _, _) in enumerate(self._files):
            clip = str(PurePosixPath(name).parent) if _reader(name) == FRAMES else name
            clips.setdefault(clip, []).append(place)
        if "." in clips:
            stray = self._files[clips["."][0]][0]
            allowed = "clips: video files, .gif, or a folder of frames for each"
            raise InputError("data.source.path", f"{self.path}: the picture {stray} alone", allowed)
        if any(_reader(name) in VIDEO.values() for name in clips):
            check_installed("clips", "video", "av")
        return sorted(clips.items())

    @cached_property
    def _listing(self):
        self._check_files()
        names = [name for name, _ in self._clips]
        sizes = [sum(self._files[place][2].st_size for place in places) for _, places in self._clips]
        return names, sizes, *class_folders(self.path, names, self.items, self.extensions)

    def _stamps(self):
        return (stamp_of(name, status) for name, _, status in self._files)

    def content(self, index: int) -> bytes:
        """What reads it, in 8 bytes; then its file, or the frames that are needed, each behind its length."""
        name, places = self._clips[index]
        paths = [self._root / self._files[place][1] for place in places]
        reader = _reader(name)
        if reader != FRAMES:
            return reader.ljust(8).encode() + read_picture(paths[0])
        parts, total = [FRAMES.ljust(8).encode()], 0
        for path in self._chosen(paths):
            frame = read_picture(path)
            total += len(frame)
            check_file_bytes(total)
            parts += [struct.pack(">Q", len(frame)), frame]
        return b"".join(parts)

    def pixels(self, content: bytes, image_size: int | None = None) -> "np.ndarray":
        """The frames (3, frames, size, size) float32 in [-1, 1].

        Raises:
            UnreadableImage: it is no clip, or has too few frames.
        """
        import numpy as np

        from dit.data.pixels import centre_crop

        reader, body = content[:8].decode().strip(), content[8:]
        found = {FRAMES: _pictures, GIF: _animation}.get(reader)
        images = found(body) if found else _video(body, reader)
        if reader != FRAMES:
            images = self._chosen(images)
        squares = [centre_crop(image, self.size) for image in images]
        if len(squares) < self.frames:
            needed = 1 + (self.frames - 1) * self.stride
            raise UnreadableImage(f"fewer than the {needed} frames that are needed")
        return np.stack(squares).transpose(3, 0, 1, 2).astype(np.float32) / 127.5 - 1

    def _chosen(self, frames: Iterable[Any]) -> Iterator[Any]:
        return itertools.islice(frames, 0, 1 + (self.frames - 1) * self.stride, self.stride)


def _reader(name: str) -> str:
    """What reads a clip of this name: an animation, FFmpeg's demuxer, or one picture after the other."""
    return {**VIDEO, ".gif": GIF}.get(PurePosixPath(name).suffix.lower(), FRAMES)


def _pictures(body: bytes) -> "Iterator[Image]":
    from dit.data.pixels import decode

    place = 0
    while place < len(body):
        (length,) = struct.unpack_from(">Q", body, place)
        yield decode(body[place + 8 : place + 8 + length])
        place += 8 + length


def _animation(body: bytes) -> "Iterator[Image]":
    from PIL import ImageSequence, UnidentifiedImageError
    from PIL.Image import DecompressionBombError
    from PIL.Image import open as open_image

    try:
        for frame in ImageSequence.Iterator(open_image(io.BytesIO(body), formats=["GIF"])):
            yield frame.convert("RGB")
    except UnidentifiedImageError:
        raise UnreadableImage("cannot be identified as an animation") from None
    # the decoder raises whatever the parser runs into, as in `pixels.decode`
    except (OSError, SyntaxError, ValueError, IndexError, EOFError, MemoryError, struct.error) as error:
        raise UnreadableImage(str(error)) from error
    except DecompressionBombError as error:
        raise UnreadableImage(str(error)) from error


def _video(body: bytes, demuxer: str) -> "Iterator[Image]":
    import av
    import av.error
    from PIL.Image import fromarray

    from dit.data.pixels import MAX_PIXELS

    try:
        with av.open(io.BytesIO(body), "r", format=demuxer) as container:
            if not container.streams.video:
                raise UnreadableImage("no video stream")
            for frame in container.decode(container.streams.video[0]):
                if frame.width * frame.height > MAX_PIXELS:
                    raise UnreadableImage(f"frames of {frame.width}x{frame.height} pixels")
                yield fromarray(frame.to_ndarray(format="rgb24"))
    except (av.error.FFmpegError, ValueError, MemoryError) as error:
        raise UnreadableImage(" ".join(str(error).split())) from error
