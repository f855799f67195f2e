"""Texts as their bytes: an encoder without weights, which nothing has to be downloaded for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dit.condition import Text
from dit.data.conditions.base import Encode
from dit.errors import check_number

if TYPE_CHECKING:
    from torch import Tensor

PLACES = 4  # frequencies that tell a byte's place
WIDTH = 3 * 8 + 2 * PLACES


@dataclass(frozen=True)
class Bytes:
    """A token for each byte of the text in UTF-8: its bits, those of its two neighbours, and its place.

    A bit is 1 or -1, and 0 where there is no byte. The place i is told by sines and cosines of i / 4^k, k < 4. What the
    bytes mean the network learns by itself: this serves short captions of few words; others need a language model.

    Args:
        length: bytes that are read; the rest of a longer text is cut off.
    """

    length: int = 64

    def __post_init__(self) -> None:
        check_number("condition.spec.text.length", self.length, low=1, integer=True)

    @property
    def kind(self) -> Text:
        return Text(self.length, WIDTH)

    @property
    def config(self) -> dict[str, Any]:
        return {"kind": "bytes", "length": self.length}

    @property
    def files(self) -> dict[str, str]:
        return {}

    def open(self, device: str) -> Encode:
        return self.encode

    def encode(self, texts: Sequence[str]) -> "dict[str, Tensor]":
        """``text`` (n, L, 32) float16 and ``text_mask`` (n, L)."""
        import numpy as np
        import torch

        codes = np.zeros((len(texts), self.length + 2), np.uint8)
        there = np.zeros(codes.shape, bool)
        for row, text in enumerate(texts):
            content = text.encode()[: self.length]
            codes[row, 1 : 1 + len(content)] = np.frombuffer(content, np.uint8)
            there[row, 1 : 1 + len(content)] = True
        bits = np.unpackbits(codes[..., None], axis=-1) * 2.0 - 1  # (n, L + 2, 8)
        bits *= there[..., None]
        angles = np.arange(self.length)[:, None] / 4.0 ** np.arange(PLACES)  # (L, PLACES)
        places = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
        mask = there[:, 1:-1]
        shown = [bits[:, 1:-1], bits[:, :-2], bits[:, 2:], np.broadcast_to(places, (*mask.shape, 2 * PLACES))]
        tokens = np.concatenate(shown, axis=-1) * mask[..., None]
        return {
            "text": torch.from_numpy(tokens.astype(np.float16)),
            "text_mask": torch.from_numpy(mask.copy()),
        }
