"""Writing a ``DiT`` as a pipeline of diffusers: transformer, scheduler and autoencoder in one directory."""

import json
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dit.errors import InputError
from dit.files import whole
from dit.network.dit import DiT
from dit.network.export import classes_of, weights_of
from dit.network.layouts import Weights, check_expressible, to_diffusers

# DiT's own training noise and the 250-step sampler it is published with.
DDPM_SCHEDULER: dict[str, Any] = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "clip_sample": False,
    "prediction_type": "epsilon",
}


def save_diffusers(
    model: DiT,
    directory: str | Path,
    autoencoder: str | Path,
    *,
    scheduler: Mapping[str, Any] = DDPM_SCHEDULER,
    latent_mean: Sequence[float] | None = None,
    latent_std: Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
) -> None:
    """Writes a directory that ``diffusers.DiTPipeline.from_pretrained`` loads; needs no diffusers itself.

    diffusers' DiT has slightly other time features (``time_convention``): a network of DiT's convention is
    written all the same, as the published ones are, with a warning. Its pipeline can guide by the null class
    only where there are 1,000 classes, whose number it has built in.

    Args:
        model: the network.
        directory: created, whole or not at all; must not exist yet.
        autoencoder: a diffusers ``AutoencoderKL`` directory, copied.
        scheduler: the contents of ``scheduler_config.json``.
        latent_mean: (C,) mean of the autoencoder's latents that training took away; with ``latent_std`` it is
            folded into the copy's 1x1 convolutions, so that the pipeline's own scaling factor becomes 1.
        latent_std: (C,) standard deviation by which training divided.
        class_names: one per class, for the pipeline's label search.

    Raises:
        InputError: diffusers has no such network, the autoencoder cannot be read, or the directory exists.
    """
    directory, autoencoder = Path(directory), Path(autoencoder)
    _check_exportable(model, directory, autoencoder, latent_mean, latent_std)
    folded = None
    if latent_mean is not None and latent_std is not None:
        folded = _folded(autoencoder, latent_mean, latent_std)
    if model.config.time_convention == "dit":
        warnings.warn(
            "diffusers' DiT spaces its time frequencies by 1/127, this network by 1/128 as DiT does: "
            "its samples will differ slightly from the network's own.",
            stacklevel=2,
        )
    with whole(directory) as made:
        shutil.copytree(autoencoder, made / "vae")
        if folded is not None:
            _replace_autoencoder(made / "vae", folded)
        (made / "transformer").mkdir()
        weights = to_diffusers(weights_of(model), model.config, model.domain.channels)
        save_file(
            {name: tensor.clone() for name, tensor in weights.items()},
            made / "transformer" / "diffusion_pytorch_model.safetensors",
            metadata={"format": "pt"},
        )
        _write_json(made / "transformer" / "config.json", _transformer_settings(model))
        (made / "scheduler").mkdir()
        _write_json(made / "scheduler" / "scheduler_config.json", dict(scheduler))
        _write_json(made / "model_index.json", _pipeline_index(scheduler["_class_name"], class_names))


def _check_exportable(
    model: DiT,
    directory: Path,
    autoencoder: Path,
    latent_mean: Sequence[float] | None,
    latent_std: Sequence[float] | None,
) -> None:
    """Raises InputError for what ``save_diffusers`` cannot write."""
    check_expressible(model.config, "diffusers")
    classes_of(model)
    if model.domain.sizes[0] != model.domain.sizes[1]:
        raise InputError("input_shape", model.domain.shape, "a square in the layout of diffusers")
    if directory.exists():
        raise InputError("directory", str(directory), "a directory that does not exist yet")
    if not (autoencoder / "config.json").is_file():
        raise InputError("autoencoder", str(autoencoder), "a diffusers directory with config.json")
    if (latent_mean is None) != (latent_std is None):
        raise InputError("latent_std", latent_std, "given together with latent_mean, or neither")


def _pipeline_index(scheduler: str, class_names: Sequence[str] | None) -> dict[str, Any]:
    index: dict[str, Any] = {
        "_class_name": "DiTPipeline",
        "_diffusers_version": "0.35.0",
        "scheduler": ["diffusers", scheduler],
        "transformer": ["diffusers", "DiTTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    if class_names is not None:
        index["id2label"] = {str(i): name for i, name in enumerate(class_names)}
    return index


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def _transformer_settings(model: DiT) -> dict[str, Any]:
    return {
        "_class_name": "DiTTransformer2DModel",
        "_diffusers_version": "0.35.0",
        "num_attention_heads": model.config.heads,
        "attention_head_dim": model.config.head_dim,
        "in_channels": model.domain.channels,
        "out_channels": model.out_channels,
        "num_layers": model.config.depth,
        "sample_size": model.domain.sizes[0],
        "patch_size": model.config.patch_size,
        "num_embeds_ada_norm": classes_of(model),
        "activation_fn": "gelu-approximate",
        "attention_bias": True,
        "norm_type": "ada_norm_zero",
        "norm_elementwise_affine": False,
        "norm_eps": 1e-6,
    }


def _folded(autoencoder: Path, mean: Sequence[float], std: Sequence[float]) -> Weights:
    """The autoencoder's weights with unit latents, by changing its two 1x1 convolutions."""
    file = autoencoder / "diffusion_pytorch_model.safetensors"
    weights = load_file(file) if file.is_file() else {}
    names = ("quant_conv.weight", "quant_conv.bias", "post_quant_conv.weight", "post_quant_conv.bias")
    if any(name not in weights for name in names):
        raise InputError("autoencoder", str(autoencoder), f"safetensors weights with {', '.join(names)}")
    channels = weights["post_quant_conv.weight"].shape[1]
    if len(mean) != channels or len(std) != channels:
        raise InputError("latent_mean", list(mean), f"{channels} values, and as many of latent_std")
    m, s = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
    encode_w, encode_b, decode_w, decode_b = (weights[name].double() for name in names)
    decode_b = decode_b + decode_w.flatten(1) @ m
    decode_w = decode_w * s[None, :, None, None]
    encode_w[:channels] /= s[:, None, None, None]  # the first half is the mean, the second the log-variance
    encode_b[:channels] = (encode_b[:channels] - m) / s
    encode_b[channels:] -= 2 * s.log()
    for name, value in zip(names, (encode_w, encode_b, decode_w, decode_b), strict=True):
        weights[name] = value.to(weights[name].dtype)
    return weights


def _replace_autoencoder(directory: Path, weights: dict[str, Tensor]) -> None:
    save_file(weights, directory / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    settings = json.loads((directory / "config.json").read_text())
    settings["scaling_factor"] = 1.0
    settings.pop("shift_factor", None)
    _write_json(directory / "config.json", settings)
