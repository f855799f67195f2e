"""Statistics of real images, kept in a cache under a hash of everything that makes them.

The reference of a data set is its training split, at the size the model sees, before the autoencoder: as the
published FIDs of ImageNet are measured. A set small enough to be learnt by heart wants the validation split
beside it.

B images of a batch, S their size, N images in all, D feature width.
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from dit.data.images import Source
from dit.data.latents import LatentSet
from dit.evaluation.features import Extractor
from dit.evaluation.measure import NEED_FEATURES, Measured, Meter, check_metrics, images_hash, images_sum
from dit.evaluation.statistics import Statistics

BATCH = 256


def latents_reference(
    latents: LatentSet,
    source: Source,
    extractor: Extractor,
    metrics: Iterable[str] = ("fd",),
    *,
    cache: str | Path | None = None,
) -> Measured:
    """The real images behind a split of a latent directory, measured.

    Args:
        latents: the split, usually ``train``.
        source: the images it was encoded from.
        extractor: makes the features.
        metrics: what the reference must serve.
        cache: a directory for the result; see ``measure_reference``.
    """
    size = latents.manifest["image_shape"][1]
    index = latents.source_index.tolist()
    key = _hash({"source": source.identity(), "index": index, "image_size": size})
    return measure_reference(source_images(source, index, size), extractor, metrics, key=key, cache=cache)


def source_images(
    source: Source, index: Iterable[int], image_size: int, batch_size: int = BATCH
) -> Iterator[torch.Tensor]:
    """The source's images at ``index``, decoded and resized: batches of uint8 (B, 3, S, S)."""
    pending: list[np.ndarray] = []
    for position in index:
        pending.append(source.pixels(source.content(position), image_size))
        if len(pending) == batch_size:
            yield _stack(pending)
            pending = []
    if pending:
        yield _stack(pending)


def reference_statistics(
    images: torch.Tensor | Iterable[torch.Tensor],
    extractor: Extractor,
    *,
    key: str | None = None,
    cache: str | Path | None = None,
) -> Statistics:
    """The statistics of images on an extractor; see ``measure_reference``."""
    return measure_reference(images, extractor, key=key, cache=cache).stats


def measure_reference(
    images: torch.Tensor | Iterable[torch.Tensor],
    extractor: Extractor,
    metrics: Iterable[str] = ("fd",),
    *,
    key: str | None = None,
    cache: str | Path | None = None,
) -> Measured:
    """Real images measured on an extractor, with the hash of their pixels in ``metadata["images"]``.

    Args:
        images: batches of uint8 (B, 3, H, W), or all of them (N, 3, H, W).
        extractor: makes the features.
        metrics: what the reference must serve.
        key: a hash of what the images are, by which they are found in the cache without being decoded; of the
            pixels themselves where all are given.
        cache: a directory; a file there is reused only where the hash of key, extractor and preprocessing
            agrees.
    """
    metrics = check_metrics(metrics)
    if isinstance(images, torch.Tensor):
        key = images_hash(images_sum(images), len(images)) if key is None else key
        images = images.split(BATCH)
    path = None
    if cache is not None and key is not None:
        keeps = [
            need for need, names in (("features", NEED_FEATURES), ("spatial", {"sfid"})) if names & {*metrics}
        ]
        path = Path(cache) / f"statistics-{_hash({**extractor.metadata(), 'key': key, 'keeps': keeps})}.npz"
        if path.is_file():
            return Measured.load(path)
    wanted = [name for name in metrics if name != "is"]  # the Inception score asks nothing of a reference
    meter = Meter(extractor, wanted, [sys.maxsize], hashed=True)
    count = 0
    for batch in images:
        meter.update(batch, np.arange(count, count + len(batch)))
        count += len(batch)
    measured = meter.results()[0]
    if path is not None:
        measured.save(path)
    return measured


def _stack(images: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def _hash(record: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]
