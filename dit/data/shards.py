"""Writing one shard: images or arrays in, moments and their sums out.

B batch, C H W latent (of arrays and tokens C and any number of sizes), K stored channels (2C where there is a
posterior, else C).
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dit.data.codec import Autoencoder
from dit.data.latents import SAFETENSORS_NAMES
from dit.domain import Domain
from dit.errors import InputError


class ShardWriter:
    """Collects the images of one split of one block and encodes them in batches.

    Args:
        autoencoder: the working autoencoder.
        domain: what its latents must be.
        dtype: storage of the moments.
        flip: encode the mirrored images too.
        batch_size: images per call of the autoencoder.
        device: where it runs.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        domain: Domain,
        dtype: torch.dtype,
        flip: bool,
        batch_size: int,
        device: str,
    ) -> None:
        self.autoencoder, self.dtype, self.batch_size, self.device = autoencoder, dtype, batch_size, device
        self.batch, self.waiting = np.empty(0, np.uint8), 0
        self.parts: dict[str, list[Tensor]] = {"moments": []} | ({"moments_flipped": []} if flip else {})
        self.domain, self.totals = domain, Totals(domain.channels)
        self.index: list[int] = []

    def add(self, index: int, pixels: np.ndarray) -> None:
        """Takes one image (H, W, 3) uint8, one array (C, size, ...) float32 or one item of tokens (1, size, ...) int32;
        encodes when a batch is full.
        """
        self.index.append(index)
        if not self.waiting:
            self.batch = np.empty((self.batch_size, *pixels.shape), pixels.dtype)
        self.batch[self.waiting] = pixels
        self.waiting += 1
        if self.waiting == self.batch_size:
            self.flush()

    def flush(self) -> None:
        """Encodes what waits."""
        if not self.waiting:
            return
        batch = self.batch[: self.waiting]
        channels_first = batch.transpose(0, 3, 1, 2) if batch.dtype == np.uint8 else batch
        images = torch.from_numpy(channels_first.copy())  # the batch is filled again
        self.waiting = 0
        for name, part in self.parts.items():
            part.append(self._encode(images.flip(-1) if name == "moments_flipped" else images))
            if not self.domain.vocabulary:
                self.totals.add(part[-1])

    def _encode(self, images: Tensor) -> Tensor:
        if self.autoencoder.module is None:
            return images.to(self.dtype)
        mean, logvar = self.autoencoder.encode(images.to(self.device))
        if tuple(mean.shape[1:]) != self.domain.shape:
            allowed = f"latents {self.domain.shape}, as its latent_channels and reduction say"
            raise InputError("autoencoder", f"latents {tuple(mean.shape[1:])}", allowed, "Correct these two.")
        moments = mean if logvar is None else torch.cat([mean, logvar], dim=1)
        if not bool(moments.isfinite().all()):
            raise InputError("autoencoder", "latents that are not finite", "weights that give finite latents")
        return moments.cpu().to(self.dtype)


@dataclass
class Totals:
    """Sums per channel over stored moments in float64.

    Args:
        channels: C.
    """

    channels: int

    def __post_init__(self) -> None:
        self.elements, self.first, self.second = 0, np.zeros(self.channels), np.zeros(self.channels)

    def add(self, stored: Tensor) -> None:
        """Takes (n, K, size, ...) moments: their draws' sum, and the posterior's expectation of the sum of squares."""
        n = stored[:, 0].numel()
        self.elements += n
        if stored.dtype == torch.uint8:
            levels = torch.arange(256, dtype=torch.float64) / 127.5 - 1
            for channel, pixels in enumerate(stored.unbind(1)):
                counts = torch.bincount(pixels.flatten(), minlength=256).double()  # exact, and 10x faster
                self.first[channel] += float(counts @ levels)
                self.second[channel] += float(counts @ levels.square())
            return
        mean, logvar = stored[:, : self.channels].double(), stored[:, self.channels :].double()
        points = (0, *range(2, stored.ndim))
        self.first += mean.sum(dim=points).numpy()
        self.second += mean.square().sum(dim=points).numpy()
        if logvar.shape[1]:
            self.second += logvar.exp().sum(dim=points).numpy()

    def as_dict(self) -> dict[str, Any]:
        """For the block's record."""
        return {"elements": self.elements, "first": self.first.tolist(), "second": self.second.tolist()}


def write_safetensors(path: Path, tensors: dict[str, list[Tensor]]) -> tuple[int, str]:
    """Writes tensors, given in parts along their first dimension, and returns the file's size and SHA-256.

    In one pass: the library's own writer wants whole tensors, and would copy a shard three times.

    Source: the format's description, github.com/huggingface/safetensors: header length, JSON header, data.
    """
    header, offset = {}, 0
    for name, parts in tensors.items():
        shape = [sum(len(part) for part in parts), *parts[0].shape[1:]]
        size = sum(part.numel() * part.element_size() for part in parts)
        header[name] = {
            "dtype": SAFETENSORS_NAMES[parts[0].dtype],
            "shape": shape,
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest, written = hashlib.sha256(), 0
    with open(path, "wb") as file:
        for chunk in (len(text).to_bytes(8, "little"), text, *_buffers(tensors)):
            digest.update(chunk)
            written += file.write(chunk)
    return written, digest.hexdigest()


def _buffers(tensors: dict[str, list[Tensor]]) -> Iterator[memoryview]:
    for parts in tensors.values():
        for part in parts:
            yield part.contiguous().view(-1).view(torch.uint8).numpy().data


def statistics(parts: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of posterior draws, from the totals of all blocks."""
    elements = sum(part["elements"] for part in parts)
    first = np.sum([part["first"] for part in parts], axis=0) / elements
    second = np.sum([part["second"] for part in parts], axis=0) / elements
    std = np.sqrt(np.maximum(second - first**2, 0))
    return first.tolist(), np.where(std > 0, std, 1.0).tolist()  # a constant channel stays as it is
