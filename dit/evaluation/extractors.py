"""Extractors for photographs: Inception (FID's own), DINOv2, and any TorchScript file.

B images, D feature width, K classes.
"""

import hashlib
import math
import pickle
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file

from dit.errors import InputError
from dit.evaluation.features import (
    DigitsExtractor,
    Extractor,
    Outputs,
    check_images,
    check_sha256,
    file_sha256,
)

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_FILE}"
INCEPTION_SHA256 = (
    "6726825d"  # the file's name carries the first digits of its hash, as torch.hub checks them
)
DINOV2_SIDE = 16  # patches of 14 pixels along 224
DINOV2_OFFSET = 0.1  # facebookresearch/dinov2: interpolate_offset of its torch.hub models
EXTRACTORS = "digits, inception:FILE, dinov2[:FILE], dinov2-pil[:FILE], torchscript:FILE"
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
        _plain_weights(path)  # before torch-fidelity would run what it holds
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
    """The class token of DINOv2's ViT-L/14 (B, 1024), as the published FD-DINOv2 takes it.

    Positions, stored for 518x518 pixels, are resized as torch.hub's own model does. Pictures are resized in one of
    two published ways, whose features differ: by torch, unclipped, as EDM2 does, or by Pillow to whole numbers, as
    dgm-eval does.

    Args:
        path: weights of timm's ``vit_large_patch14_dinov2`` (.safetensors or .pth), or the file of torch.hub; None
            asks timm's hub.
        device: where it computes.
        pil: pictures are resized by Pillow.

    Raises:
        InputError: no file, weights of another network, or a file that runs code.

    Source: Oquab et al., arXiv:2304.07193; as a feature space for generative models: Stein et al., arXiv:2306.04675
        (dgm-eval), and Karras et al., arXiv:2312.02696 (EDM2).
    """

    model_name = "vit_large_patch14_dinov2"

    def __init__(
        self, path: str | Path | None, device: str | torch.device = "cpu", pil: bool = False
    ) -> None:
        self.pil = pil
        self.network = _dinov2_of_hub(self.model_name) if path is None else _plain_dinov2(self.model_name)
        weights = self.network.state_dict() if path is None else _read_dinov2(path, self.network)
        self.sha256 = _weights_sha256(weights) if path is None else file_sha256(path)
        side = math.isqrt(weights["pos_embed"].shape[1] - 1)
        _set_positions(self.network, weights["pos_embed"])
        self.name = "dinov2-vit-l-14-pil" if pil else "dinov2-vit-l-14"
        resize = "Pillow's bicubic, whole numbers" if pil else "torch's antialiased bicubic, unclipped"
        kept = side == DINOV2_SIDE
        positions = "as stored" if kept else f"of {side}x{side} resized as torch.hub's, no antialias, +0.1"
        self.preprocessing = f"{resize}, to 224x224, ImageNet mean and sd; positions {positions}"
        self.network.eval().requires_grad_(False).to(device)
        self.device = torch.device(device)
        self._mean = torch.tensor([0.485, 0.456, 0.406], device=device)[:, None, None]
        self._std = torch.tensor([0.229, 0.224, 0.225], device=device)[:, None, None]

    def outputs(self, images: torch.Tensor) -> Outputs:
        check_images(images)
        x = _pil_resized(images, 224).to(self.device).float() if self.pil else images.to(self.device).float()
        if not self.pil:
            x = F.interpolate(x, (224, 224), mode="bicubic", antialias=True)
        return Outputs(self.network((x / 255 - self._mean) / self._std))  # timm pools the class token


def _plain_dinov2(name: str) -> Any:
    """The network for 224x224 pixels, its weights still to be set."""
    import timm

    return timm.create_model(name, num_classes=0, img_size=224)


def _dinov2_of_hub(name: str) -> Any:
    """The network of timm's hub, for 518x518 pixels."""
    import timm

    try:
        return timm.create_model(name, pretrained=True, num_classes=0)
    except (OSError, RuntimeError) as error:
        remedy = f"Download timm/{name}.lvd142m elsewhere and name the file: dinov2:/path/to/file."
        raise InputError("evaluation.extractor", "dinov2", "weights from the hub", remedy) from error


