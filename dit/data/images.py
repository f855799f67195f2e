"""Image sources: where labelled images come from, before any of them is decoded.

A source is an indexed list of labelled images in a fixed order. It hands out *content* (the bytes that
identify an image: the encoded file, or the raw scan) and turns content into pixels separately, so that
hashing never pays for decoding. Imports nothing heavy: a plan reads the shape and classes of its data
without torch.
"""

import gzip
import hashlib
import importlib.util
import os
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dit.domain import Domain
from dit.errors import InputError, check_number

if TYPE_CHECKING:
    import numpy as np


MAX_FILE_BYTES = 2**30  # twice the largest image that is decoded, uncompressed: more is no picture


WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
BAD_SHOWN = 20  # unreadable images that an error lists by name


class UnreadableImage(Exception):
    """One image that cannot be read or decoded; the message is the reason."""


def check_file_bytes(size: int) -> None:
    """Raises UnreadableImage for more bytes than a picture's file has, before any memory is taken for them."""
    if not 0 <= size <= MAX_FILE_BYTES:
        raise UnreadableImage(
            f"{size:,} bytes, more than the {MAX_FILE_BYTES:,} that are read for one picture"
        )


def read_picture(path: str | Path) -> bytes:
    """The bytes of a picture's file, read once its size is known; never waits for a pipe.

    Raises:
        UnreadableImage: it cannot be read, is too large, or is no regular file.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableImage("a pipe, a device or a folder")
            check_file_bytes(status.st_size)
            return file.read(status.st_size)
    except OSError as error:
        raise UnreadableImage(str(error)) from error


class Source(Protocol):
    """Labelled images in a fixed order.

    A source of arrays or tokens has a ``domain`` besides: what one item is. Where tokens are grey levels of a picture,
    it has ``tokens_are_levels`` = True.
    A source of captioned items has ``captions()``: a list of the caption of each, None where it has none.
    """

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class; its length is the number of classes."""
        ...

    def __len__(self) -> int: ...

    def identity(self) -> dict[str, Any]:
        """What tells these images from others in a manifest: kind and hash, never a path."""
        ...

    def stamp(self, *, of_copies: bool = False) -> str:
        """One hash over names, sizes and times of the files: while it stays, nothing needs to be read again. Empty
        where ``identity`` holds the images' own hash. ``of_copies``: of what copies keep (no time of the inode).
        """
        ...

    def describe(self, index: int) -> str:
        """What to call image ``index`` in a message: its file, as far as there is one."""
        ...

    def label(self, index: int) -> int:
        """The class of image ``index``, in [0, number of classes)."""
        ...

    def content(self, index: int) -> bytes:
        """The bytes that identify image ``index``: its encoded file or raw pixels. Called from several
        threads.

        Raises:
            UnreadableImage: this one cannot be read.
        """
        ...

    def pixels(self, content: bytes, image_size: Any) -> "np.ndarray":
        """Decodes and resizes one image: (image_size, image_size, 3) uint8, RGB; one array, which has no image_size, to
        (C, size, ...) float32; one item of tokens to (1, size, ...) int32.

        Raises:
            UnreadableImage: it cannot be decoded.
        """
        ...


def check_bad(bad: list[dict[str, Any]], allowed: int) -> None:
    """Raises InputError, listing them, where more images are unreadable than allowed."""
    if len(bad) <= allowed:
        return
    listed = "; ".join(f"{item['name']}: {item['why']}" for item in bad[:BAD_SHOWN])
    more = f"; and {len(bad) - BAD_SHOWN} more" if len(bad) > BAD_SHOWN else ""
    raise InputError(
        "data.source",
        f"({len(bad)} unreadable images: {listed}{more})",
        f"at most {allowed}",
        f"Repair or remove them, or skip them with data.allow_bad={len(bad)}.",
    )


@dataclass(frozen=True)
class Digits:
    """The 1,797 handwritten digits that scikit-learn ships: 8x8 scans with values 0..16.

    Pixels: ``round(value * 255 / 16)`` as uint8, enlarged with Pillow's bicubic filter (clipped to 0..255),
        the one grey
    channel repeated three times so that everything downstream sees RGB.

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
        Repository (1998).
    """

    class_names = tuple(str(digit) for digit in range(10))

    @cached_property
    def _file(self) -> bytes:
        # Read from the package's folder: importing scikit-learn costs a second or two and is not needed for
        # one CSV file.
        spec = importlib.util.find_spec("sklearn")
        folder = Path(next(iter(spec.submodule_search_locations or ()))) if spec else Path("sklearn")
        path = folder / "datasets" / "data" / "digits.csv.gz"
        if not path.is_file():
            raise InputError(
                "data.source", str(path), "scikit-learn's bundled digits", "Install scikit-learn."
            )
        return gzip.decompress(path.read_bytes())

    @cached_property
    def _table(self) -> "np.ndarray":
        import numpy as np

        return (
            np.array([line.split(b",") for line in self._file.split()]).astype(float).astype(np.uint8)
        )  # (n, 65)

    def __len__(self) -> int:
        return len(self._file.split())  # without numpy, for a plan made before the data are encoded

    def identity(self) -> dict[str, Any]:
        return {"kind": "digits", "sha256": hashlib.sha256(self._file).hexdigest()}

    def stamp(self, *, of_copies: bool = False) -> str:
        return ""

    def describe(self, index: int) -> str:
        return f"digits[{index}]"

    def label(self, index: int) -> int:
        return int(self._table[index, 64])

    def captions(self) -> list[str]:
        """The names of the digits in words: a seven."""
        return [f"{'an' if digit == 8 else 'a'} {WORDS[digit]}" for digit in self._table[:, 64]]

    def content(self, index: int) -> bytes:
        return self._table[index, :64].tobytes()

    def pixels(self, content: bytes, image_size: int) -> "np.ndarray":
        import numpy as np
        from PIL import Image

        check_number("data.image_size", image_size, low=8, integer=True)
        scan = np.frombuffer(content, np.uint8).reshape(8, 8)
        grey = Image.fromarray(np.rint(scan * (255 / 16)).astype(np.uint8))
        enlarged = np.asarray(grey.resize((image_size, image_size), Image.Resampling.BICUBIC))
        return np.repeat(enlarged[:, :, None], 3, axis=2)


@dataclass(frozen=True)
class DigitTokens(Digits):
    """The same digits as 8 x 8 tokens of 17 levels, as they were scanned."""

    domain = Domain(1, (8, 8), vocabulary=17)
    tokens_are_levels = True

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"kind": "digit_tokens"}

    def pixels(self, content: bytes, image_size: int | None = None) -> "np.ndarray":
        """One digit (1, 8, 8) int32."""
        import numpy as np

        return np.frombuffer(content, np.uint8).reshape(self.domain.shape).astype(np.int32)
