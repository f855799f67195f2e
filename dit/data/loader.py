"""The order of the data: a pure function of (seed, images seen), so that resuming needs no saved state.

Every rank computes the indices of the global batch and takes its slice: the order is the same for any
number of them.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from dit.errors import check_number

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def _mix(z: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64: a bijection of 64-bit integers that looks random.

    Source: Steele, Lea & Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014, figure 17
        (constants: variant 13).
    """
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@lru_cache(maxsize=4)
def permutation(seed: int, n: int, epoch: int) -> np.ndarray:
    """The order of epoch ``epoch``: (n,) int64, read-only.

    Sorts keyed hashes of 0..n-1. Own integer arithmetic rather than a library's shuffle, whose stream may
    change with its
    version: an order that changes under an upgrade would break resuming without a word.
    """
    key = np.array([seed & _MASK, epoch & _MASK], np.uint64)
    stream = _mix(_mix(key[:1] + np.uint64(_GOLDEN)) ^ (key[1:] * np.uint64(_GOLDEN) + np.uint64(1)))
    hashes = _mix(stream + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(_GOLDEN))
    order = np.argsort(hashes, kind="stable")
    order.flags.writeable = False
    return order


def indices(seed: int, n: int, images_seen: int, batch: int) -> Tensor:
    """The images of the batch that follows after ``images_seen``: (batch,) int64.

    Every epoch of ``n`` images is a fresh permutation; a batch may straddle epochs.

    Args:
        seed: of the order.
        n: images in the split.
        images_seen: the training clock, over the whole run.
        batch: size of the global batch.
    """
    check_number("n", n, low=1, integer=True)
    check_number("images_seen", images_seen, low=0, integer=True)
    check_number("batch", batch, low=1, integer=True)
    epoch, start = divmod(images_seen, n)
    parts, missing = [], batch
    while missing:
        part = permutation(seed, n, epoch)[start : start + missing]
        parts.append(part)
        missing -= len(part)
        epoch, start = epoch + 1, 0
    return torch.from_numpy(np.concatenate(parts))
