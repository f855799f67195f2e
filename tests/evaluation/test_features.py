import pytest
import torch

from dit.data.images import Digits
from dit.data.split import Stratified
from dit.errors import InputError
from dit.evaluation import features
from dit.evaluation.extractors import load_extractor
from dit.evaluation.features import DIGITS_CLASSIFIER, Extractor
from dit.evaluation.reference import SourceImages


@pytest.fixture(scope="module")
def held_out() -> tuple[torch.Tensor, torch.Tensor]:
    """The digits which conf/data/digits.yaml holds out; the classifier has not seen them."""
    source = Digits()
    chosen = Stratified(count=297).chooser(source)
    index = [i for i in range(len(source)) if chosen(i, source.content(i))]
    images = SourceImages(source, index, 32).read(0, len(index))
    return images, torch.tensor([source.label(i) for i in index])


def accuracy(images: torch.Tensor, labels: torch.Tensor) -> float:
    return float((load_extractor("digits").logits(images).argmax(1) == labels).float().mean())


def test_the_digits_classifier_is_small_pinned_and_right_on_held_out_digits(held_out) -> None:
    assert DIGITS_CLASSIFIER.stat().st_size <= 300_000
    assert len(held_out[1]) >= 250
    assert accuracy(*held_out) >= 0.98


def test_it_stays_right_on_blurred_and_noisy_digits(held_out) -> None:
    """As an autoencoder gives them back: about 20 dB of PSNR."""
    images, labels = held_out
    blurred = torch.nn.functional.avg_pool2d(images.float(), 5, stride=1, padding=2, count_include_pad=False)
    noise = 15 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    degraded = (blurred + noise).clamp(0, 255)
    psnr = 10 * torch.log10(255**2 / (degraded - images).square().mean())
    assert 18 < psnr < 22
    assert accuracy(degraded.to(torch.uint8), labels) >= 0.98


def test_features_are_the_penultimate_layer_in_float32(held_out) -> None:
    extractor = load_extractor("digits")
    assert isinstance(extractor, Extractor)
    found = extractor.features(held_out[0][:7])
    assert found.shape == (7, 64) and found.dtype == torch.float32
    torch.testing.assert_close(extractor.network.head(found), extractor.logits(held_out[0][:7]))  # type: ignore[attr-defined]


def test_a_changed_weights_file_is_refused(tmp_path, monkeypatch) -> None:
    data = bytearray(DIGITS_CLASSIFIER.read_bytes())
    data[-1] ^= 1
    changed = tmp_path / "changed.safetensors"
    changed.write_bytes(data)
    monkeypatch.setattr(features, "DIGITS_CLASSIFIER", changed)
    with pytest.raises(InputError, match=r"changed\.safetensors.*sha256"):
        load_extractor("digits")


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(2, 3, 32, 32),
        torch.zeros(2, 1, 32, 32, dtype=torch.uint8),
        torch.zeros(2, 3, 64, 64, dtype=torch.uint8),
    ],
    ids=["float", "grey", "size"],
)
def test_images_of_another_type_or_size_are_refused(images: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"uint8 \(B, 3, 32, 32\)"):
        load_extractor("digits").features(images)


def test_an_unknown_extractor_is_refused() -> None:
    with pytest.raises(InputError, match=r"evaluation\.extractor.*digits"):
        load_extractor("digit")
