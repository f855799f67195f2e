"""Captions beside images: texts in files of the image's name, or in a column."""

import posixpath
from collections.abc import Callable, Iterable

from dit.data.images import UnreadableImage
from dit.errors import InputError


def caption_name(image: str) -> str:
    """The name of the file that holds an image's caption: cats/1.txt for cats/1.jpg."""
    return posixpath.splitext(image)[0] + ".txt"


def without_captions(names: Iterable[str], images: Iterable[str]) -> list[str]:
    """The names that are no captions of these images."""
    captions = set(map(caption_name, images))
    return [name for name in names if name not in captions]


def caption_of(read: Callable[[], bytes], name: str) -> str | None:
    """The text of a caption without blanks around it; None where it is empty.

    Args:
        read: gives the bytes.
        name: of the file, for messages.

    Raises:
        InputError: it cannot be read, or is no UTF-8.
    """
    try:
        return read().decode().strip() or None
    except (UnreadableImage, UnicodeDecodeError) as error:
        why = f"{error.reason} at byte {error.start}" if isinstance(error, UnicodeDecodeError) else error
        raise InputError(name, f"({why})", "a caption that can be read, in UTF-8") from error
