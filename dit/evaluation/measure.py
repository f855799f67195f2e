"""Images to measured sets, and two measured sets to numbers.

B images of a batch, N images in all, D feature width, K classes, S width of spatial features.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from dit.errors import InputError, check_number
from dit.evaluation.catalogue import LACKING, METRICS, check_metrics, refuse
from dit.evaluation.distributed import (
    batches_in_a_row,
    place,
)
from dit.evaluation.features import Extractor
from dit.evaluation.images import ImageSet
from dit.evaluation.measured import Measured
from dit.evaluation.meter import Meter


def measure_images(
    images: ImageSet,
    extractor: Extractor,
    metrics: Iterable[str] = ("fd",),
    *,
    counts: Sequence[int] | None = None,
    batch_size: int = 128,
    distributed: bool = False,
) -> list[Measured]:
    """A set of images measured at one or several counts, with the hash of the pixels of them all.

    Args:
        images: read by position.
        extractor: makes the features.
        metrics: names of ``METRICS`` that will be asked for.
        counts: increasing numbers of the first images; all of them by default.
        batch_size: images at a time.
        distributed: whether every rank of the process group calls this and measures its share.
    """
    counts = [len(images)] if counts is None else list(counts)
    n = counts[-1]
    check_number("evaluation.n", n, low=2, integer=True)
    check_number("evaluation.batch_size", batch_size, low=1, integer=True)
    if n > len(images):
        raise InputError("evaluation.n", n, f"at most {len(images)}, the images there are")
    meter = Meter(extractor, metrics, counts, hashed=True, distributed=distributed)
    mine = list(batches_in_a_row(n, batch_size, *place(distributed)))
    for batch in mine:
        meter.update(images.read(batch.start, batch.stop), np.asarray(batch))
    if not mine:  # more processes than batches
        meter.update(images.read(0, 1), np.array([n]))
    return meter.results()


def check_reference(
    reference: Measured, metrics: Iterable[str], extractor: Extractor | None = None
) -> tuple[str, ...]:
    """The names of metrics, checked, and whether the reference serves them: asked before any image is measured.

    Args:
        reference: real images.
        metrics: names of ``METRICS``.
        extractor: what the other images will be measured with, where that is yet to be done.
    """
    wanted = check_metrics(metrics)
    if extractor is not None:
        for key, value in extractor.metadata().items():
            known = reference.stats.metadata.get(key)
            if known not in (None, value):
                remedy = "Measure the reference's images with this extractor, or name the other one."
                raise InputError(f"reference: {key}", known, f"{value}, as evaluation.extractor has", remedy)
    for name in wanted:
        part = METRICS[name].reference
        if part is not None and getattr(reference, part) is None:
            refuse(name, *LACKING[part])
    return wanted


def compare(
    sample: Measured, reference: Measured, metrics: Iterable[str] = ("fd",)
) -> dict[str, float | int]:
    """The metrics of a sample against a reference, by the names under which records keep them.

    Args:
        sample: generated images.
        reference: real images on the same extractor.
        metrics: names of ``METRICS``.
    """
    wanted = check_reference(reference, metrics)
    made: dict[str, float | int] = {}
    for name, metric in METRICS.items():
        if name in wanted and (metric.sample is None or getattr(sample, metric.sample) is not None):
            made |= metric.function(sample, reference)
    return made
