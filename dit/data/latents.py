"""Latents on disk: reading the shards of a finished latent directory.

A shard is a safetensors file with the tensors
    moments          (n, K, H, W)   posterior mean and log-variance, K = 2C; or the latent itself, K = C, where it is a
                                    point; of tokens (n, 1, size, ...), integers
    moments_flipped  (n, K, H, W)   the same of the mirrored image, where asked for: an entry of its own, since no
                                    autoencoder commutes with mirroring
    label            (n,) int64
    index            (n,) int64     position in the source
and the other columns that the manifest names, with dtype and shape: text (n, L, W), text_mask (n, L), pooled (n, P).
Moments are float32, bfloat16, or uint8 (pixels, for the identity); tokens uint8, uint16 or int32. Rows are read with
`pread` at their offsets: nothing is held in memory but labels, and forked or spawned workers may share a set.

B batch, C H W latent; of arrays C and any number of sizes; L tokens of a text, W channels of each.
"""

import json
import math
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dit.condition import POLICIES, Classes, Condition, ConditionKind, Nothing
from dit.data.manifest import LABEL, REENCODE, Manifest, check_files, condition_kind, domain_of
from dit.domain import Domain
from dit.errors import InputError, check_choice

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "uint8": torch.uint8}
DTYPES |= {"uint16": torch.uint16, "int32": torch.int32}
DTYPES |= {"float16": torch.float16, "int64": torch.int64, "bool": torch.bool}
SAFETENSORS_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.uint8: "U8", torch.int64: "I64"}
SAFETENSORS_NAMES |= {torch.uint16: "U16", torch.int32: "I32", torch.float16: "F16", torch.bool: "BOOL"}
TEXT_STREAM = 0x7E77


