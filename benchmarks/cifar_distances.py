"""Fréchet distances of CIFAR-10 to itself: one half to the other, and all of it to a damaged copy.

    python benchmarks/cifar_distances.py --images train.parquet --extractor torchscript:cifar10_resnet56.ts

Twenty minutes on one core for all 50,000 images, a minute with ``--n 2000``. Expected order: flipped,
halves, compressed, blurred (docs/evaluation.md).
"""

import argparse
import io
from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.functional import gaussian_blur

from dit.evaluation.extractors import load_extractor
from dit.evaluation.features import Extractor
from dit.evaluation.images import ImageSet, open_images
from dit.evaluation.meter import Meter
from dit.evaluation.metrics import frechet_distance
from dit.evaluation.statistics import Statistics

Change = Callable[[torch.Tensor], torch.Tensor]


def flipped(images: torch.Tensor) -> torch.Tensor:
    """Left and right exchanged."""
    return images.flip(3)


def blurred(images: torch.Tensor) -> torch.Tensor:
    """A Gaussian of one pixel."""
    return gaussian_blur(images, [7, 7], [1.0, 1.0])


def compressed(images: torch.Tensor, quality: int = 30) -> torch.Tensor:
    """Stored as JPEG of low quality; at 75, that of the files themselves, hardly a pixel would change."""
    made = []
    for image in images.permute(0, 2, 3, 1).numpy():
        file = io.BytesIO()
        Image.fromarray(image).save(file, "jpeg", quality=quality)
        made.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2)


def measured(images: ImageSet, extractor: Extractor, start: int, stop: int, change: Change) -> Statistics:
    """Images start..stop-1, changed: their statistics."""
    meter = Meter(extractor, (), [stop])
    for low in range(start, stop, 250):
        high = min(low + 250, stop)
        meter.update(change(images.read(low, high)), np.arange(low, high))
    return meter.results()[0].stats


def distances(images: ImageSet, extractor: Extractor, n: int) -> Iterator[tuple[str, float]]:
    """Distances of the first half to the second, and of all to each damaged copy, one after another."""
    first, second = (measured(images, extractor, *ends, lambda x: x) for ends in ((0, n // 2), (n // 2, n)))
    yield "halves", frechet_distance(first, second)
    whole = first.copy().merge(second)
    for change in (flipped, compressed, blurred):
        yield change.__name__, frechet_distance(measured(images, extractor, 0, n, change), whole)


def main() -> None:
    """Prints the distances."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", required=True)
    parser.add_argument("--extractor", required=True)
    parser.add_argument("--n", type=int, default=50_000)
    arguments = parser.parse_args()
    extractor = load_extractor(arguments.extractor)
    for name, value in distances(open_images(arguments.images), extractor, arguments.n):
        print(f"{name:12s} {value:.4f}", flush=True)


if __name__ == "__main__":
    main()
