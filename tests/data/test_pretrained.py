"""Autoencoders of diffusers with random weights, from a local directory and with the network off."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from safetensors.torch import save_file

from dit.data.autoencoder import Pretrained
from dit.data.codec import Autoencoder, Codec
from dit.data.encode import encode_dataset
from dit.data.images import Digits
from dit.data.latents import LatentSet
from dit.data.manifest import read_manifest
from dit.data.split import Stratified
from dit.errors import InputError

SCALING, SHIFT = 0.18215, 0.25


class FewDigits(Digits):
    def __len__(self):
        return 60


def kl():
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=SCALING,
        shift_factor=SHIFT,
    )


def tiny():
    return AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
        latent_channels=4,
    )


def dc():
    return AutoencoderDC(
        latent_channels=4,
        attention_head_dim=8,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()),
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=SCALING,
    )


MAKERS = {"AutoencoderKL": kl, "AutoencoderTiny": tiny, "AutoencoderDC": dc}


@pytest.fixture(scope="module", params=MAKERS)
def saved(request, tmp_path_factory):
    """(kind, directory, model)."""
    directory = tmp_path_factory.mktemp("model") / "vae"
    torch.manual_seed(0)
    model = MAKERS[request.param]().eval()
    model.save_pretrained(directory)
    return request.param, directory, model


def encode(directory, spec, **options):
    options = {"name": "few", "image_size": 16, "batch_size": 8} | options
    encode_dataset(directory, FewDigits(), spec, Stratified(10), **options)


def pixels(latent_set, index) -> torch.Tensor:
    digits = FewDigits()
    images = [digits.pixels(digits.content(i), 16) for i in latent_set.source_index[index].tolist()]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def raw(kind: str, model, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        encoded = model.encode(images / 127.5 - 1)
    if kind == "AutoencoderKL":
        return encoded.latent_dist.mean
    return encoded.latents if kind == "AutoencoderTiny" else encoded.latent


def test_latents_and_decoding_are_those_of_diffusers(saved, tmp_path):
    kind, directory, model = saved
    encode(tmp_path / "latents", Pretrained(kind, str(directory), 4, reduction=2), normalise="autoencoder")
    train, codec = LatentSet(tmp_path / "latents", "train"), Codec.open(tmp_path / "latents")
    assert train.manifest["posterior"] == (kind == "AutoencoderKL")
    index = torch.tensor([0, 7, 49])
    images = pixels(train, index)
    latents = raw(kind, model, images)
    assert latents.shape[1:] == train.shape == (4, 8, 8)
    # As latent-diffusion pipelines have it: (z - shift) * scaling goes into the network, once.
    scaling, shift = model.config.get("scaling_factor", 1.0), model.config.get("shift_factor") or 0.0
    expected = (latents - shift) * scaling
    torch.testing.assert_close(train.draw(index), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(codec.encode(images), expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        decoded = model.decode(latents).sample
    levels = (127.5 * decoded + 128).clamp(0, 255)
    assert (codec.decode(train.draw(index)).float() - levels.floor()).abs().max() <= 1


MEAN, STD = [0.1, -0.2, 0.3, 0.0], [0.5, 2.0, 1.0, 4.0]


@pytest.mark.parametrize(
    ("stated", "mean", "std"),
    [
        ({}, [0] * 4, [1] * 4),
        ({"scaling_factor": 0.5}, [0] * 4, [2] * 4),
        ({"shift_factor": 0.25, "scaling_factor": 0.5}, [0.25] * 4, [2] * 4),
        ({"latents_mean": MEAN, "latents_std": STD}, MEAN, STD),
        ({"latents_mean": MEAN, "latents_std": STD, "scaling_factor": 0.5}, MEAN, [1, 4, 2, 8]),
        ({"latents_mean": MEAN, "shift_factor": None, "scaling_factor": None}, MEAN, [1] * 4),
    ],
)
def test_all_of_an_autoencoders_own_statistics_are_obeyed(saved, stated, mean, std, tmp_path):
    """diffusers decodes z * latents_std / scaling_factor + latents_mean, or z / scaling_factor + shift_factor."""
    kind, directory, _ = saved
    shutil.copytree(directory, tmp_path / "vae")
    config = json.loads((tmp_path / "vae" / "config.json").read_text())
    known = {"shift_factor", "scaling_factor", "latents_mean", "latents_std"}
    config = (
        {key: value for key, value in config.items() if key not in known} | {"scaling_factor": 1.0} | stated
    )
    (tmp_path / "vae" / "config.json").write_text(
        json.dumps(config | {"shift_factor": stated.get("shift_factor")})
    )
    found = Autoencoder.load(kind, tmp_path / "vae").own_statistics(4)
    np.testing.assert_allclose(found, [mean, std])


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"latents_mean": [0.0]}, "latents_mean.*4 numbers"),
        ({"latents_std": [1.0, 1.0, 0.0, 1.0]}, "positive"),
        ({"scaling_factor": 0.0}, "positive"),
        ({"scaling_factor": -1.0}, "positive"),
        ({"shift_factor": "a"}, "shift_factor.*finite number"),
        ({"latents_mean": [0, 0, float("nan"), 0]}, "latents_mean.*finite number"),
    ],
)
def test_statistics_that_are_none_are_refused(stated, words):
    model = kl()
    model.register_to_config(**stated)
    with pytest.raises(InputError, match=words):
        Autoencoder("AutoencoderKL", model).own_statistics(4)


def test_channel_statistics_undo_each_other(saved, tmp_path):
    """Unit variance in, the autoencoder's own scale out: the scaling factor plays no part."""
    kind, directory, model = saved
    encode(tmp_path / "latents", Pretrained(kind, str(directory), 4, reduction=2))
    train, codec = LatentSet(tmp_path / "latents", "train"), Codec.open(tmp_path / "latents")
    index = torch.arange(len(train))
    drawn = train.draw(index, torch.randn(len(train), *train.shape))
    assert (drawn.var(dim=(0, 2, 3)) - 1).abs().max() < 0.1
    latents = raw(kind, model, pixels(train, index[:4]))
    torch.testing.assert_close(codec.denormalise(train.draw(index[:4])), latents, rtol=1e-3, atol=1e-4)


