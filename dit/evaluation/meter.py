"""Images to a measured set: statistics of their features, and the rows that some metrics need.

B images of a batch, N images in all, D feature width, K classes, S width of spatial features.
"""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from dit.errors import InputError
from dit.evaluation.catalogue import check_count, check_metrics, refuse, that_read
from dit.evaluation.distributed import (
    gather_rows,
    reduce_statistics,
    sum_integers,
)
from dit.evaluation.features import Extractor, Outputs
from dit.evaluation.measured import Measured
from dit.evaluation.statistics import Statistics

HASH_MODULUS = 2**128


class Meter:
    """Measures a stream of images once, for any metrics and for several n.

    Args:
        extractor: makes the features.
        metrics: names of ``METRICS`` that will be asked for; rows are kept only where one needs them.
        marks: increasing numbers of images at which a result is wanted, the last being all of them. Image i
            belongs to the results of all marks above i; those at or above the last are not counted.
        num_classes: classes of the labels; the accuracy is counted where the extractor's logits are as many.
        hashed: whether to hash the pixels, as references do.
        distributed: whether every rank of the process group holds a share of the images.
    """

    def __init__(
        self,
        extractor: Extractor,
        metrics: Iterable[str],
        marks: Sequence[int],
        *,
        num_classes: int | None = None,
        hashed: bool = False,
        distributed: bool = False,
    ) -> None:
        self.extractor, self.metrics = extractor, check_metrics(metrics)
        self.marks, self.hashed, self.distributed = list(marks), hashed, distributed
        if not self.marks or sorted(set(self.marks)) != self.marks:
            raise InputError("evaluation.n", tuple(self.marks), "increasing numbers of images")
        check_count(self.metrics, self.marks[0])
        self.num_classes = num_classes
        self._stats: list[Statistics] = []  # one for the images between each mark and the one before
        self._spatial: list[Statistics] = []
        self._right = [0] * len(self.marks)
        self._judged = False
        self._index: list[np.ndarray] = []
        self._features: list[np.ndarray] = []
        self._logits: list[np.ndarray] = []
        self._hash_sum = 0

    def update(self, images: torch.Tensor, index: np.ndarray, labels: torch.Tensor | None = None) -> None:
        """Adds uint8 images (B, 3, H, W), their places ``index`` (B,) among all, and labels (B,) if known."""
        with torch.inference_mode():
            out = self.extractor.outputs(images)
        self._allocate(out)
        counted = index < self.marks[-1]
        segments = np.searchsorted(self.marks, index, side="right")
        right = np.zeros(len(index), bool)
        if labels is not None and out.logits is not None and out.logits.shape[1] == self.num_classes:
            right, self._judged = (out.logits.argmax(1).cpu() == labels.cpu()).numpy(), True
        for segment in np.unique(segments[counted]):
            chosen = np.flatnonzero(segments == segment)
            self._stats[segment].update(out.features[chosen])
            self._right[segment] += int(right[chosen].sum())
            if self._spatial and out.spatial is not None:
                self._spatial[segment].update(out.spatial[chosen])
        self._keep(out, index, np.flatnonzero(counted))
        if self.hashed:
            self._hash_sum += images_sum(images[np.flatnonzero(counted)])

    def _allocate(self, out: Outputs) -> None:
        if not self._stats:
            made_by = self.extractor.metadata()
            self._stats = [Statistics(out.features.shape[1], made_by) for _ in self.marks]
            if wanted := that_read("spatial", self.metrics):
                if out.spatial is None:
                    refuse(
                        wanted[0], self.extractor.name, "an extractor with spatial features: inception:FILE"
                    )
                self._spatial = [Statistics(out.spatial.shape[1], made_by) for _ in self.marks]

    def _keep(self, out: Outputs, index: np.ndarray, counted: np.ndarray) -> None:
        self._index.append(index[counted])
        if that_read("features", self.metrics):
            self._features.append(out.features[counted].cpu().numpy())
        if wanted := that_read("logits", self.metrics):
            if out.logits is None:
                refuse(wanted[0], self.extractor.name, "an extractor with classes: inception:FILE")
            self._logits.append(out.logits[counted].cpu().numpy())

    def results(self) -> list[Measured]:
        """The measured set at every mark, over all ranks; every rank must call it and have seen an image."""
        if not self._stats:
            raise InputError("images", 0, "at least one image on every process")
        stats = self._cumulated(self._stats)
        spatial = self._cumulated(self._spatial) if self._spatial else [None] * len(self.marks)
        features, logits = self._rows(self._features), self._rows(self._logits)
        right, hash_sum = self._right, self._hash_sum
        if self.distributed:
            right, hash_sum = [sum_integers(count) for count in right], sum_integers(hash_sum)
        if self.hashed:
            stats[-1].metadata["images"] = images_hash(hash_sum, stats[-1].n or 0)
        right = np.cumsum(right)
        return [
            Measured(
                stats[place],
                spatial[place],
                None if features is None else features[:mark],
                None if logits is None else logits[:mark],
                int(right[place]) / mark if self._judged else None,
            )
            for place, mark in enumerate(self.marks)
        ]

    def _cumulated(self, segments: list[Statistics]) -> list[Statistics]:
        if self.distributed:
            segments = [reduce_statistics(segment) for segment in segments]
        found = segments[:1]
        for segment in segments[1:]:
            found.append(found[-1].copy().merge(segment))
        return found

    def _rows(self, parts: list[np.ndarray]) -> np.ndarray | None:
        if not parts:
            return None
        rows, index = np.concatenate(parts), np.concatenate(self._index)
        if self.distributed:
            return gather_rows(rows, index)
        return rows[np.argsort(index, kind="stable")]


def images_sum(images: torch.Tensor) -> int:
    """The sum of the hashes of images' shapes and pixels: the same for any order, batches and ranks."""
    total = 0
    for image in images.cpu().contiguous().numpy():
        digest = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()
        total += int.from_bytes(digest[:16], "little")
    return total % HASH_MODULUS


def images_hash(total: int, n: int) -> str:
    """The name of a set of images: 16 hex digits of the hash of their count and their ``images_sum``."""
    return hashlib.sha256(f"{n} {total % HASH_MODULUS}".encode()).hexdigest()[:16]
