"""Statistics of real images, kept in a cache under a hash of everything that makes them.

N images, D feature width.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import torch

from dit.evaluation.evaluate import describe_extractor
from dit.evaluation.features import Extractor
from dit.evaluation.statistics import Statistics


def reference_statistics(
    images: torch.Tensor,
    extractor: Extractor,
    *,
    cache: str | Path | None = None,
    batch_size: int = 256,
) -> Statistics:
    """The statistics of real images on an extractor, with the images' hash in ``metadata["images"]``.

    Args:
        images: (N, 3, H, W) uint8, the source's images, not the autoencoder's reconstructions.
        extractor: makes the features.
        cache: a directory; a file there is reused only where the hash of images, extractor and preprocessing
            agrees.
        batch_size: images at a time; moves no number.
    """
    metadata = {**describe_extractor(extractor), "images": images_hash([images])}
    key = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()[:16]
    path = Path(cache) / f"statistics-{key}.npz" if cache is not None else None
    if path is not None and path.is_file():
        return Statistics.load(path)
    stats = Statistics(extractor.dim, metadata)
    for batch in images.split(batch_size):
        with torch.inference_mode():
            stats.update(extractor.features(batch))
    if path is not None:
        stats.save(path)
    return stats


def images_hash(batches: Iterable[torch.Tensor]) -> str:
    """The first 16 hex digits of the sha256 of the images' shape and pixels, for any batch split."""
    digest = hashlib.sha256()
    shape: tuple[int, ...] | None = None
    for batch in batches:
        if shape is None:
            shape = tuple(batch.shape[1:])
            digest.update(repr(shape).encode())
        digest.update(batch.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
