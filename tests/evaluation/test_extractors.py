"""Inception against torch-fidelity with one weights file; TorchScript; DINOv2's layout; wrong files."""

import copy
import math
import pickle
import zipfile

import numpy as np
import pytest
import torch
import torch_fidelity
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch_fidelity import feature_extractor_inceptionv3 as theirs

from dit.errors import InputError
from dit.evaluation.extractors import load_extractor
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


@pytest.fixture(scope="module")
def small_dinov2():
    """A small model of DINOv2's family with positions that vary: the large one has 300 million parameters."""
    import timm

    network = timm.create_model("vit_small_patch14_dinov2", num_classes=0).eval()  # for 518x518 pixels
    network.pos_embed.data.normal_(generator=torch.Generator().manual_seed(0))
    return network


@pytest.fixture
def dinov2_file(small_dinov2, tmp_path, monkeypatch):
    from dit.evaluation.extractors import DINOv2

    monkeypatch.setattr(DINOv2, "model_name", "vit_small_patch14_dinov2")
    save_file(small_dinov2.state_dict(), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def keys_cubic(size: int, stored: int) -> np.ndarray:
    """(size, stored) weights of Keys' kernel (1981), a = -0.75, where the scale is (size + 0.1)/stored."""
    weights = np.zeros((size, stored))
    for i in range(size):
        place = (i + 0.5) * stored / (size + 0.1) - 0.5
        for j in range(math.floor(place) - 1, math.floor(place) + 3):
            d = abs(place - j)
            near = 1.25 * d**3 - 2.25 * d**2 + 1
            far = -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
            weights[i, min(max(j, 0), stored - 1)] += near if d <= 1 else far
    return weights


def seen_by_dinov2(network, pictures: torch.Tensor) -> torch.Tensor:
    """Class tokens of pictures (B, 3, 224, 224) in 0..255, positions resized as torch.hub's model does."""
    stored = network.pos_embed.detach()[0].double().numpy()
    weights = keys_cubic(16, 37)
    grid = np.einsum("ia,jb,abd->ijd", weights, weights, stored[1:].reshape(37, 37, -1))
    positions = torch.from_numpy(np.concatenate([stored[:1], grid.reshape(256, -1)]))[None].float()
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.no_grad():
        patches = network.patch_embed.proj((pictures / 255 - mean) / std).flatten(2).transpose(1, 2)
        tokens = torch.cat([network.cls_token.expand(len(pictures), -1, -1), patches], 1) + positions
        for block in network.blocks:
            tokens = block(tokens)
        return network.norm(tokens)[:, 0]


def test_dinov2_resizes_positions_and_pictures_as_the_published_evaluators(
    small_dinov2, dinov2_file, images
) -> None:
    """EDM2's calculate_metrics.py and dgm-eval, both over torch.hub's network; compared with them on a machine."""
    edm2, dgm = load_extractor(f"dinov2:{dinov2_file}"), load_extractor(f"dinov2-pil:{dinov2_file}")
    unclipped = nn.functional.interpolate(images[:2].float(), (224, 224), mode="bicubic", antialias=True)
    assert unclipped.max() > 255, "the pictures tell clipped from unclipped"
    pil = [
        Image.fromarray(one.permute(1, 2, 0).numpy()).resize((224, 224), Image.BICUBIC) for one in images[:2]
    ]
    whole = torch.stack([torch.from_numpy(np.array(one)).permute(2, 0, 1) for one in pil]).float()
    for extractor, pictures in ((edm2, unclipped), (dgm, whole)):
        found = seen_by_dinov2(small_dinov2, pictures)
        torch.testing.assert_close(extractor.features(images[:2]), found, rtol=1e-3, atol=1e-4)
    assert edm2.name != dgm.name and edm2.preprocessing != dgm.preprocessing
    assert edm2.sha256 == dgm.sha256


def test_dinov2_reads_torch_hubs_file_and_positions_of_224_pixels(
    small_dinov2, dinov2_file, images, tmp_path
) -> None:
    stored = small_dinov2.state_dict()
    torch.save({**stored, "mask_token": torch.zeros(1, 384)}, tmp_path / "hub.pth")
    hub, timms = (load_extractor(f"dinov2:{file}") for file in (tmp_path / "hub.pth", dinov2_file))
    assert torch.equal(hub.features(images[:1]), timms.features(images[:1]))
    torch.save({**stored, "pos_embed": stored["pos_embed"][:, :257]}, tmp_path / "resized.pth")
    resized = load_extractor(f"dinov2:{tmp_path / 'resized.pth'}")
    assert "as stored" in resized.preprocessing and resized.preprocessing != hub.preprocessing
    assert torch.equal(resized.network.pos_embed, stored["pos_embed"][:, :257])  # type: ignore[attr-defined]


def test_dinov2_of_the_hub_is_that_of_the_file(small_dinov2, dinov2_file, images, monkeypatch) -> None:
    from_file = load_extractor(f"dinov2:{dinov2_file}").features(images[:1])
    asked = []

    def hub(name: str, **options: object):
        asked.append(options)
        return copy.deepcopy(small_dinov2)

    monkeypatch.setattr("timm.create_model", hub)
    extractor = load_extractor("dinov2")
    assert asked == [{"pretrained": True, "num_classes": 0}] and len(extractor.sha256) == 64
    assert torch.equal(extractor.features(images[:1]), from_file)


def test_dinov2_refuses_weights_of_another_network(small_dinov2, dinov2_file, tmp_path) -> None:
    stored = small_dinov2.state_dict()
    wrong = {
        "absent": {name: tensor for name, tensor in stored.items() if name != "norm.bias"},
        "further": {**stored, "register_tokens": torch.zeros(1, 4, 384)},
        "shape": {**stored, "norm.bias": torch.zeros(3)},
        "grid": {**stored, "pos_embed": torch.zeros(1, 1000, 384)},
    }
    for name, weights in wrong.items():
        torch.save(weights, tmp_path / f"{name}.pth")
        with pytest.raises(InputError, match="weights of this network"):
            load_extractor(f"dinov2:{tmp_path / name}.pth")


def test_dinov2_without_a_network_says_what_to_download(monkeypatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise FileNotFoundError("not in the cache, and the hub cannot be reached")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(InputError, match=r"Download timm/vit_large_patch14_dinov2\.lvd142m"):
        load_extractor("dinov2")
