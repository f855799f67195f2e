"""Nearest neighbours in feature space: precision and recall, and whether training images come back.

N generated, M real images, D feature width. Distances are Euclidean, in float64, a block of rows at a time.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from dit.errors import InputError, check_number

NEIGHBOURHOOD = 3
BLOCK_ELEMENTS = 2**24  # distances held at a time: 128 MB


class Nearest(NamedTuple):
    """The nearest real image of each generated one: its distance (N,) and place (N,)."""

    distance: np.ndarray
    index: np.ndarray


def precision_recall(
    sample: np.ndarray, real: np.ndarray, neighbourhood: int = NEIGHBOURHOOD
) -> dict[str, float]:
    """Improved precision and recall: shares of points inside the other set's k-nearest-neighbour balls.

    Args:
        sample: features (N, D) of generated images. Both numbers move with N and M: ADM's tables use 50,000
            and 10,000.
        real: features (M, D) of real images.
        neighbourhood: k.

    Source: Kynkäänniemi et al., arXiv:1904.06991, eq. 1 and 2.
    """
    check_number(
        "evaluation.precision_recall.neighbourhood",
        neighbourhood,
        low=1,
        high=min(len(sample), len(real)) - 1,
        integer=True,
    )
    real_radius, sample_radius = (_radii(points, neighbourhood) for points in (real, sample))
    return {
        "precision": _share_covered(sample, real, real_radius),
        "recall": _share_covered(real, sample, sample_radius),
    }


def memorisation(
    sample: np.ndarray, training: np.ndarray, held_out: np.ndarray | None = None
) -> dict[str, float]:
    """Whether samples lie closer to training images than they should.

    ``authenticity`` is the share of samples which are farther from their nearest training image than that
    image is from the other training images: about one half for a fresh draw of the data, near zero for
    copies. With held-out images, ``copies`` is the share of samples closer to training than all but 1 % of
    the held-out ones: 0.01 for a fresh draw.

    Args:
        sample: features (N, D) of generated images.
        training: features (M, D) of training images.
        held_out: features of real images the model has not seen.

    Source: Alaa et al., arXiv:2102.08921, section 3.3 (authenticity).
    """
    nearest = nearest_training(sample, training)
    spacing = _radii(training, 1)[nearest.index]
    found = {
        "authenticity": float((nearest.distance > spacing).mean()),
        "nearest_training_median": float(np.median(nearest.distance)),
    }
    if held_out is not None:
        threshold = np.quantile(nearest_training(held_out, training).distance, 0.01)
        found["copies"] = float((nearest.distance < threshold).mean())
    return found


def nearest_training(sample: np.ndarray, training: np.ndarray) -> Nearest:
    """The nearest training image of each sample, for looking at the pairs."""
    found = [distances.min(1) for distances in _distances(sample, training)]
    return Nearest(
        torch.cat([pair.values for pair in found]).numpy(),
        torch.cat([pair.indices for pair in found]).numpy(),
    )


def _radii(points: np.ndarray, neighbourhood: int) -> np.ndarray:
    """Each point's distance to its k-th nearest other point; the 0th is itself."""
    parts = [distances.kthvalue(neighbourhood + 1).values for distances in _distances(points, points)]
    return torch.cat(parts).numpy()


def _share_covered(points: np.ndarray, centres: np.ndarray, radii: np.ndarray) -> float:
    limit = torch.from_numpy(radii)
    covered = sum(int((distances <= limit).any(1).sum()) for distances in _distances(points, centres))
    return covered / len(points)


def _distances(rows: np.ndarray, columns: np.ndarray) -> Iterator[torch.Tensor]:
    """Blocks of the matrix of distances, in the order of ``rows``."""
    if rows.ndim != 2 or columns.ndim != 2 or rows.shape[1] != columns.shape[1]:
        raise InputError("features.shape", (rows.shape, columns.shape), "(N, D) and (M, D)")
    x, y = (torch.from_numpy(np.asarray(points)).double() for points in (rows, columns))
    for block in x.split(max(1, BLOCK_ELEMENTS // len(y))):
        yield torch.cdist(block, y)
