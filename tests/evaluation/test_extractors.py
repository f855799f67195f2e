"""Inception against torch-fidelity with one weights file; TorchScript; DINOv2's layout; wrong files."""

import math
import pickle
import zipfile

import pytest
import torch
import torch_fidelity
from torch import nn
from torch_fidelity import feature_extractor_inceptionv3 as theirs

from dit.errors import InputError
from dit.evaluation.features import load_extractor
from dit.evaluation.measure import compare
from dit.evaluation.reference import measure_reference


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Inception weights drawn at random, of a scale that keeps activations alive."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theirs, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(theirs.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        network = theirs.FeatureExtractorInceptionV3("random", ["2048"])
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            module.weight.data.normal_(0, math.sqrt(2 / fan_in), generator=generator)
    path = tmp_path_factory.mktemp("inception") / "random.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    coarse = torch.rand(14, 3, 5, 5, generator=generator)
    smooth = nn.functional.interpolate(coarse, (40, 48), mode="bicubic").clamp(0, 1)
    return (smooth * 255).to(torch.uint8)


def test_inception_features_and_logits_equal_torch_fidelitys(weights, pictures) -> None:
    extractor = load_extractor(f"inception:{weights}")
    reference = theirs.FeatureExtractorInceptionV3(
        "reference", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(weights)
    )
    with torch.no_grad():
        features, logits = reference(pictures[:4])
        found = extractor.outputs(pictures[:4])
    assert features.std() > 1e-3, "the random network is alive"
    torch.testing.assert_close(found.features, features, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.logits, logits, rtol=1e-5, atol=1e-6)
    assert extractor.name == "inception-custom"


def test_spatial_features_are_the_first_seven_channels_of_mixed_6_conv(weights, pictures) -> None:
    """By walking the network: mixed_6 of the TensorFlow graph is Mixed_6d here, conv its 1x1 branch."""
    network = load_extractor(f"inception:{weights}").network  # type: ignore[attr-defined]
    x = theirs.interpolate_bilinear_2d_like_tensorflow1x(
        pictures[:2].float(), size=(299, 299), align_corners=False
    )
    x = (x - 128) / 128
    stem = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
    for name in (*stem, "MaxPool_2", "Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c"):
        x = getattr(network, name)(x)
    branch = network.Mixed_6d.branch1x1(x)  # (2, 192, 17, 17)
    found = load_extractor(f"inception:{weights}").outputs(pictures[:2]).spatial
    assert found is not None and found.shape == (2, 2023)
    torch.testing.assert_close(
        found.view(2, 17, 17, 7), branch[:, :7].permute(0, 2, 3, 1), rtol=1e-5, atol=1e-6
    )


@pytest.mark.slow
def test_fid_on_images_equals_torch_fidelitys(weights, pictures) -> None:
    halves = pictures[:7], pictures[7:]
    extractor = load_extractor(f"inception:{weights}")
    sets = [measure_reference(half, extractor) for half in halves]
    with pytest.warns(UserWarning, match="7 images for 2048"):
        ours = compare(*sets)["frechet_distance"]
    found = torch_fidelity.calculate_metrics(
        input1=_Images(halves[0]),
        input2=_Images(halves[1]),
        fid=True,
        cuda=False,
        cache=False,
        verbose=False,
        feature_extractor_weights_path=str(weights),
    )
    assert ours == pytest.approx(found["frechet_inception_distance"], rel=1e-4)


class _Images(torch.utils.data.Dataset):
    def __init__(self, images: torch.Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.images[index]


def test_missing_inception_weights_say_what_to_download(tmp_path) -> None:
    for spec in ("inception", f"inception:{tmp_path / 'absent.pth'}"):
        with pytest.raises(
            InputError, match=r"Download https://.*weights-inception-2015-12-05-6726825d\.pth"
        ):
            load_extractor(spec)


def test_a_file_with_the_official_name_must_have_the_official_hash(tmp_path, weights) -> None:
    impostor = tmp_path / "weights-inception-2015-12-05-6726825d.pth"
    impostor.write_bytes(weights.read_bytes())
    with pytest.raises(InputError, match="sha256 6726825d"):
        load_extractor(f"inception:{impostor}")


def test_weights_which_are_programs_or_of_another_network_are_refused(tmp_path) -> None:
    class Program:
        def __reduce__(self):
            return (print, ("run",))

    program = tmp_path / "program.pth"
    program.write_bytes(pickle.dumps(Program()))
    with pytest.raises(InputError, match="made of tensors alone"):
        load_extractor(f"inception:{program}")
    other = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(2)}, other)
    with pytest.raises(InputError, match="Inception weights"):
        load_extractor(f"inception:{other}")


class Means(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.double().mean((2, 3))


def test_any_torchscript_file_is_an_extractor(tmp_path, images) -> None:
    path = tmp_path / "means.ts"
    torch.jit.script(Means()).save(str(path))
    extractor = load_extractor(f"torchscript:{path}")
    found = extractor.outputs(images[:5])
    torch.testing.assert_close(found.features, images[:5].float().mean((2, 3)))
    assert found.features.dtype == torch.float32 and found.logits is None
    assert extractor.name == "torchscript-means" and len(extractor.sha256) == 64


def test_the_cifar_resnet_gives_features_and_logits(shared, images) -> None:
    found = load_extractor(f"torchscript:{shared / 'weights/cifar10_resnet56.ts'}").outputs(images[:5])
    assert found.features.shape == (5, 64)
    assert found.logits is not None and found.logits.shape == (5, 10)


def test_what_is_no_torchscript_is_refused(tmp_path) -> None:
    path = tmp_path / "bad.ts"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", "y")
    with pytest.raises(InputError, match="a TorchScript file"):
        load_extractor(f"torchscript:{path}")
    with pytest.raises(InputError, match="existing weights file"):
        load_extractor("torchscript:absent.ts")


def test_dinov2_reads_timms_layout_and_takes_the_class_token(tmp_path, monkeypatch, images) -> None:
    """On a small model of the same family: the large one has 300 million parameters."""
    import timm

    from dit.evaluation.extractors import DINOv2

    name = "vit_small_patch14_dinov2"
    network = timm.create_model(name, num_classes=0, img_size=224).eval()
    torch.save(network.state_dict(), tmp_path / "small.pth")
    monkeypatch.setattr(DINOv2, "model_name", name)
    extractor = load_extractor(f"dinov2:{tmp_path / 'small.pth'}")
    x = nn.functional.interpolate(images[:2].float(), (224, 224), mode="bicubic", antialias=True).clamp(
        0, 255
    )
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.no_grad():
        tokens = network.forward_features((x / 255 - mean) / std)
        found = extractor.features(images[:2])
    torch.testing.assert_close(found, tokens[:, 0], rtol=1e-4, atol=1e-5)


def test_dinov2_without_a_network_says_what_to_download(monkeypatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise FileNotFoundError("not in the cache, and the hub cannot be reached")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(InputError, match=r"Download timm/vit_large_patch14_dinov2\.lvd142m"):
        load_extractor("dinov2")
