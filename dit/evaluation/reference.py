"""Statistics of real images, kept in a cache under a hash of everything that makes them.

The reference of a data set is its training split, at the size the model sees, before the autoencoder: as the
published FIDs of ImageNet are measured. A set small enough to be learnt by heart wants the validation split
beside it.

B images of a batch, S their size, N images in all, D feature width.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from dit.data.images import Source
from dit.data.latents import LatentSet
from dit.evaluation.evaluate import describe_extractor
from dit.evaluation.features import Extractor
from dit.evaluation.statistics import Statistics


def latents_reference(
    latents: LatentSet, source: Source, extractor: Extractor, *, cache: str | Path | None = None
) -> Statistics:
    """The statistics of the real images behind a split of a latent directory.

    Args:
        latents: the split, usually ``train``.
        source: the images it was encoded from.
        extractor: makes the features.
        cache: a directory for the result; see ``reference_statistics``.
    """
    size = latents.manifest["image_shape"][1]
    index = latents.source_index.tolist()
    key = _hash({"source": source.identity(), "index": index, "image_size": size})
    return reference_statistics(source_images(source, index, size), extractor, key=key, cache=cache)


def source_images(
    source: Source, index: Iterable[int], image_size: int, batch_size: int = 256
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
    images: Iterable[torch.Tensor],
    extractor: Extractor,
    *,
    key: str | None = None,
    cache: str | Path | None = None,
) -> Statistics:
    """The statistics of images on an extractor, with the hash of their pixels in ``metadata["images"]``.

    Args:
        images: batches of uint8 (B, 3, H, W).
        extractor: makes the features.
        key: a hash of what the images are, by which they are found in the cache without being decoded.
        cache: a directory; a file there is reused only where the hash of key, extractor and preprocessing
            agrees.
    """
    made_by = describe_extractor(extractor)
    path = None
    if cache is not None and key is not None:
        path = Path(cache) / f"statistics-{_hash({**made_by, 'key': key})}.npz"
        if path.is_file():
            return Statistics.load(path)
    pixels = ImagesHash()
    stats = Statistics(extractor.dim, made_by)
    for batch in images:
        pixels.update(batch)
        with torch.inference_mode():
            stats.update(extractor.features(batch))
    stats.metadata["images"] = pixels.hexdigest()
    if path is not None:
        stats.save(path)
    return stats


class ImagesHash:
    """A running hash of images: their common shape and their pixels, the same for any batch split."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._started = False

    def update(self, images: torch.Tensor) -> None:
        """Adds uint8 images (B, 3, H, W)."""
        if not self._started:
            self._digest.update(repr(tuple(images.shape[1:])).encode())
            self._started = True
        self._digest.update(images.cpu().contiguous().numpy().tobytes())

    def hexdigest(self) -> str:
        """The first 16 hex digits of the sha256."""
        return self._digest.hexdigest()[:16]


def _stack(images: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def _hash(record: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]
