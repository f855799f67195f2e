"""Statistics of real images, kept in a cache under a hash of everything that makes them.

The reference of a data set is its training split, at the size the model sees, before the autoencoder: as the
published FIDs of ImageNet are measured. A set small enough to be learnt by heart wants the validation split
beside it.

B images of a batch, S their size, N images in all, D feature width.
"""

import hashlib
import json
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from dit.data.images import Source
from dit.data.latents import LatentSet
from dit.errors import InputError
from dit.evaluation.catalogue import check_metrics, that_read
from dit.evaluation.distributed import place, rank_zero_says
from dit.evaluation.features import Extractor
from dit.evaluation.measure import measure_images
from dit.evaluation.measured import Measured
from dit.evaluation.meter import Meter, images_hash, images_sum

log = logging.getLogger("dit")
BATCH = 256


def latents_reference(
    latents: LatentSet,
    source: Source,
    extractor: Extractor,
    metrics: Iterable[str] = ("fd",),
    *,
    cache: str | Path | None = None,
    distributed: bool = False,
) -> Measured:
    """The real images behind a split of a latent directory, measured.

    Args:
        latents: the split, usually ``train``.
        source: the images it was encoded from.
        extractor: makes the features.
        metrics: what the reference must serve.
        cache: a directory for the result; see ``measure_reference``.
        distributed: whether every rank of the process group calls this and measures its share.
    """
    size = latents.manifest["image_shape"][1]
    images = SourceImages(source, latents.source_index.tolist(), size)
    encoded = latents.manifest["source"]  # the pictures that were encoded, by their bytes
    told = {"kind": encoded["kind"], "content_sha256": encoded["content_sha256"]}
    key = _hash({"source": told, "index": images.index, "image_size": size})
    wanted = _asked_of_references(metrics)
    return _cached(
        lambda: measure_images(images, extractor, wanted, batch_size=BATCH, distributed=distributed)[0],
        _cache_path(cache, key, extractor, wanted),
        distributed,
    )


class SourceImages:
    """Images of a source, decoded and resized, readable by position.

    Args:
        source: where they are.
        index: their places in it.
        image_size: S.
    """

    def __init__(self, source: Source, index: Sequence[int], image_size: int) -> None:
        self.source, self.index, self.image_size = source, index, image_size

    def __len__(self) -> int:
        return len(self.index)

    def read(self, start: int, stop: int) -> torch.Tensor:
        """Images start..stop-1, uint8 (B, 3, S, S)."""
        pixels = [
            self.source.pixels(self.source.content(position), self.image_size)
            for position in self.index[start:stop]
        ]
        return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()


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
    wanted = _asked_of_references(metrics)
    if isinstance(images, torch.Tensor):
        key = images_hash(images_sum(images), len(images)) if key is None else key
        images = images.split(BATCH)

    def measure() -> Measured:
        meter = Meter(extractor, wanted, [sys.maxsize], hashed=True)
        count = 0
        for batch in images:
            meter.update(batch, np.arange(count, count + len(batch)))
            count += len(batch)
        return meter.results()[0]

    return _cached(measure, None if key is None else _cache_path(cache, key, extractor, wanted))


def _asked_of_references(metrics: Iterable[str]) -> list[str]:
    return [name for name in check_metrics(metrics) if name != "is"]  # which compares with nothing


def _cache_path(
    cache: str | Path | None, key: str, extractor: Extractor, metrics: Iterable[str]
) -> Path | None:
    if cache is None:
        return None
    keeps = [part for part in ("features", "spatial") if that_read(part, metrics)]
    return Path(cache) / f"statistics-{_hash({**extractor.metadata(), 'key': key, 'keeps': keeps})}.npz"


def _cached(measure: Callable[[], Measured], path: Path | None, distributed: bool = False) -> Measured:
    """What the file holds, or what is measured now, by all ranks alike, and left there by the first.

    A damaged file is made again: everything in it follows from what it is named after.
    """
    first = place(distributed)[0] == 0
    held = _held(path) if path is not None and first else None
    if distributed and path is not None and rank_zero_says(held is not None) and not first:
        held = Measured.load(path)
    if held is not None:
        return held
    measured = measure()
    if path is not None and first:
        try:
            measured.save(path)
        except OSError as error:  # shared data are often read-only: slower next time, no worse
            log.warning("%s: statistics are not kept (%s)", path, error.strerror)
    return measured


def _held(path: Path) -> Measured | None:
    if not path.is_file():
        return None
    try:
        return Measured.load(path)
    except InputError as error:
        log.warning("%s: damaged, and made again (%s)", path, error)
        return None


def _hash(record: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]
