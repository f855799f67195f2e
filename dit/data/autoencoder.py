"""Which autoencoder stands between images and latents: small values that know latent shapes without torch.

`obtain` gives the working `Autoencoder` (torch): loaded, or trained on the spot where the value says so.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dit.data.images import Source
from dit.data.manifest import file_sha256
from dit.data.schema import AUTOENCODERS
from dit.domain import Domain
from dit.errors import InputError, check_choice, check_number
from dit.files import whole

if TYPE_CHECKING:
    from torch import Tensor

    from dit.data.codec import Autoencoder

Progress = Callable[[str, int, int, str], None]  # (stage, done, total, detail)
Images = Callable[[], Iterable["Tensor"]]  # training images, batches of uint8 (b, 3, H, W)


def silent(stage: str, done: int, total: int, detail: str) -> None:
    """The progress callback of those who want none."""


class AutoencoderSpec(Protocol):
    """What the values of this file have in common."""

    @property
    def config(self) -> dict[str, Any]:
        """What the manifest stores and the configuration hash covers; holds ``kind``."""
        ...

    def latent_shape(self, image_size: int) -> tuple[int, int, int]:
        """(C, H, W) of the latents of images of this size."""
        ...

    def obtain(self, folder: Path, scratch: Path, images: Images, progress: Progress) -> "Autoencoder":
        """The working autoencoder; leaves its diffusers directory in ``folder``, if it has one.

        Args:
            folder: read where it is there; it appears only when it is complete.
            scratch: a folder for unfinished files, on the same file system.
            images: gives the training images.
            progress: told after every few steps of a training.
        """
        ...


def latent_domain(autoencoder: AutoencoderSpec, source: Source | None, image_size: int | None) -> Domain:
    """What one latent is.

    Args:
        autoencoder: between the source's items and latents.
        source: pictures, or arrays, which have a ``domain``; None for pictures that are not there yet.
        image_size: pixels per side; None for arrays, which have sizes of their own.
    """
    domain = getattr(source, "domain", None)
    if domain is None:
        check_number("data.image_size", image_size, low=1, integer=True)
        assert image_size is not None
        return Domain.of(autoencoder.latent_shape(image_size))
    if image_size is not None:
        raise InputError("data.image_size", image_size, f"nothing: the items are arrays {domain.shape}")
    if autoencoder.config["kind"] != "identity":
        got = autoencoder.config["kind"]
        raise InputError(
            "autoencoder", got, "identity, which takes arrays as they are", "Set autoencoder=identity."
        )
    return domain


def _reduced(image_size: int, factor: int, channels: int) -> tuple[int, int, int]:
    if image_size % factor:
        raise InputError(
            "data.image_size", image_size, f"a multiple of {factor}, this autoencoder's reduction"
        )
    return (channels, image_size // factor, image_size // factor)


@dataclass(frozen=True)
class Identity:
    """No autoencoder: the latents are the pixels, in [-1, 1] before normalisation."""

    @property
    def config(self) -> dict[str, Any]:
        return {"kind": "identity"}

    def latent_shape(self, image_size: int) -> tuple[int, int, int]:
        return (3, image_size, image_size)

    def obtain(self, folder: Path, scratch: Path, images: Images, progress: Progress) -> "Autoencoder":
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
                allowed = "multiples of 8 (group normalisation has 8 groups)"
                raise InputError("autoencoder.widths", width, allowed)
        check_number("autoencoder.latent_channels", self.latent_channels, low=1, integer=True)
        check_number("autoencoder.kl_weight", self.kl_weight, low=0)
        check_number("autoencoder.learning_rate", self.learning_rate, above=0)
        check_number("autoencoder.batch_size", self.batch_size, low=1, integer=True)
        check_number("autoencoder.steps", self.steps, low=1, integer=True)
        check_number("autoencoder.seed", self.seed, low=0, integer=True)

    @property
    def config(self) -> dict[str, Any]:
        return {"kind": "AutoencoderKL", "trained": asdict(self) | {"widths": list(self.widths)}}

    def latent_shape(self, image_size: int) -> tuple[int, int, int]:
        return _reduced(image_size, 2 ** (len(self.widths) - 1), self.latent_channels)

    def obtain(self, folder: Path, scratch: Path, images: Images, progress: Progress) -> "Autoencoder":
        from dit.data.autoencoder_training import train_kl
        from dit.data.codec import Autoencoder

        if not folder.is_dir():
            with whole(folder, scratch) as partial:
                _save(train_kl(self, images, progress), partial)
        return Autoencoder.load("AutoencoderKL", folder)


@dataclass(frozen=True)
class Pretrained:
    """An autoencoder of diffusers: a local directory, or a repository of the Hugging Face Hub.

    Weights run in float32: half precision has been seen to overflow. The autoencoder's ``scaling_factor``
    is not applied; latents are normalised by the manifest's statistics (see ``normalise`` of
    `encode_dataset`).

    Args:
        kind: the diffusers class, AutoencoderKL, AutoencoderTiny or AutoencoderDC.
        path: a diffusers directory (config.json and weights), or ``owner/name`` on the Hub.
        latent_channels: channels of the latent.
        reduction: pixels per latent position and side.
        subfolder: folder within the repository or directory.
        revision: commit of the repository; null takes its newest.
    """

    kind: str
    path: str
    latent_channels: int
    reduction: int
    subfolder: str = ""
    revision: str | None = None

    def __post_init__(self) -> None:
        check_choice("autoencoder.kind", self.kind, AUTOENCODERS)
        check_number("autoencoder.latent_channels", self.latent_channels, low=1, integer=True)
        check_number("autoencoder.reduction", self.reduction, low=1, integer=True)

    @property
    def _local(self) -> Path | None:
        folder = Path(os.path.expanduser(self.path))
        if os.path.isdir(folder):
            return folder / self.subfolder
        if self.path.count("/") != 1 or self.path.startswith((".", "~", "/")):
            raise InputError("autoencoder.path", self.path, "an existing folder, or owner/name on the Hub")
        return None

    @cached_property
    def config(self) -> dict[str, Any]:
        if self._local is None:
            return {"kind": self.kind, "hub": asdict(self)}
        files = [
            path for path in sorted(self._local.iterdir()) if path.suffix in (".json", ".safetensors", ".bin")
        ]
        if not (self._local / "config.json").is_file() or len(files) < 2:
            allowed = "a diffusers directory: config.json and diffusion_pytorch_model.safetensors"
            raise InputError("autoencoder.path", str(self._local), allowed)
        return {"kind": self.kind, "local": {path.name: file_sha256(path) for path in files}}

    def latent_shape(self, image_size: int) -> tuple[int, int, int]:
        return _reduced(image_size, self.reduction, self.latent_channels)

    def obtain(self, folder: Path, scratch: Path, images: Images, progress: Progress) -> "Autoencoder":
        from dit.data.codec import Autoencoder

        if not folder.is_dir():
            progress("autoencoder", 0, 1, f"loading {self.path}")
            with whole(folder, scratch) as partial:
                _save(self._load(), partial)
        return Autoencoder.load(self.kind, folder)

    def _load(self) -> Any:
        from dit.data.codec import diffusers_class

        options = {"subfolder": self.subfolder or None, "revision": self.revision, "low_cpu_mem_usage": False}
        options["output_loading_info"] = True
        try:
            with (
                warnings.catch_warnings()
            ):  # diffusers 0.42 passes huggingface_hub an argument it has dropped
                warnings.simplefilter("ignore", UserWarning)
                place = os.path.expanduser(self.path)
                model, found = diffusers_class(self.kind).from_pretrained(place, **options)
        except (OSError, ValueError) as error:
            if self._local is not None:
                raise InputError(
                    "autoencoder.path", f"{self.path} ({error})", f"a readable {self.kind}"
                ) from error
            inner = f"{self.subfolder}/" if self.subfolder else ""
            raise InputError(
                "autoencoder.path",
                f"{self.path}, neither a local folder, nor in the cache, nor to be downloaded now",
                "a local diffusers directory, or a repository that can be reached",
                f"Download {inner}config.json and {inner}diffusion_pytorch_model.safetensors from "
                f"https://huggingface.co/{self.path} into a folder and set autoencoder.spec.path to it.",
            ) from error
        if missing := sorted(found["missing_keys"]):  # diffusers fills them with random numbers
            got = f"({self.path}, without {len(missing)} of its weights: {missing[0]}, ...)"
            raise InputError(
                "autoencoder.path", got, f"a complete {self.kind}", "Or correct autoencoder.spec.kind."
            )
        return model


def _save(model: Any, folder: Path) -> None:
    """A diffusers directory without the path it came from, which would make equal ones differ, and readable as
    any file is: safetensors writes for the owner alone.
    """
    model.save_pretrained(folder)
    config = folder / "config.json"
    values = json.loads(config.read_text())
    values.pop("_name_or_path", None)
    config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
    for path in folder.iterdir():
        path.chmod(config.stat().st_mode)


def files_sha256(entries: list[dict[str, Any]]) -> str | None:
    """One hash for the files of an autoencoder (entries of the manifest); None where there are none."""
    if not entries:
        return None
    return hashlib.sha256("".join(f"{e['file']} {e['sha256']}\n" for e in entries).encode()).hexdigest()
