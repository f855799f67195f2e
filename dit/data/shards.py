"""Writing one shard: images in, moments and their sums out.

B batch, C H W latent, K stored channels (2C where there is a posterior, else C).
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dit.data.codec import Autoencoder
from dit.errors import InputError


class ShardWriter:
    """Collects the images of one split of one block and encodes them in batches.

    Args:
        autoencoder: the working autoencoder.
        dtype: storage of the moments.
        flip: encode the mirrored images too.
        batch_size: images per call of the autoencoder.
        device: where it runs.
    """

    def __init__(
        self, autoencoder: Autoencoder, dtype: torch.dtype, flip: bool, batch_size: int, device: str
    ) -> None:
        self.autoencoder, self.dtype, self.batch_size, self.device = autoencoder, dtype, batch_size, device
        self.waiting: list[np.ndarray] = []
        self.parts: dict[str, list[Tensor]] = {"moments": []} | ({"moments_flipped": []} if flip else {})
        self.index: list[int] = []

    def add(self, index: int, pixels: np.ndarray) -> None:
        """Takes one image; encodes when a batch is full."""
        self.index.append(index)
        self.waiting.append(pixels)
        if len(self.waiting) == self.batch_size:
            self.flush()

    def flush(self) -> None:
        """Encodes what waits."""
        if not self.waiting:
            return
        images = torch.from_numpy(np.stack(self.waiting)).permute(0, 3, 1, 2)  # (B, 3, H, W)
        self.waiting = []
        for name, part in self.parts.items():
            part.append(self._encode(images.flip(-1) if name == "moments_flipped" else images))

    def _encode(self, images: Tensor) -> Tensor:
        if self.autoencoder.module is None:
            return images
        mean, logvar = self.autoencoder.encode(images.to(self.device))
        moments = mean if logvar is None else torch.cat([mean, logvar], dim=1)
        if not bool(moments.isfinite().all()):
            raise InputError("autoencoder", "latents that are not finite", "weights that give finite latents")
        return moments.cpu().to(self.dtype)

    def tensors(self) -> dict[str, Tensor]:
        """All moments: (n, K, H, W) each."""
        self.flush()
        return {name: torch.cat(part).contiguous() for name, part in self.parts.items()}


def totals(moments: Iterable[Tensor], channels: int) -> dict[str, Any]:
    """Sums per channel over stored moments in float64: elements, draws, and draws squared (expected, over
    the posterior).
    """
    elements, first, second = 0, np.zeros(channels), np.zeros(channels)
    for stored in moments:
        for part in stored.split(256):
            elements += part[:, 0].numel()
            if part.dtype == torch.uint8:  # exact in integers, and several times faster
                levels = part.to(torch.int32)
                s1, s2 = (x.sum(dim=(0, 2, 3)).double() for x in (levels, levels * levels))
                n = part[:, 0].numel()
                first += (s1 / 127.5 - n).numpy()
                second += (s2 / 127.5**2 - 2 * s1 / 127.5 + n).numpy()
                continue
            mean, logvar = part[:, :channels].double(), part[:, channels:].double()
            first += mean.sum(dim=(0, 2, 3)).numpy()
            second += mean.square().sum(dim=(0, 2, 3)).numpy()
            if logvar.shape[1]:
                second += logvar.exp().sum(dim=(0, 2, 3)).numpy()
    return {"elements": elements, "first": first.tolist(), "second": second.tolist()}


def statistics(parts: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of posterior draws, from the totals of all blocks."""
    elements = sum(part["elements"] for part in parts)
    first = np.sum([part["first"] for part in parts], axis=0) / elements
    second = np.sum([part["second"] for part in parts], axis=0) / elements
    std = np.sqrt(np.maximum(second - first**2, 0))
    return first.tolist(), np.where(std > 0, std, 1.0).tolist()  # a constant channel stays as it is
