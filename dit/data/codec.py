"""Between images and latents: the working autoencoder, and the codec that adds the normalisation of a
latent directory.

B batch, C H W latent. Raw latents are the autoencoder's own; *normalised* ones have unit variance per
channel over the training split. No `scaling_factor` of diffusers is applied anywhere else: the manifest's
mean and std are the only scaling there is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dit.data.latents import per_channel
from dit.data.manifest import REENCODE, check_file, read_manifest
from dit.data.schema import AUTOENCODERS
from dit.errors import InputError, check_choice, check_number

# keys of an autoencoder's configuration, and what they are where it has none
STATISTICS = (("shift_factor", 0.0), ("scaling_factor", 1.0), ("latents_mean", 0.0), ("latents_std", 1.0))


def diffusers_class(kind: str) -> Any:
    """The class of diffusers by its name; imported here, since that costs seconds."""
    check_choice("autoencoder.kind", kind, AUTOENCODERS)
    from diffusers.models.autoencoders import autoencoder_dc, autoencoder_kl, autoencoder_tiny

    modules = {
        "AutoencoderKL": autoencoder_kl,
        "AutoencoderTiny": autoencoder_tiny,
        "AutoencoderDC": autoencoder_dc,
    }
    return getattr(modules[kind], kind)


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] to uint8 by ``clamp(127.5 x + 128, 0, 255)``, truncated: the rounding of every
    number we report.
    """
    return (127.5 * images.float() + 128).clamp(0, 255).to(torch.uint8)


class Autoencoder:
    """A working autoencoder.

    Args:
        kind: ``identity`` or the name of a diffusers class.
        module: the diffusers module; None for the identity.
    """

    def __init__(self, kind: str, module: nn.Module | None) -> None:
        self.kind, self.module = kind, module
        if module is not None:
            module.eval().requires_grad_(False)

    @classmethod
    def load(cls, kind: str, folder: str | Path) -> "Autoencoder":
        """Reads a diffusers directory; ``folder`` is not used for the identity."""
        if kind == "identity":
            return cls(kind, None)
        if not (Path(folder) / "config.json").is_file():
            raise InputError("autoencoder", str(folder), "a diffusers directory (config.json and weights)")
        options = {"low_cpu_mem_usage": False, "use_safetensors": True}
        try:
            return cls(kind, diffusers_class(kind).from_pretrained(str(folder), **options))
        except (OSError, ValueError) as error:
            allowed = f"a readable {kind} with its weights as safetensors, which run no code"
            raise InputError("autoencoder", str(folder), allowed, REENCODE) from error

    def to(self, device: torch.device | str) -> "Autoencoder":
        """Moves the weights; returns itself."""
        if self.module is not None:
            self.module.to(device)
        return self

    def own_statistics(self, channels: int) -> tuple[list[float], list[float]]:
        """The (mean, std) per channel of raw latents that the autoencoder's configuration states.

        ``shift_factor`` and ``scaling_factor`` hold for all channels, ``latents_mean`` and ``latents_std`` for each.

        Source: diffusers' pipelines, which decode ``z * latents_std / scaling_factor + latents_mean``, and
            ``z / scaling_factor + shift_factor``.
        """
        config = getattr(self.module, "config", {})
        shift, scaling = (_stated(config, key, 1) or [default] for key, default in STATISTICS[:2])
        mean, std = (
            _stated(config, key, channels) or [default] * channels for key, default in STATISTICS[2:]
        )
        if scaling[0] <= 0 or min(std) <= 0:
            got = f"(scaling_factor {scaling[0]}, latents_std {std})"
            raise InputError("autoencoder", got, "positive numbers", "Or set data.normalise=channel.")
        return [shift[0] + m for m in mean], [s / scaling[0] for s in std]

    @torch.no_grad()
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images uint8 (B, 3, H, W) to the posterior's (mean, log-variance), raw; no log-variance where it
        is a point.
        """
        x = images.float() / 127.5 - 1
        if self.module is None:
            return x, None
        encoded = self.module.encode(x)  # type: ignore[operator]
        if self.kind == "AutoencoderKL":
            return encoded.latent_dist.mean, encoded.latent_dist.logvar
        return (encoded.latents if self.kind == "AutoencoderTiny" else encoded.latent), None

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Raw latents (B, C, H, W) to float images (B, 3, H, W), about [-1, 1]."""
        if self.module is None:
            return latents
        return self.module.decode(latents).sample  # type: ignore[operator]


