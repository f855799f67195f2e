"""Our DiT equals diffusers' with the same weights, forward and in gradients, in both directions."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from diffusers.pipelines.dit.pipeline_dit import DiTPipeline

from dit.condition import Classes, labelled
from dit.domain import Domain
from dit.errors import InputError
from dit.network.config import DiTConfig
from dit.network.dit import DiT
from dit.network.pipeline import save_diffusers
from dit.network.published import load_published

from .test_dit import trained

# (width, depth, heads, patch_size, side, channels, out_channels, classes)
SIZES = [(32, 2, 4, 2, 8, 4, 8, 10), (72, 3, 3, 1, 4, 3, 3, 5), (96, 4, 6, 4, 16, 4, 8, 1000)]


def their_model(size: tuple[int, ...], **settings) -> DiTTransformer2DModel:
    width, depth, heads, patch_size, side, channels, out_channels, classes = size
    torch.manual_seed(width)
    model = DiTTransformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=width // heads,
        in_channels=channels,
        out_channels=out_channels,
        num_layers=depth,
        sample_size=side,
        patch_size=patch_size,
        num_embeds_ada_norm=classes,
        **settings,
    )
    first = model.transformer_blocks[0].norm1.emb.state_dict()
    for block in model.transformer_blocks:  # one embedder for all blocks, as in every published DiT
        block.norm1.emb.load_state_dict(first)
    return model.eval()  # in training mode it drops labels


def inputs(size: tuple[int, ...], labels: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    side, channels, classes = size[4], size[5], size[7]
    x = torch.randn(4, channels, side, side)
    y = {"mixed": torch.tensor([0, classes, classes - 1, 1]), "null": torch.full((4,), classes)}[labels]
    return x, torch.tensor([0.0, 3.0, 500.0, 999.0]), y


def their_parameter(model: DiTTransformer2DModel, name: str) -> list[torch.Tensor]:
    """Gradients of all copies of one of our parameters in their model, in our shape."""
    rest = {
        "x_embedder.proj": "pos_embed.proj",
        "final_layer.modulation": "proj_out_1",
        "final_layer.linear": "proj_out_2",
    }
    embedders = {
        "t_embedder.mlp.0": "timestep_embedder.linear_1",
        "t_embedder.mlp.2": "timestep_embedder.linear_2",
        "y_embedder": "class_embedder.embedding_table",
    }
    parts = {
        "modulation": "norm1.linear",
        "attn.proj": "attn1.to_out.0",
        "mlp.fc1": "ff.net.0.proj",
        "mlp.fc2": "ff.net.2",
    }
    stem, kind = name.rsplit(".", 1)
    if stem in rest:
        names = [rest[stem]]
    elif stem in embedders:
        names = [
            f"transformer_blocks.{i}.norm1.emb.{embedders[stem]}"
            for i in range(len(model.transformer_blocks))
        ]
    else:
        _, i, part = stem.split(".", 2)
        if part == "attn.qkv":
            qkv = [model.get_parameter(f"transformer_blocks.{i}.attn1.to_{c}.{kind}").grad for c in "qkv"]
            return [torch.cat(qkv)]  # type: ignore[arg-type]
        names = [f"transformer_blocks.{i}.{parts[part]}"]
    grads = [model.get_parameter(f"{n}.{kind}").grad for n in names]
    return [grad.flatten(1) if grad.ndim == 4 else grad for grad in grads if grad is not None]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("labels", ["mixed", "null"])
@pytest.mark.parametrize("norm_eps", [1e-6, 1e-5], ids=["as DiT", "diffusers' default"])
def test_imported_weights_compute_the_same(size, labels: str, norm_eps: float, tmp_path: Path) -> None:
    theirs = their_model(size, norm_eps=norm_eps)
    theirs.save_pretrained(tmp_path / "transformer")
    ours = load_published(tmp_path, "diffusers")
    x, t, y = inputs(size, labels)
    out, expected = ours(x, t, labelled(y)), theirs(x, t, y).sample
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    target = torch.randn_like(out)
    for result in (out, expected):
        (result - target).square().sum().backward()
    for name, parameter in ours.named_parameters():
        expected_grad = torch.stack(their_parameter(theirs, name)).sum(0)
        assert parameter.grad is not None
        assert (parameter.grad - expected_grad).norm() <= 1e-4 * expected_grad.norm(), name


def test_other_sizes_compute_the_same(tmp_path: Path) -> None:
    """At twice the side it was built for, positions stretch as diffusers' do."""
    theirs = their_model(SIZES[0])
    theirs.save_pretrained(tmp_path)
    ours = load_published(tmp_path, "diffusers")
    x, t, y = inputs(SIZES[0], "mixed")
    x = torch.randn(4, 4, 16, 16)
    torch.testing.assert_close(ours(x, t, labelled(y)), theirs(x, t, y).sample, atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("autoencoder") / "vae"
    torch.manual_seed(0)
    AutoencoderKL(block_out_channels=(8,), latent_channels=4, norm_num_groups=4).save_pretrained(directory)
    return directory


def our_model(convention: str = "diffusers", classes: int = 10) -> DiT:
    return trained(
        DiT(DiTConfig(32, 2, 4, 2, time_convention=convention), Domain(4, (8, 8)), Classes(classes), 8)
    )


def test_exported_pipeline_loads_runs_and_comes_back_bit_for_bit(autoencoder: Path, tmp_path: Path) -> None:
    ours = our_model()
    save_diffusers(ours, tmp_path / "pipeline", autoencoder, class_names=["zero", "one"])
    pipeline = DiTPipeline.from_pretrained(tmp_path / "pipeline")
    x, t, y = inputs(SIZES[0], "mixed")
    theirs = pipeline.transformer.eval()
    torch.testing.assert_close(theirs(x, t, y).sample, ours(x, t, labelled(y)), atol=1e-5, rtol=1e-5)
    assert theirs.config.norm_eps == ours.blocks[0].norm1.eps == 1e-6  # DiT's own
    noise = dict(beta_start=1e-4, beta_end=0.02, beta_schedule="linear", num_train_timesteps=1000)  # DiT's
    assert (
        noise.items() <= dict(pipeline.scheduler.config).items() and not pipeline.scheduler.config.clip_sample
    )
    assert pipeline.labels == {"one": 1, "zero": 0}
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(class_labels=[3, 1], guidance_scale=1.0, num_inference_steps=2, output_type="np").images
    assert images.shape == (2, 8, 8, 3)
    back = load_published(tmp_path / "pipeline", "diffusers")
    assert back.config == ours.config
    for name, parameter in ours.state_dict().items():
        assert torch.equal(back.state_dict()[name], parameter), name


def test_latent_scale_is_folded_into_the_autoencoder(autoencoder: Path, tmp_path: Path) -> None:
    mean, std = [0.5, -1.0, 0.0, 2.0], [0.5, 2.0, 1.0, 4.0]
    save_diffusers(our_model(), tmp_path / "p", autoencoder, latent_mean=mean, latent_std=std)
    before = AutoencoderKL.from_pretrained(autoencoder)
    after = AutoencoderKL.from_pretrained(tmp_path / "p/vae")
    assert after.config.scaling_factor == 1.0
    m, s = torch.tensor(mean)[None, :, None, None], torch.tensor(std)[None, :, None, None]
    latents, images = torch.randn(2, 4, 8, 8), torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        expected = before.decode(latents * s + m).sample
        torch.testing.assert_close(after.decode(latents).sample, expected, atol=1e-4, rtol=1e-4)
        old, new = before.encode(images).latent_dist, after.encode(images).latent_dist
    torch.testing.assert_close(new.mean, (old.mean - m) / s, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(new.std, old.std / s, atol=1e-6, rtol=1e-4)


def test_export_says_what_diffusers_cannot_do(autoencoder: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="time frequencies"):
        save_diffusers(our_model("dit"), tmp_path / "a", autoencoder)
    with pytest.raises(InputError, match="does not exist yet"):
        save_diffusers(our_model(), tmp_path / "a", autoencoder)
    with pytest.raises(InputError, match="autoencoder"):
        save_diffusers(our_model(), tmp_path / "b", tmp_path)
    with pytest.raises(InputError, match="latent_std"):
        save_diffusers(our_model(), tmp_path / "b", autoencoder, latent_mean=[0, 0, 0, 0])
    with pytest.raises(InputError, match="latent_mean"):
        save_diffusers(our_model(), tmp_path / "b", autoencoder, latent_mean=[0.0], latent_std=[1.0])
    shutil.copytree(autoencoder, tmp_path / "vae")
    (tmp_path / "vae/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"safetensors weights with quant_conv\.weight"):
        save_diffusers(
            our_model(), tmp_path / "b", tmp_path / "vae", latent_mean=[0.0] * 4, latent_std=[1.0] * 4
        )
    with pytest.raises(InputError, match="square"):
        wide = DiT(DiTConfig(32, 2, 4, 2), Domain(4, (8, 16)), Classes(10))
        save_diffusers(wide, tmp_path / "b", autoencoder)
    for options in (
        {"rope": True},
        {"conditioning": "adaln"},
        {"mlp_ratio": 2.0},
        {"time_convention": "sit"},
    ):
        with pytest.raises(InputError, match=f"network.{next(iter(options))}"):
            save_diffusers(
                DiT(DiTConfig(32, 2, 4, 2, **options), Domain(4, (8, 8)), Classes(10)),
                tmp_path / "b",
                autoencoder,
            )
    with pytest.raises(KeyError):  # a scheduler without its class: the last file of all
        save_diffusers(our_model(), tmp_path / "b", autoencoder, scheduler={})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "vae"]


def test_import_refuses_what_a_dit_is_not(tmp_path: Path) -> None:
    theirs = their_model(SIZES[0])
    with torch.no_grad():
        theirs.transformer_blocks[1].norm1.emb.class_embedder.embedding_table.weight.add_(1)
    theirs.save_pretrained(tmp_path / "apart")
    with pytest.raises(InputError, match="one time and label embedder"):
        load_published(tmp_path / "apart", "diffusers")
    their_model(SIZES[0], activation_fn="gelu").save_pretrained(tmp_path / "gelu")
    with pytest.raises(InputError, match="activation_fn"):
        load_published(tmp_path / "gelu", "diffusers")
    with pytest.raises(InputError, match=r"config\.json"):
        load_published(tmp_path, "diffusers")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/config.json").write_text(json.dumps({}))
    with pytest.raises(InputError, match="diffusion_pytorch_model"):
        load_published(tmp_path / "empty", "diffusers")
    (tmp_path / "empty/config.json").write_text("{cut")
    with pytest.raises(InputError, match=r"config\.json.*a file of JSON"):
        load_published(tmp_path / "empty", "diffusers")


def test_weights_of_dit_converted_to_diffusers_may_keep_their_time(tmp_path: Path) -> None:
    """The published DiT-XL/2 in diffusers' format was trained with DiT's own frequencies."""
    their_model(SIZES[0]).save_pretrained(tmp_path)
    assert load_published(tmp_path, "diffusers").config.time_convention == "diffusers"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_published(tmp_path, "diffusers", time_convention="dit").config.time_convention == "dit"
