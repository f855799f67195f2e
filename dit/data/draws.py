"""The fixed (image, t, eps) draws on which every model's validation loss is measured.

B draws, C H W latent.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dit.data.latents import LatentSet
from dit.data.loader import permutation
from dit.domain import Domain
from dit.errors import InputError, check_number
from dit.files import write_bytes

NAMES = {"index", "labels", "x0", "eps", "t_linear", "log_snr", "bin_id", "edges"}
T_LOW, T_HIGH = 0.02, 0.98


@dataclass(frozen=True)
class Draws:
    """Fixed draws: the same for every model, objective and machine that reads the same file.

    Args:
        index: (B,) int64, image in the validation split.
        labels: (B,) int64, its class.
        x0: (B, C, H, W) float32, its latent: one posterior draw at unit variance; tokens int64.
        eps: (B, C, H, W) float32, the noise.
        t_linear: (B,) float32, time on the line x_t = (1 - t) x0 + t eps.
        log_snr: (B,) float32, 2 ln((1 - t) / t): the level at which a model of any path is asked.
        bin_id: (B,) int64, in [0, bins).
        edges: (bins + 1,) float32, increasing log-SNR; bin k is [edges[k], edges[k + 1]).
        sha256: of all of these.
    """

    index: Tensor
    labels: Tensor
    x0: Tensor
    eps: Tensor
    t_linear: Tensor
    log_snr: Tensor
    bin_id: Tensor
    edges: Tensor
    sha256: str

    def __len__(self) -> int:
        return len(self.index)


def validation_draws(latent_set: LatentSet, n_draws: int, n_bins: int = 8, seed: int = 0) -> Draws:
    """The stored draws of a latent directory; made and stored when first asked for, from shards whose hash was checked.

    Times are uniform on [0.02, 0.98], of tokens on [0, 1], one in each of ``n_draws`` equal strata; bins are equally
    wide in t, so that each holds the same share. Images are taken in a fixed shuffled order, each as often as any
    other.

    Args:
        latent_set: the validation split.
        n_draws: number of draws.
        n_bins: number of log-SNR bins; divides ``n_draws``.
        seed: of everything.
    """
    check_number("validation.n_bins", n_bins, low=1, integer=True)
    check_number("validation.n_draws", n_draws, low=n_bins, integer=True)
    check_number("validation.seed", seed, low=0, integer=True)
    if not len(latent_set):
        got = f"({latent_set.directory} holds out no image)"
        raise InputError(
            "data.split", got, "images to measure the loss on", "Encode with a larger share held out."
        )
    directory = latent_set.directory
    path = directory / f"draws-{latent_set.split}-{n_draws}-{n_bins}-{seed}.safetensors"
    tensors = _read(path, latent_set.manifest_hash)
    if tensors is None:
        tensors = _make(latent_set, n_draws, n_bins, seed)
        _store(path, tensors, latent_set.manifest_hash)
    return Draws(**tensors, sha256=_hash(tensors))


def _make(latent_set: LatentSet, n_draws: int, n_bins: int, seed: int) -> dict[str, Tensor]:
    n = len(latent_set)
    generator = torch.Generator().manual_seed(seed)
    shape = (n_draws, *latent_set.shape)
    rounds = [permutation(seed, n, epoch) for epoch in range(-(-n_draws // n))]
    index = torch.from_numpy(np.concatenate(rounds)[:n_draws])
    x0 = latent_set.draw(index, torch.randn(shape, generator=generator))
    eps = torch.randn(shape, generator=generator)
    u = torch.rand(n_draws, generator=generator, dtype=torch.float64)
    stratum = torch.randperm(n_draws, generator=generator)
    low, high = _ends(latent_set.domain)
    t = low + (high - low) * (stratum + u) / n_draws
    edges_t = torch.linspace(high, low, n_bins + 1, dtype=torch.float64)
    if latent_set.domain.vocabulary:  # ends without an infinity: half a token from nothing and from all
        edges_t = edges_t.clamp(0.5 / x0[0].numel(), 1 - 0.5 / x0[0].numel())
    bin_id = n_bins - 1 - stratum * n_bins // n_draws
    return {
        "index": index,
        "labels": latent_set.labels[index],
        "x0": x0,
        "eps": eps,
        "t_linear": t.float(),
        "log_snr": _log_snr(t).float(),
        "bin_id": bin_id,
        "edges": _log_snr(edges_t).float(),
    }


def _ends(domain: Domain) -> tuple[float, float]:
    """The first and the last time: a bound on the likelihood of tokens needs them all."""
    return (0.0, 1.0) if domain.vocabulary else (T_LOW, T_HIGH)


def _log_snr(t: Tensor) -> Tensor:
    return 2 * torch.log((1 - t) / t)


def _hash(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(json.dumps([name, list(tensors[name].shape)]).encode())
        digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def _store(path: Path, tensors: dict[str, Tensor], manifest_hash: str) -> None:
    write_bytes(path, save(tensors, {"sha256": _hash(tensors), "manifest_hash": manifest_hash}))


def _read(path: Path, manifest_hash: str) -> dict[str, Tensor] | None:
    """The stored draws, or None where there are none that are whole and of this data: they are remade, not
    trusted.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            stored = file.metadata() or {}
    except (SafetensorError, OSError):
        return None
    intact = stored.get("sha256") == _hash(tensors) and stored.get("manifest_hash") == manifest_hash
    return tensors if intact and set(tensors) == NAMES else None