def _stated(config: Mapping[str, Any], key: str, count: int) -> list[float] | None:
    """The ``count`` numbers of a key of an autoencoder's configuration; None where it has none."""
    value = config.get(key)
    if value is None:
        return None
    values = list(value) if isinstance(value, list | tuple) else [value]
    if len(values) != count:
        raise InputError(f"autoencoder {key}", value, f"{count} numbers", "Or set data.normalise=channel.")
    for one in values:
        check_number(f"autoencoder {key}", one)
    return [float(one) for one in values]


@dataclass(frozen=True)
class Codec:
    """An autoencoder with the per-channel statistics of one latent directory.

    Args:
        autoencoder: the working autoencoder.
        channel_mean: (C,) mean of the raw latents over the training split.
        channel_std: (C,) their standard deviation.
        pictures: whether the raw items are pictures; else they are arrays or tokens, which need no rounding.
        vocabulary: V of tokens; 0 of numbers.
    """

    autoencoder: Autoencoder
    channel_mean: Tensor
    channel_std: Tensor
    pictures: bool = True
    vocabulary: int = 0

    @classmethod
    def open(cls, directory: str | Path, device: torch.device | str = "cpu") -> "Codec":
        """The codec of a finished latent directory; its autoencoder's files are checked by their hashes."""
        manifest: dict[str, Any] = read_manifest(directory)
        for entry in manifest["autoencoder"]["files"]:
            check_file(Path(directory), entry)
        autoencoder = Autoencoder.load(manifest["autoencoder"]["kind"], Path(directory) / "autoencoder").to(
            device
        )
        mean, std = (torch.tensor(manifest[key], device=device) for key in ("channel_mean", "channel_std"))
        pictures = "image_shape" in manifest or manifest.get("tokens_are_levels", False)
        return cls(autoencoder, mean, std, pictures, manifest.get("vocabulary", 0))

    def normalise(self, latents: Tensor) -> Tensor:
        """Raw latents (B, C, H, W), or (B, C, size, ...), to unit variance per channel."""
        mean, std = (per_channel(one, latents.ndim - 2) for one in (self.channel_mean, self.channel_std))
        return (latents - mean) / std

    def denormalise(self, latents: Tensor) -> Tensor:
        """Unit-variance latents (B, C, H, W), or (B, C, size, ...), to the autoencoder's own scale."""
        mean, std = (per_channel(one, latents.ndim - 2) for one in (self.channel_mean, self.channel_std))
        return latents * std + mean

    def encode(self, images: Tensor) -> Tensor:
        """Images uint8 (B, 3, H, W) to the posterior mean at unit variance (B, C, H, W); arrays are normalised, tokens
        stay as they are.
        """
        if self.vocabulary:
            return images
        return self.normalise(self.autoencoder.encode(images)[0] if self.pictures else images.float())

    def decode(self, latents: Tensor) -> Tensor:
        """Latents at unit variance (B, C, H, W) to uint8 images (B, 3, H, W); arrays to the units of their source,
        tokens (B, 1, size, ...) to themselves, or to grey images where they are levels from black to white.
        """
        if self.vocabulary:
            grey = (latents * (255 / (self.vocabulary - 1))).round().to(torch.uint8)
            return grey.repeat(1, 3, 1, 1) if self.pictures else latents
        raw = self.denormalise(latents)
        return to_uint8(self.autoencoder.decode(raw)) if self.pictures else raw
