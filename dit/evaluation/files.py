"""Evaluation of images on disk: any set against any reference.

B images of a batch, N images in all.
"""

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from dit.condition import NOTHING
from dit.data.images import Source, UnreadableImage
from dit.errors import InputError
from dit.evaluation.catalogue import check_metrics, that_read
from dit.evaluation.evaluate import NO_PICTURES, Evaluation, evaluated
from dit.evaluation.features import Extractor, file_sha256
from dit.evaluation.images import ImageFiles, ImageSet, holds_images, open_images
from dit.evaluation.measure import check_reference, measure_images
from dit.evaluation.measured import Measured
from dit.evaluation.statistics import read_arrays

READERS = 8  # threads that read files: hashing waits for the disk


def evaluate_images(
    images: ImageSet,
    extractor: Extractor,
    reference: Measured,
    *,
    n: int | None = None,
    metrics: Iterable[str] = ("fd",),
    subsets: Sequence[int] = (),
    batch_size: int = 128,
    preview: int = 0,
    distributed: bool = False,
) -> Evaluation:
    """The metrics of a set of images, made by whomever, against a reference.

    Args:
        images: from ``open_images``.
        extractor: makes the features.
        reference: from ``open_reference``.
        n: how many of the first images; all of them by default.
        metrics: names of ``dit.evaluation.catalogue.METRICS``.
        subsets: increasing smaller N to report too.
        batch_size: images at a time; moves no number.
        preview: how many of the first images to hand back.
        distributed: whether every rank of the process group calls this and measures its share.

    Raises:
        InputError: fewer images than asked for, an image that cannot be read, or a reference of another
            extractor.
    """
    n, metrics = len(images) if n is None else n, check_reference(reference, metrics, extractor)
    sets = measure_images(
        images, extractor, metrics, counts=[*subsets, n], batch_size=batch_size, distributed=distributed
    )
    crop = images.image_size if isinstance(images, ImageFiles) else None
    stated = {"rounding": "as stored" if crop is None else f"as stored, ADM's centre crop to {crop}"}
    shown = images.read(0, min(preview, n)) if preview else NO_PICTURES
    return evaluated([*subsets, n], sets, extractor, reference, metrics, stated, shown, NOTHING)


def images_identity(path: str | Path, key: str = "images") -> str:
    """What lies at a path, which messages call ``key``, without decoding it: the hash of its bytes, in the order in
    which a folder's images are measured. Names, sizes and times may stay when pictures change.
    """
    path = Path(path)
    if path.is_file():
        return file_sha256(path)
    images = open_images(path, key=key)
    assert isinstance(images, ImageFiles)
    source, digest = images.source, hashlib.sha256()
    with ThreadPoolExecutor(READERS) as pool:
        for content in pool.map(partial(_content_sha256, source), range(len(source))):
            digest.update(content)
    return digest.hexdigest()


def _content_sha256(source: Source, index: int) -> bytes:
    try:
        return hashlib.sha256(source.content(index)).digest()
    except UnreadableImage as error:
        raise InputError(source.describe(index), str(error), "an image that can be read") from None


def open_reference(
    path: str | Path,
    extractor: Extractor,
    metrics: Iterable[str] = ("fd",),
    *,
    image_size: int | None = None,
    batch_size: int = 128,
    distributed: bool = False,
) -> Measured:
    """A reference from a file of statistics (ours, or ADM's .npz with mu and sigma) or from images.

    An ADM file holds statistics of the whole set and, for precision and recall, a batch of its images:
    statistics are taken as they are, features made from the images where a metric needs them.

    Args:
        path: .npz, folder, .zip or .parquet.
        extractor: makes features of images.
        metrics: what the reference must serve.
        image_size: brings images to this size by ADM's centre crop; None takes them as they are.
        batch_size: images at a time; moves no number.
        distributed: whether every rank of the process group calls this and measures its share.
    """
    metrics = [name for name in check_metrics(metrics) if name != "is"]
    path = Path(path)

    def measured(images: ImageSet, wanted: Sequence[str]) -> Measured:
        if len(images) < 2:
            raise InputError("reference", f"({len(images)} images in {path})", "at least 2 images")
        return measure_images(images, extractor, wanted, batch_size=batch_size, distributed=distributed)[0]

    if path.suffix != ".npz":
        return measured(open_images(path, image_size, "reference"), metrics)
    arrays, metadata = read_arrays(path, ("mu", "sigma"))
    if not arrays:
        return measured(open_images(path, image_size, "reference"), metrics)
    stored = Measured.load(path)
    if "extractor" not in metadata:  # not ours: the numbers themselves are all there is to name it by
        digest = hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays)))
        stored.stats.metadata["images"] = digest.hexdigest()[:16]
    needed = that_read("features", metrics, of="reference")
    if stored.features is None and needed and holds_images(path):
        stored.features = measured(open_images(path, image_size, "reference"), needed).features
    return stored
