"""The benchmark's distances on a few real photographs: damage is seen, and more damage is farther."""

from benchmarks.cifar_distances import distances
from dit.evaluation.extractors import load_extractor
from dit.evaluation.images import open_images


def test_a_flip_is_nearer_than_compression_and_compression_than_blur(shared) -> None:
    extractor = load_extractor(f"torchscript:{shared / 'weights/cifar10_resnet56.ts'}")
    found = dict(distances(open_images(shared / "data/cifar10/train.parquet"), extractor, n=400))
    assert found["flipped"] < found["compressed"] < found["blurred"]
    assert found["halves"] < found["blurred"] / 10
