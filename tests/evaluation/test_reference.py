import copy

import numpy as np
import pytest
import torch

from dit.data.autoencoder import Identity
from dit.data.encode import encode_dataset
from dit.data.images import Digits
from dit.data.latents import LatentSet
from dit.data.split import Stratified
from dit.evaluation.extractors import load_extractor
from dit.evaluation.reference import SourceImages, latents_reference, measure_reference


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> LatentSet:
    directory = tmp_path_factory.mktemp("latents") / "digits"
    encode_dataset(directory, Digits(), Identity(), Stratified(count=297), name="digits", image_size=32)
    return LatentSet(directory, "train")


def test_the_reference_is_the_training_split_before_the_autoencoder(digits, tmp_path) -> None:
    extractor = load_extractor("digits")
    stats = latents_reference(digits, Digits(), extractor, cache=tmp_path).stats
    pixels = digits.moments(torch.arange(len(digits)))  # the identity's latents are the pixels, in [-1, 1]
    images = (pixels * 127.5 + 127.5).round().to(torch.uint8)
    expected = extractor.features(images).double().numpy()
    assert stats.n == len(digits) == 1500
    np.testing.assert_allclose(stats.mean, expected.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(stats.cov, np.cov(expected, rowvar=False), rtol=1e-4, atol=1e-6)


def test_the_cache_needs_no_decoding_and_is_the_extractors_own(digits, tmp_path, monkeypatch) -> None:
    extractor = load_extractor("digits")
    first = latents_reference(digits, Digits(), extractor, cache=tmp_path).stats
    monkeypatch.setattr(Digits, "pixels", lambda *_: pytest.fail("decoded although cached"))
    again = latents_reference(digits, Digits(), extractor, cache=tmp_path).stats
    assert again.metadata == first.metadata and again.mean.tolist() == first.mean.tolist()
    extractor.sha256 = "another"
    with pytest.raises(pytest.fail.Exception):
        latents_reference(digits, Digits(), extractor, cache=tmp_path)


def test_the_images_hash_moves_with_a_pixel_and_not_with_the_batches(images) -> None:
    extractor = load_extractor("digits")
    whole = measure_reference([images], extractor).stats
    parts = measure_reference(images.split(64), extractor).stats
    assert whole.metadata["images"] == parts.metadata["images"]
    changed = images.clone()
    changed[5, 0, 0, 0] ^= 1
    assert measure_reference([changed], extractor).stats.metadata["images"] != whole.metadata["images"]


def test_source_images_are_the_sources_pixels_in_order() -> None:
    source = Digits()
    images = SourceImages(source, [5, 3, 8], 32)
    assert [len(images.read(0, 2)), len(images.read(2, 4))] == [2, 1]
    expected = source.pixels(source.content(8), 32).transpose(2, 0, 1)
    np.testing.assert_array_equal(images.read(2, 3)[0].numpy(), expected)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", None], ids=["empty", "torn", "a flipped bit"])
def test_damaged_statistics_are_made_again(digits, tmp_path, damage) -> None:
    extractor = load_extractor("digits")
    first = latents_reference(digits, Digits(), extractor, ("kid",), cache=tmp_path)
    (file,) = tmp_path.glob("statistics-*.npz")
    whole = file.read_bytes()
    middle = len(whole) // 2
    file.write_bytes(
        whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :] if damage is None else damage
    )
    again = latents_reference(digits, Digits(), extractor, ("kid",), cache=tmp_path)
    assert again.stats.mean.tolist() == first.stats.mean.tolist()
    assert again.features is not None and np.array_equal(again.features, first.features)
    assert file.read_bytes() == whole


def test_statistics_are_known_by_the_bytes_of_the_pictures_that_were_encoded(digits, tmp_path) -> None:
    """Other pictures of the same names, sizes and places among all: as a folder that was drawn anew has them."""
    extractor = load_extractor("digits")
    latents_reference(digits, Digits(), extractor, cache=tmp_path)
    other = copy.copy(digits)
    source = {**digits.manifest["source"], "content_sha256": "0" * 64}
    other.manifest = {**digits.manifest, "source": source}
    latents_reference(other, Digits(), extractor, cache=tmp_path)
    assert len(list(tmp_path.glob("statistics-*.npz"))) == 2
