"""Extractors for photographs: Inception (FID's own), DINOv2, and any TorchScript file.

B images, D feature width, K classes.
"""

import pickle
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from dit.errors import InputError
from dit.evaluation.features import Extractor, Outputs, check_images, check_sha256, file_sha256

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_FILE}"
INCEPTION_SHA256 = (
    "6726825d"  # the file's name carries the first digits of its hash, as torch.hub checks them
)
SPATIAL_CHANNELS = 7  # of 192: 7 x 17 x 17 = 2,023 numbers, about as many as the pooled features


class Inception(Extractor):
    """The 2015 Inception of published FIDs, as torch-fidelity converted it: TensorFlow 1's resize, pooling.

    Features (B, 2048) before the classifier; logits (B, 1008) without bias, as the Inception score takes
    them; spatial features, the first 7 channels of ``mixed_6/conv`` in the order (17, 17, 7), as ADM's
    reference files store them.

    Args:
        path: torch-fidelity's weights file, or another of its layout, which the protocol then shows by its
            hash.
        device: where it computes.

    Raises:
        InputError: no file, or not weights of this network.

    Source: Szegedy et al., arXiv:1512.00567; spatial features: Nash et al., arXiv:2103.03841.
    """

    preprocessing = "TensorFlow 1 bilinear to 299x299, (x - 128)/128"

    def __init__(self, path: str | Path | None, device: str | torch.device = "cpu") -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        if path is None or not Path(path).is_file():
            remedy = f"Download {INCEPTION_URL} and name the file: inception:/path/to/{INCEPTION_FILE}."
            raise InputError(
                "evaluation.extractor", f"inception:{path or ''}", "an existing weights file", remedy
            )
        official = Path(path).name == INCEPTION_FILE
        self.sha256 = check_sha256(path, INCEPTION_SHA256) if official else file_sha256(path)
        self.name = "inception-2015-12-05" if self.sha256.startswith(INCEPTION_SHA256) else "inception-custom"
        _require_plain_weights(path)
        try:
            self.network = FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path)
            ).to(device)
        except (RuntimeError, KeyError) as error:
            raise InputError(
                "evaluation.extractor", str(path), "Inception weights", str(error)[:200]
            ) from None
        self.device = torch.device(device)
        self._spatial: torch.Tensor | None = None
        self.network.Mixed_6d.branch1x1.register_forward_hook(self._keep_spatial)

    def _keep_spatial(self, _module: object, _inputs: object, output: torch.Tensor) -> None:
        self._spatial = output[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1).float()

    def outputs(self, images: torch.Tensor) -> Outputs:
        check_images(images)
        features, logits = self.network(images.to(self.device))
        spatial, self._spatial = self._spatial, None
        return Outputs(features, logits, spatial)


class DINOv2(Extractor):
    """The class token of DINOv2's ViT-L/14 (B, 1024), through timm: bicubic, antialiased, to 224x224.

    Args:
        path: timm's weights for ``vit_large_patch14_dinov2`` (.safetensors or .pth); None asks the hub.
        device: where it computes.

    Source: Oquab et al., arXiv:2304.07193; as a feature space for generative models: Stein et al.,
        arXiv:2306.04675.
    """

    name = "dinov2-vit-l-14"
    preprocessing = "bicubic antialiased to 224x224, clipped to 0..255, ImageNet mean and sd"
    model_name = "vit_large_patch14_dinov2"

    def __init__(self, path: str | Path | None, device: str | torch.device = "cpu") -> None:
        import timm

        self.sha256 = file_sha256(path) if path is not None else ""
        try:
            self.network = timm.create_model(
                self.model_name,
                pretrained=path is None,
                num_classes=0,
                img_size=224,
                checkpoint_path=str(path) if path is not None else "",
            )
        except (RuntimeError, KeyError) as error:
            raise InputError(
                "evaluation.extractor", str(path), "weights of this network", str(error)[:200]
            ) from None
        except OSError as error:
            remedy = (
                f"Download timm/{self.model_name}.lvd142m elsewhere and name the file: dinov2:/path/to/file."
            )
            raise InputError("evaluation.extractor", "dinov2", "weights from the hub", remedy) from error
        self.network.eval().requires_grad_(False).to(device)
        self.sha256 = self.sha256 or _state_sha256(self.network)
        self.device = torch.device(device)
        self._mean = torch.tensor([0.485, 0.456, 0.406], device=device)[:, None, None]
        self._std = torch.tensor([0.229, 0.224, 0.225], device=device)[:, None, None]

    def outputs(self, images: torch.Tensor) -> Outputs:
        check_images(images)
        x = images.to(self.device).float()
        x = F.interpolate(x, (224, 224), mode="bicubic", antialias=True).clamp(0, 255)
        return Outputs(self.network((x / 255 - self._mean) / self._std))  # timm pools the class token


class TorchScript(Extractor):
    """Any TorchScript file: uint8 images (B, 3, H, W) -> features (B, D), or (features, logits).

    Args:
        path: the file; it is a program, so load only what you trust.
        device: where it computes.
    """

    preprocessing = "inside the file"

    def __init__(self, path: str | Path | None, device: str | torch.device = "cpu") -> None:
        if path is None:
            raise InputError("evaluation.extractor", "torchscript", "torchscript:FILE")
        self.sha256 = file_sha256(path)
        self.name = f"torchscript-{Path(path).stem}"
        try:
            with warnings.catch_warnings():  # torch 2.15 advises torch.export
                warnings.simplefilter("ignore", FutureWarning)
                self.network = torch.jit.load(str(path), map_location=device).eval()
        except RuntimeError as error:
            remedy = "Make one with torch.jit.script or torch.jit.trace and its save."
            raise InputError("evaluation.extractor", str(path), "a TorchScript file", remedy) from error
        self.device = torch.device(device)

    def outputs(self, images: torch.Tensor) -> Outputs:
        check_images(images)
        found = self.network(images.to(self.device))
        features, logits = found if isinstance(found, tuple) else (found, None)
        return Outputs(features.float(), None if logits is None else logits.float())


def _require_plain_weights(path: str | Path) -> None:
    """Raises InputError for a pickle with anything but tensors in it: torch-fidelity would run it."""
    try:
        torch.load(path, weights_only=True, map_location="cpu", mmap=False)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
    ) as error:  # whose texts advise to run what it holds
        allowed = "a file that torch.save made of tensors alone"
        raise InputError("evaluation.extractor", str(path), allowed) from error


def _state_sha256(network: torch.nn.Module) -> str:
    import hashlib

    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value.cpu().numpy()).tobytes())
    return digest.hexdigest()