class Shard:
    """One safetensors file: the place of every tensor in it.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with safe_open(path, "numpy"):  # the library refuses headers that do not fit their file
                pass
        except (SafetensorError, OSError) as error:
            raise InputError(str(path), f"({error})", "a safetensors file", REENCODE) from error
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        self.dtype = {name: entry["dtype"] for name, entry in header.items()}
        self.start = {name: 8 + length + entry["data_offsets"][0] for name, entry in header.items()}
        self.size = {
            name: entry["data_offsets"][1] - entry["data_offsets"][0] for name, entry in header.items()
        }
        self.shape = {name: tuple(entry["shape"]) for name, entry in header.items()}
        self._file = -1

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": -1}  # a descriptor means nothing in another process

    @property
    def descriptor(self) -> int:
        """The file, opened when first asked for; `pread` needs no position, so forks may share it."""
        if self._file < 0:
            self._file = os.open(self.path, os.O_RDONLY)
        return self._file

    def __del__(self) -> None:
        if getattr(self, "_file", -1) >= 0:
            os.close(self._file)

    def integers(self, name: str) -> np.ndarray:
        """The whole of a small int64 tensor."""
        data = os.pread(self.descriptor, self.size[name], self.start[name])
        return np.frombuffer(data, np.int64)

    def rows(self, name: str, first: int, count: int, dtype: torch.dtype) -> Tensor:
        """Consecutive rows of a tensor, as stored."""
        row = self.size[name] // max(1, self.shape[name][0])
        data = bytearray(os.pread(self.descriptor, count * row, self.start[name] + first * row))
        return torch.frombuffer(data, dtype=dtype).view(count, *self.shape[name][1:])


def per_channel(numbers: Tensor, n_axes: int) -> Tensor:
    """Numbers (C,) as (C, 1, ...), which meet samples of ``n_axes`` axes channel by channel."""
    return numbers.reshape(-1, *[1] * n_axes)


class LatentSet:
    """One split of a latent directory. Every shard's hash is checked before it is used, once in a process (about 1 s
    per GB).

    Args:
        directory: written by `encode_dataset`; or its manifest, where that was read already.
        split: ``train`` or ``validation``.

    Raises:
        InputError: no such directory or split; a file is missing, truncated or corrupted.
    """

    def __init__(self, directory: str | Path | Manifest, split: str) -> None:
        read = Manifest.read(directory)
        self.directory, self.split = read.directory, split
        self.manifest, self.manifest_hash = read.content, read.sha256
        check_choice("split", split, self.manifest["splits"])
        for error in check_files(self.directory, self._entries):
            raise error
        self._shards = [Shard(self.directory / entry["file"]) for entry in self._entries]
        self._ends = np.cumsum([entry["count"] for entry in self._entries])
        self._dtype = DTYPES[self.manifest["dtype"]]
        channels, *sizes = self.shape
        self._stored = (channels * (2 if self.has_posterior else 1), *sizes)
        self._columns = {
            name: (DTYPES[column["dtype"]], tuple(column["shape"]))
            for name, column in self.manifest.get("columns", LABEL).items()
        }
        self.kind: ConditionKind = condition_kind(self.manifest)
        self._check_shards()
        self.labels: Tensor = self._column("label")
        self.source_index: Tensor = self._column("index")
        self._check_labels()
        self._mean, self._std = (
            per_channel(torch.tensor(self.manifest[key], dtype=torch.float32), len(sizes))
            for key in ("channel_mean", "channel_std")
        )

    @property
    def _entries(self) -> list[dict[str, Any]]:
        return self.manifest["splits"][self.split]["shards"]

    def _check_shards(self) -> None:
        """Every shard holds what the manifest says of it, so that no row is read from another place."""
        moments = (SAFETENSORS_NAMES[self._dtype], self._stored)
        columns = {name: (SAFETENSORS_NAMES[dtype], shape) for name, (dtype, shape) in self._columns.items()}
        columns |= {"moments": moments, "label": ("I64", ()), "index": ("I64", ())}
        columns |= {"moments_flipped": moments} if self.has_flips else {}
        for shard, entry in zip(self._shards, self._entries):
            for name, (dtype, shape) in columns.items():
                expected, found = (
                    (dtype, (entry["count"], *shape)),
                    (shard.dtype.get(name), shard.shape.get(name)),
                )
                if found != expected:
                    got = f"({name} {found[0]} {found[1]})"
                    raise InputError(
                        str(shard.path), got, f"{expected[0]} {expected[1]}, as in manifest.json", REENCODE
                    )

    def _check_labels(self) -> None:
        n = self.manifest["num_classes"]
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < n:
            got = f"(labels {int(self.labels.min())} to {int(self.labels.max())})"
            raise InputError(str(self.directory), got, f"labels below {n}, as in manifest.json", REENCODE)

    def _column(self, name: str) -> Tensor:
        parts = [shard.integers(name) for shard in self._shards]
        return torch.from_numpy(np.concatenate(parts) if parts else np.zeros(0, np.int64))

    def __len__(self) -> int:
        return self.manifest["splits"][self.split]["count"]

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of a latent picture, (C, size, ...) of an array."""
        return tuple(self.manifest["shape"])

    @cached_property
    def domain(self) -> Domain:
        """What one latent is."""
        return domain_of(self.manifest)

    def condition(self, index: Tensor) -> Condition:
        """The conditions of the samples ``index`` (B,), in the dtypes of the columns."""
        told: dict[str, Tensor] = {}
        for name, (dtype, shape) in self._columns.items():
            told[name] = self.labels[index] if name == "label" else self._rows(name, index, dtype, shape)
        return Condition(told)

    def drawn(self, policy: str, seed: int, n: int) -> Condition:
        """The conditions of ``n`` samples to be made: classes as their kind draws them, else those of samples of this
        split, which hold all that goes together: in turn (``balanced``), or uniform and independent by seed
        (``random``).
        """
        if isinstance(self.kind, Classes | Nothing):
            return self.kind.drawn(policy, seed, n)
        check_choice("labels", policy, POLICIES)
        if policy == "balanced":
            return self.condition(torch.arange(n) % len(self))
        place = np.random.default_rng([seed, TEXT_STREAM]).integers(len(self), size=n, dtype=np.int64)
        return self.condition(torch.from_numpy(place))

    @property
    def has_posterior(self) -> bool:
        """Whether an image is stored as a distribution of latents, to be drawn from."""
        return self.manifest["posterior"]

    @property
    def has_flips(self) -> bool:
        """Whether the mirrored images' moments are stored too."""
        return self.manifest["flip"]

    def moments(self, index: Tensor, flip: Tensor | None = None) -> Tensor:
        """The stored numbers as float32, raw scale: (B, K, H, W), K = 2C (mean, log-variance) or C; tokens as int64.

        Args:
            index: (B,) int64 in [0, len).
            flip: (B,) bool, which ones are read from the mirrored entries; None is none.
        """
        if flip is not None and bool(flip.any()) and not self.has_flips:
            raise InputError(
                "flip", True, "false: this directory holds no mirrored images", "Encode with data.flip=true."
            )
        numbers = self._rows("moments", index, self._dtype, self._stored, flip)
        if self.domain.vocabulary:
            return numbers.long()
        return numbers.float() / 127.5 - 1 if self._dtype == torch.uint8 else numbers.float()

    def _rows(
        self,
        name: str,
        index: Tensor,
        dtype: torch.dtype,
        shape: tuple[int, ...],
        flip: Tensor | None = None,
    ) -> Tensor:
        """Rows (B, *shape) of a column; those of ``flip`` (B,) from its mirrored twin."""
        positions, row_bytes = index.numpy(), math.prod(shape) * dtype.itemsize
        if len(positions) and (positions.min() < 0 or positions.max() >= len(self)):
            raise IndexError(f"index outside [0, {len(self)})")
        stored = np.empty((len(positions), row_bytes), np.uint8)
        which = np.searchsorted(self._ends, positions, side="right")
        flips = flip.tolist() if flip is not None else [False] * len(positions)
        for row, position, shard_index, flipped in zip(stored, positions.tolist(), which.tolist(), flips):
            shard = self._shards[shard_index]
            offset = position - (int(self._ends[shard_index - 1]) if shard_index else 0)
            start = shard.start[f"{name}_flipped" if flipped else name]
            os.preadv(shard.descriptor, [row.data], start + offset * row_bytes)
        numbers = torch.from_numpy(stored)
        return (numbers != 0 if dtype == torch.bool else numbers.view(dtype)).view(-1, *shape)

    def draw(self, index: Tensor, eps: Tensor | None = None, flip: Tensor | None = None) -> Tensor:
        """Latents at unit variance per channel: (B, C, H, W) float32; tokens (B, 1, size, ...) int64, as they are.

        Args:
            index: (B,) int64 in [0, len).
            eps: (B, C, H, W) standard normal, the posterior draw; None gives the posterior mean.
            flip: (B,) bool, which ones are mirrored images; None is none.
        """
        if self.domain.vocabulary:
            return self.moments(index, flip)
        latents = self.moments(index, flip)  # nobody else's: changed in place, which spares memory
        if self.has_posterior:
            mean, logvar = latents.chunk(2, dim=1)
            latents = mean.clone() if eps is None else torch.addcmul(mean, logvar.mul_(0.5).exp_(), eps)
        return latents.sub_(self._mean).div_(self._std)