def test_the_manifest_knows_weights_not_places(saved, tmp_path):
    kind, directory, model = saved
    spec = Pretrained(kind, str(directory), 4, reduction=2)
    encode(tmp_path / "latents", spec, dtype="bfloat16", flip=True)
    text = (tmp_path / "latents" / "manifest.json").read_text()
    config = (tmp_path / "latents" / "autoencoder" / "config.json").read_text()
    assert str(tmp_path) not in text + config and str(directory) not in text + config
    manifest = read_manifest(tmp_path / "latents")
    assert manifest["dtype"] == "bfloat16" and manifest["flip"]
    assert set(manifest["autoencoder"]["local"]) == {"config.json", "diffusion_pytorch_model.safetensors"}
    elsewhere = directory.with_name("elsewhere")
    if not elsewhere.exists():
        model.save_pretrained(elsewhere)
    assert Pretrained(kind, str(elsewhere), 4, reduction=2).config == spec.config


def test_wrong_shapes_are_refused(saved, tmp_path):
    kind, directory, _ = saved
    with pytest.raises(InputError, match=r"latents.*latent_channels and reduction"):
        encode(tmp_path / "latents", Pretrained(kind, str(directory), 16, reduction=2))


def test_flips_are_encoded_not_mirrored(tmp_path, saved):
    kind, directory, model = saved
    encode(tmp_path / "latents", Pretrained(kind, str(directory), 4, reduction=2), flip=True)
    train = LatentSet(tmp_path / "latents", "train")
    index = torch.arange(4)
    stored = train.moments(index, torch.ones(4, dtype=torch.bool))[:, :4]
    torch.testing.assert_close(stored, raw(kind, model, pixels(train, index).flip(-1)), rtol=1e-4, atol=1e-5)


def test_missing_repository_says_what_to_download(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    spec = Pretrained("AutoencoderKL", "nobody/no-such-autoencoder", 4, reduction=8, subfolder="vae")
    with pytest.raises(InputError) as caught:
        encode(tmp_path / "latents", spec)
    message = str(caught.value)
    for part in (
        "autoencoder.path",
        "huggingface.co/nobody/no-such-autoencoder",
        "vae/config.json",
        "spec.path",
    ):
        assert part in message


def test_missing_and_damaged_directories(tmp_path, saved):
    kind, directory, _ = saved
    with pytest.raises(InputError, match=r"autoencoder.path.*existing folder"):
        encode(tmp_path / "latents", Pretrained(kind, str(tmp_path / "nothing"), 4, reduction=2))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"autoencoder.path.*diffusers directory"):
        encode(tmp_path / "latents", Pretrained(kind, str(tmp_path / "empty"), 4, reduction=2))
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text(json.dumps(json.loads((directory / "config.json").read_text())))
    (broken / "diffusion_pytorch_model.safetensors").write_bytes(b"not weights")
    with pytest.raises(InputError, match=r"autoencoder.path.*readable"):
        encode(tmp_path / "latents", Pretrained(kind, str(broken), 4, reduction=2))
    with pytest.raises(InputError, match=r"autoencoder.kind"):
        Pretrained("VQModel", "a/b", 4, 8)


def test_weights_that_are_not_all_there_are_refused(tmp_path, saved):
    """diffusers would draw the rest at random."""
    kind, directory, model = saved
    shutil.copytree(directory, tmp_path / "vae")
    weights = model.state_dict()
    gone = sorted(weights)[0]
    del weights[gone]
    save_file(weights, tmp_path / "vae" / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=rf"autoencoder.path.*without 1 of its weights: {gone}"):
        encode(tmp_path / "latents", Pretrained(kind, str(tmp_path / "vae"), 4, reduction=2))


def test_weights_by_the_older_names_of_attention_are_complete(tmp_path):
    """As in sd-vae-ft-ema, whose file is older than diffusers' present names."""
    torch.manual_seed(0)
    model = kl().eval()
    model.save_pretrained(tmp_path / "vae")
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = model.state_dict()
    for name in [name for name in weights if ".attentions." in name]:
        renamed = name
        for new, old in older.items():
            renamed = renamed.replace(f".{new}.", f".{old}.")
        weights[renamed] = weights.pop(name)
    assert any(".query." in name for name in weights)
    save_file(weights, tmp_path / "vae" / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    encode(tmp_path / "latents", Pretrained("AutoencoderKL", str(tmp_path / "vae"), 4, reduction=2))
    train = LatentSet(tmp_path / "latents", "train")
    expected = raw("AutoencoderKL", model, pixels(train, torch.arange(4)))
    torch.testing.assert_close(train.moments(torch.arange(4))[:, :4], expected, rtol=1e-4, atol=1e-5)


def test_weights_that_overflow_are_refused(tmp_path):
    model = kl()
    with torch.no_grad():
        model.quant_conv.bias.fill_(float("nan"))
    model.save_pretrained(tmp_path / "vae")
    with pytest.raises(InputError, match="not finite"):
        encode(tmp_path / "latents", Pretrained("AutoencoderKL", str(tmp_path / "vae"), 4, reduction=2))
