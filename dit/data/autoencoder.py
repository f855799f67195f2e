"""Which autoencoder stands between images and latents: small values that know latent shapes without
importing torch.

`obtain` gives the working `Codec` part (torch): loaded, or trained on the spot where the value says so.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dit.errors import InputError, check_number

if TYPE_CHECKING:
    from torch import Tensor

    from dit.data.codec import Autoencoder

Progress = Callable[[str, int, int, str], None]  # (stage, done, total, detail)


def silent(stage: str, done: int, total: int, detail: str) -> None:
    """The progress callback of those who want none."""


@dataclass(frozen=True)
class Identity:
    """No autoencoder: the latents are the pixels, scaled to [-1, 1]."""

    @property
    def config(self) -> dict[str, Any]:
        """What the manifest stores and the configuration hash covers."""
        return {"kind": "identity"}

    def latent_shape(self, image_size: int) -> tuple[int, int, int]:
        """(C, H, W) of the latents of images of this size."""
        return (3, image_size, image_size)

    def obtain(
        self, folder: Path, images: "Callable[[], Iterable[Tensor]]", progress: Progress = silent
    ) -> "Autoencoder":
        """The working autoencoder; needs neither folder nor images."""
        from dit.data.codec import Autoencoder

        return Autoencoder("identity", None)


@dataclass(frozen=True)
class TrainedKL:
    """A small `AutoencoderKL` (diffusers) trained on the spot, on the training images only.

    The loss is mean squared error in [-1, 1] plus ``kl_weight`` times the mean KL divergence per latent
    element; Adam with linear warm-up over the first 50 steps and linear decay over the second half. Same
    seed and machine: same bits.

    Args:
        widths: channels of the resolution levels; each level but the last halves the image.
        latent_channels: channels of the latent.
        kl_weight: weight of the KL term.
        learning_rate: peak learning rate.
        batch_size: images per step.
        steps: optimizer steps.
        seed: of the weights, the batches and the posterior draws.

    Source: Kingma & Welling, 1312.6114; Rombach et al., 2112.10752 (architecture).
    """

    widths: tuple[int, ...]
    latent_channels: int
    kl_weight: float
    learning_rate: float
    batch_size: int
    steps: int
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))  # YAML gives a list
        if not self.widths:
            raise InputError("autoencoder.widths", self.widths, "at least one width")
        for width in self.widths:
            check_number("autoencoder.widths", width, low=8, integer=True)
            if width % 8:
                raise InputError(
                    "autoencoder.widths", width, "multiples of 8 (group normalisation has 8 groups)"
                )
        check_number("autoencoder.latent_channels", self.latent_channels, low=1, integer=True)
        check_number("autoencoder.kl_weight", self.kl_weight, low=0)
        check_number("autoencoder.learning_rate", self.learning_rate, above=0)
        check_number("autoencoder.batch_size", self.batch_size, low=1, integer=True)
        check_number("autoencoder.steps", self.steps, low=1, integer=True)
        check_number("autoencoder.seed", self.seed, low=0, integer=True)

    @property
    def config(self) -> dict[str, Any]:
        """What the manifest stores and the configuration hash covers."""
        return {"kind": "AutoencoderKL", "trained": asdict(self) | {"widths": list(self.widths)}}

    def latent_shape(self, image_size: int) -> tuple[int, int, int]:
        """(C, H, W) of the latents of images of this size."""
        factor = 2 ** (len(self.widths) - 1)
        if image_size % factor:
            raise InputError(
                "data.image_size", image_size, f"a multiple of {factor}, this autoencoder's reduction"
            )
        return (self.latent_channels, image_size // factor, image_size // factor)

    def obtain(
        self, folder: Path, images: "Callable[[], Iterable[Tensor]]", progress: Progress = silent
    ) -> "Autoencoder":
        """The trained autoencoder: read from ``folder`` where it is complete, else trained and saved there.

        Args:
            folder: where the diffusers directory is kept.
            images: gives the training images, batches of uint8 (b, 3, H, W).
            progress: told after every few steps.
        """
        from dit.data.autoencoder_training import train_kl
        from dit.data.codec import Autoencoder

        if not (folder / "config.json").is_file():
            train_kl(self, folder, images, progress)
        return Autoencoder.load("AutoencoderKL", folder)
