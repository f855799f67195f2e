"""Which images are held out for validation: a function of their content, not of their order."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from dit.data.images import Source
from dit.errors import InputError, check_number

Chooser = Callable[[int, bytes], bool]  # (index, content) -> held out


def content_ranker(salt: int) -> Callable[[bytes], int]:
    """A function that gives a content a 64-bit number, uniform over contents: the start of a salted SHA-256."""
    prefix = b"dit validation %d\0" % salt
    return lambda content: int.from_bytes(hashlib.sha256(prefix + content).digest()[:8], "big")


@dataclass(frozen=True)
class ByContent:
    """Holds out the images whose content hash falls below ``fraction``: copies of an image stay on one side.

    Args:
        fraction: expected share of held-out images, in [0, 1).
        salt: another value gives another split.
    """

    fraction: float
    salt: int = 0

    def __post_init__(self) -> None:
        check_number("data.split.fraction", self.fraction, low=0, below=1)
        check_number("data.split.salt", self.salt, low=0, integer=True)

    @property
    def config(self) -> dict[str, Any]:
        """What the manifest stores."""
        return {"kind": "ByContent", **asdict(self)}

    def chooser(self, source: Source) -> Chooser:
        """The rule for images of ``source``; needs no pass over them."""
        bound, rank = int(self.fraction * 2**64), content_ranker(self.salt)
        return lambda index, content: rank(content) < bound


@dataclass(frozen=True)
class Stratified:
    """Holds out exactly ``count`` images, each class in proportion: within a class, those of lowest content
    hash.

    Reads the whole source once, so it is for small ones.

    Args:
        count: number of held-out images.
        salt: another value gives another split.
    """

    count: int
    salt: int = 0

    def __post_init__(self) -> None:
        check_number("data.split.count", self.count, low=1, integer=True)
        check_number("data.split.salt", self.salt, low=0, integer=True)

    @property
    def config(self) -> dict[str, Any]:
        """What the manifest stores."""
        return {"kind": "Stratified", **asdict(self)}

    def chooser(self, source: Source) -> Chooser:
        """The rule for images of ``source``."""
        if self.count >= len(source):
            raise InputError("data.split.count", self.count, f"less than the {len(source)} images there are")
        rank = content_ranker(self.salt)
        members: dict[int, list[tuple[int, int]]] = {}
        for index in range(len(source)):
            members.setdefault(source.label(index), []).append((rank(source.content(index)), index))
        quota = _largest_remainder({label: len(m) for label, m in members.items()}, self.count)
        held_out = {index for label, m in members.items() for _, index in sorted(m)[: quota[label]]}
        return lambda index, content: index in held_out


def _largest_remainder(sizes: dict[int, int], count: int) -> dict[int, int]:
    """Shares ``count`` among classes in proportion to their sizes; leftovers go to the largest remainders."""
    total = sum(sizes.values())
    quota = {label: count * size // total for label, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda label: (-(count * sizes[label] % total), label))
    for label in by_remainder[: count - sum(quota.values())]:
        quota[label] += 1
    return quota
