"""Feature extractors: uint8 images to feature vectors, each pinned by the sha256 of its weights.

B images, D feature width, K classes, S width of spatial features.
"""

import hashlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import nn

from dit.errors import InputError

DIGITS_CLASSIFIER = Path(__file__).parent / "assets" / "digits_classifier.safetensors"
DIGITS_SHA256 = "90fe4eff1118ae7c6416ae956aceb6a9d680184d30b05d43bff8f3bd5b5b3ada"


class Outputs(NamedTuple):
    """One pass of an extractor: float32 ``features`` (B, D), and what else the network has.

    ``logits`` (B, K) of a classifier; ``spatial`` (B, S), early features with their places kept, for sFID.
    """

    features: torch.Tensor
    logits: torch.Tensor | None = None
    spatial: torch.Tensor | None = None


class Extractor(ABC):
    """Images to features, by fixed weights.

    Attributes:
        name: what it is called in a protocol.
        sha256: of the weights file.
        preprocessing: what happens to uint8 images before the network, in words.
    """

    name: str
    sha256: str
    preprocessing: str

    @abstractmethod
    def outputs(self, images: torch.Tensor) -> Outputs:
        """Everything of one pass over uint8 images (B, 3, H, W)."""

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 (B, 3, H, W) -> float32 (B, D)."""
        return self.outputs(images).features

    def logits(self, images: torch.Tensor) -> torch.Tensor | None:
        """uint8 (B, 3, H, W) -> float32 (B, K), or None where the network has no classes."""
        return self.outputs(images).logits

    def metadata(self) -> dict[str, object]:
        """What statistics of these features are stored under and compared by."""
        return {
            "extractor": self.name,
            "extractor_sha256": self.sha256,
            "preprocessing": self.preprocessing,
        }


class DigitsClassifier(nn.Module):
    """A small convolutional classifier of digits, 32x32, grey; its penultimate layer is 64 features wide.

    Four convolutions and a mean over places, 62k parameters. Trained by
    experiments/digits/train_classifier.py.
    """

    def __init__(self) -> None:
        super().__init__()

        def block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
            convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
            return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]

        self.trunk = nn.Sequential(  # (B, 1, 32, 32)
            *block(1, 16, 2),  # (B, 16, 16, 16)
            *block(16, 32, 1),
            *block(32, 64, 2),  # (B, 64, 8, 8)
            *block(64, 64, 2),  # (B, 64, 4, 4)
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),  # (B, 64)
        )
        self.head = nn.Linear(64, 10)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, 32, 32) in 0..255 -> (B, 64)."""
        grey = images.float().mean(1, keepdim=True) / 127.5 - 1.0  # (B, 1, 32, 32) in [-1, 1]
        return self.trunk(grey)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, 32, 32) in 0..255 -> logits (B, 10)."""
        return self.head(self.features(images))


class DigitsExtractor(Extractor):
    """The digits classifier as an extractor: penultimate features (B, 64) and logits (B, 10).

    Args:
        device: where it computes.
    """

    name = "digits-classifier"
    preprocessing = "mean of channels, x/127.5 - 1, no resize: 32x32"

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.sha256 = check_sha256(DIGITS_CLASSIFIER, DIGITS_SHA256)
        self.network = DigitsClassifier()
        self.network.load_state_dict(load_file(DIGITS_CLASSIFIER))
        self.network.eval().requires_grad_(False).to(device)
        self.device = torch.device(device)

    def outputs(self, images: torch.Tensor) -> Outputs:
        check_images(images, size=(32, 32))
        features = self.network.features(images.to(self.device))
        return Outputs(features, self.network.head(features))


def check_images(images: torch.Tensor, size: tuple[int, int] | None = None) -> None:
    """Raises InputError unless images are uint8 (B, 3, H, W), of the given size where one is given."""
    fits = images.dtype == torch.uint8 and images.ndim == 4 and images.shape[1] == 3
    if not fits or (size is not None and tuple(images.shape[2:]) != size):
        shape = "(B, 3, H, W)" if size is None else f"(B, 3, {size[0]}, {size[1]})"
        raise InputError("images", f"({images.dtype} {tuple(images.shape)})", f"torch.uint8 {shape}")


def check_sha256(path: str | Path, expected: str) -> str:
    """The sha256 of a weights file; raises InputError where it does not begin with ``expected``."""
    digest = file_sha256(path)
    if not digest.startswith(expected):
        raise InputError(
            str(path), f"sha256 {digest}", f"sha256 {expected}", "Replace it by the original file."
        )
    return digest


def file_sha256(path: str | Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    if not Path(path).is_file():
        raise InputError("evaluation.extractor", str(path), "an existing weights file")
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
