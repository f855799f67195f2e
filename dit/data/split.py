"""Which images are held out for validation: a function of their content, not of their order."""

import hashlib
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from dit.data.images import Source, UnreadableImage
from dit.errors import InputError, check_number

FEWEST_HELD_OUT = 500  # the loss of fewer differs from that of the data by more than budgets differ
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

    def held_out(self, source: Source) -> None:
        """How many images will be held out: not known before they are read."""
        return None

    def chooser(self, source: Source) -> Chooser:
        """The rule for images of ``source``; needs no pass over them."""
        bound, rank = int(self.fraction * 2**64), content_ranker(self.salt)
        return lambda index, content: rank(content) < bound


@dataclass(frozen=True)
class Stratified:
    """Holds out ``count`` images, each class in proportion: within a class, those of lowest content hash, and
    what copies of them there are.

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

    def held_out(self, source: Source) -> int:
        """How many images will be held out."""
        if self.count >= len(source):
            raise InputError("data.split.count", self.count, f"less than the {len(source)} images there are")
        return self.count

    def chooser(self, source: Source) -> Chooser:
        """The rule for images of ``source``."""
        return _stratified(source, self.held_out(source), self.salt)


@dataclass(frozen=True)
class StratifiedShare:
    """`Stratified` with a number that suits the size of the set: the largest of ``fraction`` of the images,
    ``at_least`` and ``per_class`` for each class, but no more than ``at_most`` of the images.

    Reads the whole source once.

    Args:
        fraction: share of held-out images of a large set.
        at_least: images held out of a small one.
        per_class: times the number of classes that have images.
        at_most: share that is never exceeded.
        salt: another value gives another split.
    """

    fraction: float = 0.02
    at_least: int = 256
    per_class: int = 4
    at_most: float = 0.25
    salt: int = 0

    def __post_init__(self) -> None:
        check_number("data.split.fraction", self.fraction, above=0, below=1)
        check_number("data.split.at_least", self.at_least, low=1, integer=True)
        check_number("data.split.per_class", self.per_class, low=0, integer=True)
        check_number("data.split.at_most", self.at_most, low=self.fraction, below=1)
        check_number("data.split.salt", self.salt, low=0, integer=True)

    @property
    def config(self) -> dict[str, Any]:
        """What the manifest stores."""
        return {"kind": "StratifiedShare", **asdict(self)}

    def held_out(self, source: Source) -> int:
        """How many images will be held out."""
        n = len(source)
        if n < 2:
            raise InputError(
                "data.source", f"({n} images)", "at least 2 images: one to train on, one to hold out"
            )
        classes = len({source.label(index) for index in range(n)})
        wanted = max(math.ceil(self.fraction * n), self.at_least, self.per_class * classes)
        return max(1, min(wanted, math.floor(self.at_most * n)))

    def chooser(self, source: Source) -> Chooser:
        """The rule for images of ``source``."""
        return _stratified(source, self.held_out(source), self.salt)


@dataclass(frozen=True)
class ByDocument:
    """Holds out whole documents until ``fraction`` of the items is reached: those of lowest content hash that are small
    enough. Where none is (one file, say), the end of the longest document is held out.

    Reads the whole source once.

    Args:
        fraction: share of held-out items, in (0, 1).
        salt: another value gives another split.
    """

    fraction: float = 0.05
    salt: int = 0

    def __post_init__(self) -> None:
        check_number("data.split.fraction", self.fraction, above=0, below=1)
        check_number("data.split.salt", self.salt, low=0, integer=True)

    @property
    def config(self) -> dict[str, Any]:
        """What the manifest stores."""
        return {"kind": "ByDocument", **asdict(self)}

    def held_out(self, source: Source) -> int:
        """How many items will be held out."""
        return len(self._chosen(source))

    def chooser(self, source: Source) -> Chooser:
        """The rule for items of ``source``, which has ``documents``."""
        chosen = self._chosen(source)
        return lambda index, content: index in chosen

    def _chosen(self, source: Source) -> set[int]:
        documents = getattr(source, "documents", None)
        if documents is None:
            raise InputError("data.split", "ByDocument", "StratifiedShare: these data have no documents")
        wanted = max(1, round(self.fraction * len(source)))
        if len(source) < 2:
            raise InputError("data.source", f"({len(source)} windows)", "at least 2: one to hold out")
        rank = content_ranker(self.salt)
        ranked = sorted(documents, key=lambda items: rank(b"".join(map(source.content, items))))
        chosen: set[int] = set()
        for items in ranked:
            if len(chosen) < wanted and len(chosen) + len(items) <= 2 * wanted:
                chosen.update(items)
        return chosen or set(max(documents, key=len)[-wanted:])


def is_of_before(stored: Any, asked: dict[str, Any]) -> bool:
    """Whether a stored split is what `data=folder` made before it stratified: by content, of the same share and salt.
    Such latents can be trained on without naming their split.
    """
    return asked["kind"] == "StratifiedShare" and stored == {
        "kind": "ByContent", "fraction": asked["fraction"], "salt": asked["salt"]
    }  # fmt: skip


def _stratified(source: Source, count: int, salt: int) -> Chooser:
    """Holds out ``count`` images and their copies, each class in proportion; what cannot be read is of no class."""
    rank, ranks = content_ranker(salt), {}
    for index in range(len(source)):
        with suppress(UnreadableImage):  # encoding names them
            ranks[index] = rank(source.content(index))
    members: dict[int, list[int]] = {}
    for index, one in ranks.items():
        members.setdefault(source.label(index), []).append(one)
    quota = _largest_remainder({label: len(found) for label, found in members.items()}, count)
    chosen = {one for label, found in members.items() for one in sorted(found)[: quota[label]]}
    held_out = {index for index, one in ranks.items() if one in chosen}
    return lambda index, content: index in held_out


def _largest_remainder(sizes: dict[int, int], count: int) -> dict[int, int]:
    """Shares ``count`` among classes in proportion to their sizes; leftovers go to the largest remainders."""
    total = sum(sizes.values())
    quota = {label: count * size // total for label, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda label: (-(count * sizes[label] % total), label))
    for label in by_remainder[: count - sum(quota.values())]:
        quota[label] += 1
    return quota
