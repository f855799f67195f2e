"""Sequences of tokens: text files as bytes or characters, and arrays of token numbers, in windows of fixed length."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dit.data.sources.array import open_npy
from dit.data.sources.base import check_regular, expand, file_stamps, stamps_sha256
from dit.domain import Domain
from dit.errors import InputError, check_choice, check_number

if TYPE_CHECKING:
    import numpy as np

UNITS = ("bytes", "characters")
BINARY = ("uint8", "uint16", "uint32")


class _Windows:
    """Windows of ``length`` tokens, cut from the start of each document. A rest that is shorter is left out, so that no
    token counts twice and no window lies in two documents.
    """

    path: str
    length: int
    ending: str
    class_names = ("all",)

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not self.path:
            raise InputError("data.source.path", self.path, f"a file *{self.ending}, or a folder of them")
        check_number("data.source.length", self.length, low=1, integer=True)

    @property
    def vocabulary_size(self) -> int:
        """V."""
        raise NotImplementedError

    @cached_property
    def _documents(self) -> "list[tuple[str, np.ndarray]]":
        """Name and tokens (n,) of each document."""
        raise NotImplementedError

    @cached_property
    def _files(self) -> list[Path]:
        return expand(self.path, self.ending)

    @cached_property
    def documents(self) -> list[range]:
        """The windows of each document, in order."""
        found, start = [], 0
        for _, tokens in self._documents:
            found.append(range(start, start + len(tokens) // self.length))
            start = found[-1].stop
        if not start:
            longest = max((len(tokens) for _, tokens in self._documents), default=0)
            raise InputError("data.source.length", self.length, f"at most {longest}, the longest document")
        return found

    @cached_property
    def _place(self) -> list[tuple[int, int]]:
        """Document and first token of each window."""
        return [
            (number, self.length * within)
            for number, windows in enumerate(self.documents)
            for within in range(len(windows))
        ]

    @cached_property
    def domain(self) -> Domain:
        """What one window is."""
        return Domain(1, (self.length,), self.vocabulary_size)

    def __len__(self) -> int:
        return self.documents[-1].stop

    def identity(self) -> dict[str, Any]:
        sizes = hashlib.sha256(",".join(str(len(tokens)) for _, tokens in self._documents).encode())
        return {
            "kind": type(self).__name__.lower(),
            "count": len(self),
            "length": self.length,
            "vocabulary": self.vocabulary_size,
            "documents_sha256": sizes.hexdigest(),
        }

    def stamp(self, *, of_copies: bool = False) -> str:
        return stamps_sha256(file_stamps(self._files), of_copies)

    def describe(self, index: int) -> str:
        number, start = self._place[index]
        return f"{self._documents[number][0]}[{start}:{start + self.length}]"

    def label(self, index: int) -> int:
        return 0

    def content(self, index: int) -> bytes:
        number, start = self._place[index]
        return self._documents[number][1][start : start + self.length].astype("<i4").tobytes()

    def pixels(self, content: bytes, image_size: int | None = None) -> "np.ndarray":
        """One window (1, L) int32."""
        import numpy as np

        return np.frombuffer(content, "<i4").reshape(self.domain.shape)


@dataclass(frozen=True)
class Text(_Windows):
    """Text files; each is a document.

    Args:
        path: a ``.txt`` file, a wildcard, or a folder of such files, read to any depth.
        length: L, tokens of a window.
        unit: what a token is: ``bytes`` (V = 256, of any file) or ``characters`` (of UTF-8, V as many as there are
            different ones in the files, in the order of their code points; the manifest lists them).
    """

    path: str
    length: int
    unit: str = "bytes"
    ending = ".txt"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("data.source.unit", self.unit, UNITS)

    @cached_property
    def _alphabet(self) -> str:
        """The different characters, by code point; empty where tokens are bytes."""
        if self.unit == "bytes":
            return ""
        found = "".join(sorted(set().union(*(_read(file) for file in self._files))))
        if len(found) < 2:
            raise InputError(
                "data.source.path", f"({len(found)} different characters)", "a text of 2 or more"
            )
        return found

    @property
    def vocabulary_size(self) -> int:
        return len(self._alphabet) or 256

    @cached_property
    def _documents(self) -> "list[tuple[str, np.ndarray]]":
        import numpy as np

        for file in self._files:
            check_regular(file)
        if self.unit == "bytes":
            return [(file.name, np.frombuffer(file.read_bytes(), np.uint8)) for file in self._files]
        points = np.array([ord(one) for one in self._alphabet])
        texts = (np.frombuffer(_read(file).encode("utf-32-le"), np.uint32) for file in self._files)
        return [(file.name, np.searchsorted(points, text)) for file, text in zip(self._files, texts)]

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"unit": self.unit, "alphabet": self._alphabet}


def _read(file: Path) -> str:
    check_regular(file)
    try:
        return file.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        got = f"({file.name}: byte {error.start} is no UTF-8)"
        raise InputError("data.source.path", got, "UTF-8 text", "Or set data.source.unit=bytes.") from error


@dataclass(frozen=True)
class Tokens(_Windows):
    """Token numbers that a tokenizer of your choice wrote, one file or several; mapped into memory.

    Args:
        path: a ``.npy`` file of integers (n,), or a ``.bin`` file of bare ones; a wildcard takes several.
        length: L, tokens of a window.
        vocabulary: V; every token is below it.
        separator: the token that ends a document, itself part of it; None makes each file one document.
        dtype: of ``.bin`` files, little-endian: ``uint8`` | ``uint16`` | ``uint32``.
    """

    path: str
    length: int
    vocabulary: int
    separator: int | None = None
    dtype: str = "uint16"
    ending = ".npy"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("data.source.vocabulary", self.vocabulary, low=2, high=2**31 - 2, integer=True)
        check_choice("data.source.dtype", self.dtype, BINARY)
        if self.separator is not None:
            check_number("data.source.separator", self.separator, low=0, below=self.vocabulary, integer=True)

    @property
    def vocabulary_size(self) -> int:
        return self.vocabulary

    @cached_property
    def _documents(self) -> "list[tuple[str, np.ndarray]]":
        import numpy as np

        found = []
        for file in self._files:
            tokens = self._open(file)
            if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.vocabulary:
                got = f"({file.name}: tokens {tokens.min()} to {tokens.max()})"
                raise InputError("data.source.vocabulary", got, f"tokens in [0, {self.vocabulary})")
            ends = [] if self.separator is None else np.flatnonzero(tokens == self.separator) + 1
            found += [(file.name, part) for part in np.split(tokens, ends)]
        return found

    def _open(self, file: Path) -> "np.ndarray":
        import numpy as np

        if file.suffix != ".npy":
            size, width = check_regular(file).st_size, np.dtype(self.dtype).itemsize
            if not size or size % width:
                got = f"({file.name}: {size} bytes)"
                raise InputError("data.source.dtype", got, f"whole numbers of {width} bytes: {self.dtype}")
            return np.memmap(file, np.dtype(self.dtype).newbyteorder("<"), "r")
        tokens = open_npy(str(file), "data.source.path")
        if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
            got = f"({file.name}: {tokens.dtype} {tokens.shape})"
            raise InputError("data.source.path", got, "integers (n,)")
        return tokens

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"separator": self.separator}
