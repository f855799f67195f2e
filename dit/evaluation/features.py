"""Feature extractors: uint8 images to feature vectors, each pinned by the sha256 of its weights.

B images, D feature width, K classes.
"""

import hashlib
from pathlib import Path
from typing import Protocol as Interface
from typing import runtime_checkable

import torch
from safetensors.torch import load_file
from torch import nn

from dit.errors import InputError

ASSETS = Path(__file__).parent / "assets"
DIGITS_CLASSIFIER = ASSETS / "digits_classifier.safetensors"
DIGITS_SHA256 = "90fe4eff1118ae7c6416ae956aceb6a9d680184d30b05d43bff8f3bd5b5b3ada"


@runtime_checkable
class Extractor(Interface):
    """What every extractor offers. ``logits`` is None where the network has no classes."""

    name: str
    sha256: str
    preprocessing: str
    dim: int

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 (B, 3, H, W) -> float32 (B, D)."""
        ...

    def logits(self, images: torch.Tensor) -> torch.Tensor | None:
        """uint8 (B, 3, H, W) -> float32 (B, K)."""
        ...


class DigitsClassifier(nn.Module):
    """A small convolutional classifier of digits, 32x32, grey; its penultimate layer is 64 features wide.

    Three strided convolutions and a mean over places, 62k parameters. Trained by
    experiments/digits/train_classifier.py.
    """

    dim = 64

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
        self.head = nn.Linear(self.dim, 10)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        grey = images.float().mean(1, keepdim=True) / 127.5 - 1.0  # (B, 1, 32, 32) in [-1, 1]
        return self.trunk(grey)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(images))


class DigitsExtractor:
    """The digits classifier as an extractor: penultimate features (B, 64) and logits (B, 10).

    Args:
        device: where it computes.
    """

    name = "digits-classifier"
    preprocessing = "mean of channels, x/127.5 - 1, no resize: 32x32"
    dim = DigitsClassifier.dim

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.sha256 = check_sha256(DIGITS_CLASSIFIER, DIGITS_SHA256)
        self.network = DigitsClassifier()
        self.network.load_state_dict(load_file(DIGITS_CLASSIFIER))
        self.network.eval().requires_grad_(False).to(device)
        self.device = torch.device(device)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return self.network.features(self._checked(images))

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(self._checked(images))

    def _checked(self, images: torch.Tensor) -> torch.Tensor:
        check_images(images, size=(32, 32))
        return images.to(self.device)


def load_extractor(spec: str, device: str | torch.device = "cpu") -> Extractor:
    """The extractor of a name: ``digits``.

    Raises:
        InputError: no extractor has that name.
    """
    if spec == "digits":
        return DigitsExtractor(device=device)
    raise InputError("evaluation.extractor", spec, "digits")


def check_images(images: torch.Tensor, size: tuple[int, int] | None = None) -> None:
    """Raises InputError unless images are uint8 (B, 3, H, W), of the given size where one is given."""
    fits = images.dtype == torch.uint8 and images.ndim == 4 and images.shape[1] == 3
    if not fits or (size is not None and tuple(images.shape[2:]) != size):
        shape = "(B, 3, H, W)" if size is None else f"(B, 3, {size[0]}, {size[1]})"
        raise InputError("images", f"({images.dtype} {tuple(images.shape)})", f"torch.uint8 {shape}")


def check_sha256(path: str | Path, expected: str) -> str:
    """The sha256 of a weights file; raises InputError where it is not the one the numbers were made with."""
    digest = file_sha256(path)
    if digest != expected:
        raise InputError(
            str(path), f"sha256 {digest}", f"sha256 {expected}", "Replace the file with the original."
        )
    return digest


def file_sha256(path: str | Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    path = Path(path)
    if not path.is_file():
        raise InputError("evaluation.extractor", str(path), "an existing weights file")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