def _read_dinov2(path: str | Path, network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Sets a network's weights but its positions from a file; all weights of the file."""
    found = _plain_weights(path)
    weights = {
        name: tensor for name, tensor in found.items() if name != "mask_token"
    }  # of training, in torch.hub's
    own = network.state_dict()
    positions = weights.get("pos_embed", torch.empty(1, 0, 0))
    square = positions.ndim == 3 and math.isqrt(max(positions.shape[1] - 1, 0)) ** 2 == positions.shape[1] - 1
    other = sorted(own.keys() ^ weights.keys())
    other += [
        name for name in own.keys() & weights.keys() - {"pos_embed"} if own[name].shape != weights[name].shape
    ]
    if other or not square:
        shown = ", ".join(other[:3]) or "pos_embed"
        raise InputError("evaluation.extractor", str(path), "weights of this network", f"Different: {shown}.")
    network.load_state_dict({**weights, "pos_embed": own["pos_embed"]})
    return weights


def _set_positions(network: Any, stored: torch.Tensor) -> None:
    """Gives a network for 224x224 pixels the positions (1, 1 + M M, D) that were stored for another size.

    Bicubic without antialias, by the scale (16 + 0.1)/M, as DINOv2's ``interpolate_pos_encoding`` does it.
    """
    network.set_input_size(img_size=224)  # resizes them too, another way
    first, grid = stored[:, :1].float(), stored[:, 1:].float()
    side = math.isqrt(grid.shape[1])
    if side != DINOV2_SIDE:
        image = grid.unflatten(1, (side, side)).permute(0, 3, 1, 2)  # (1, D, M, M)
        scale = (DINOV2_SIDE + DINOV2_OFFSET) / side
        image = F.interpolate(image, scale_factor=(scale, scale), mode="bicubic")
        grid = image.flatten(2).transpose(1, 2)  # (1, 16 16, D)
    with torch.no_grad():
        network.pos_embed.copy_(torch.cat([first, grid], dim=1))


def _pil_resized(images: torch.Tensor, side: int) -> torch.Tensor:
    """uint8 (B, 3, H, W) resized by Pillow, image by image."""
    pictures = [Image.fromarray(picture) for picture in images.permute(0, 2, 3, 1).cpu().numpy()]
    resized = [np.asarray(one.resize((side, side), Image.Resampling.BICUBIC)) for one in pictures]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2)


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


def _plain_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a file; raises InputError for a pickle with anything else in it, whose code torch would run."""
    allowed = "a file that torch.save made of tensors alone, or .safetensors"
    if not Path(path).is_file():
        raise InputError("evaluation.extractor", str(path), "an existing weights file")
    try:
        if Path(path).suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, weights_only=True, map_location="cpu", mmap=False)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, ValueError) as error:
        # whose texts advise to run what it holds
        raise InputError("evaluation.extractor", str(path), allowed) from error
    if not isinstance(found, Mapping) or not all(isinstance(one, torch.Tensor) for one in found.values()):
        raise InputError("evaluation.extractor", str(path), allowed)
    return dict(found)


def _weights_sha256(weights: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value.cpu().numpy()).tobytes())
    return digest.hexdigest()


def load_extractor(spec: str, device: str | torch.device = "cpu") -> Extractor:
    """The extractor of a name, with the path of its weights after a colon.

    Args:
        spec: ``digits``; ``inception:FILE`` (torch-fidelity's weights); ``dinov2:FILE`` (ViT-L/14 of timm or
            torch.hub), or ``dinov2`` from timm's hub; ``dinov2-pil`` likewise, with pictures resized by Pillow;
            ``torchscript:FILE`` (uint8 images -> features, or -> features and logits).
        device: where it computes.

    Raises:
        InputError: no extractor has that name, or its weights are missing or wrong.
    """
    kind, _, path = spec.partition(":")
    if kind == "digits" and not path:
        return DigitsExtractor(device)
    if kind in ("inception", "dinov2", "dinov2-pil", "torchscript"):
        build = {
            "inception": Inception,
            "dinov2": DINOv2,
            "dinov2-pil": partial(DINOv2, pil=True),
            "torchscript": TorchScript,
        }
        return build[kind](path or None, device)
    raise InputError("evaluation.extractor", spec, EXTRACTORS)
