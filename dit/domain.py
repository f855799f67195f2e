"""The domain of one x0: channels on a lattice of any number of axes; imports no torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dit.errors import InputError, check_number


@dataclass(frozen=True)
class Domain:
    """The shape of one sample, channels first: a latent picture Domain(4, (32, 32)), a clip Domain(16, (8, 32, 32)), a
    trajectory Domain(7, (64,)), a text of 256 bytes Domain(1, (256,), vocabulary=256).

    Args:
        channels: C, numbers at each point; 1 for tokens.
        sizes: points along each axis, at least one axis.
        vocabulary: V, values that a token takes, which is an integer in [0, V); 0 where samples are real numbers.
    """

    channels: int
    sizes: tuple[int, ...]
    vocabulary: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(self.sizes))
        if not self.sizes:
            raise InputError(
                "input_shape", self.shape, "[channels,size,...]: one axis or more behind the channels"
            )
        for place, size in enumerate(self.shape):
            check_number(f"input_shape.{place}", size, low=1, integer=True)
        check_number("vocabulary", self.vocabulary, low=0, integer=True)
        if self.vocabulary == 1 or (self.vocabulary and self.channels != 1):
            got = f"({self.vocabulary} values in {self.channels} channels)"
            raise InputError("vocabulary", got, "2 values or more, of one token at each point; 0 for numbers")

    @classmethod
    def of(cls, shape: Sequence[int], vocabulary: int = 0) -> "Domain":
        """That of samples (C, size, ...)."""
        return cls(shape[0], tuple(shape[1:]), vocabulary)

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, size, ...) of one sample."""
        return (self.channels, *self.sizes)

    def lattice(self, patch: tuple[int, ...]) -> tuple[int, ...]:
        """Tokens along each axis, for patches of ``patch`` points.

        Raises:
            InputError: a patch does not divide an axis, or there is not one for each.
        """
        if len(patch) != len(self.sizes):
            allowed = f"one number, or {len(self.sizes)}: one for each axis of {self.shape}"
            raise InputError("network.patch_size", list(patch), allowed)
        if self.vocabulary and set(patch) != {1}:
            got = patch[0] if len(set(patch)) == 1 else list(patch)
            raise InputError("network.patch_size", got, "1: data of tokens have one for each point")
        if any(size % p for size, p in zip(self.sizes, patch, strict=True)):
            shown = "x".join(map(str, self.sizes))
            got = patch[0] if len(set(patch)) == 1 else list(patch)
            raise InputError("network.patch_size", got, f"a divisor of all sides of the {shown} input")
        return tuple(size // p for size, p in zip(self.sizes, patch, strict=True))

    def tokens(self, patch: tuple[int, ...]) -> int:
        """Patches of one sample."""
        return math.prod(self.lattice(patch))
