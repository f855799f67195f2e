"""Sample metrics for the trainer and for ``dit evaluate``: one yardstick (extractor, reference, codec) per process."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from dit.data.codec import Codec
from dit.data.latents import LatentSet
from dit.errors import check_number
from dit.evaluation.evaluate import evaluate_samples
from dit.evaluation.features import Extractor, load_extractor
from dit.evaluation.grids.pictures import picture_grid, write_png
from dit.evaluation.measure import Measured, check_metrics
from dit.evaluation.reference import latents_reference
from dit.verbs.app import instantiate


class Yardstick:
    """What samples of one data set are measured with, loaded when first used.

    Args:
        cfg: a configuration with ``data`` and ``evaluation``.
        device: where features and images are computed.
    """

    def __init__(self, cfg: DictConfig, device: torch.device) -> None:
        self.cfg, self.device = cfg, device
        self.solver, self.grid = instantiate(cfg.evaluation.solver), instantiate(cfg.evaluation.grid)
        self.guidance = instantiate(cfg.evaluation.guidance)
        check_metrics(cfg.evaluation.metrics)
        check_number("evaluation.batch_size", cfg.evaluation.batch_size, low=1, integer=True)

    @cached_property
    def codec(self) -> Codec:
        """Latents to images."""
        return Codec.open(self.cfg.data.directory, self.device)

    @cached_property
    def extractor(self) -> Extractor:
        """Images to features."""
        return load_extractor(self.cfg.evaluation.extractor, self.device)

    @cached_property
    def reference(self) -> Measured:
        """The source's training images, as they are before any autoencoder."""
        latents = LatentSet(self.cfg.data.directory, "train", verify=False)
        source, metrics = instantiate(self.cfg.data.source), list(self.cfg.evaluation.metrics)
        return latents_reference(latents, source, self.extractor, metrics, cache=latents.directory)


class SampleMeasure:
    """One sampling protocol, applied to a denoiser: the fields of a ``samples`` record and a picture.

    Args:
        yardstick: extractor, reference and codec.
        name: of the protocol, for the picture's file.
        protocol: ``n``, ``seed``, ``labels``, ``guidance_scale``.
        run_dir: pictures go to ``samples/`` in it.
    """

    def __init__(self, yardstick: Yardstick, name: str, protocol: Any, run_dir: Path) -> None:
        self.yardstick, self.name, self.protocol, self.run_dir = yardstick, name, protocol, run_dir
        for key, low in (("n", 2), ("seed", 0), ("preview", 0)):
            check_number(f"evaluation.protocols.{name}.{key}", protocol[key], low=low, integer=True)
        check_number(f"evaluation.protocols.{name}.guidance_scale", protocol.guidance_scale, low=0)

    def __call__(self, denoiser: Any, moment: str, weights: str) -> dict[str, Any]:
        """Generates, measures and draws: the fields of a ``samples`` record."""
        protocol, yardstick = self.protocol, self.yardstick
        scale = protocol.guidance_scale
        found = evaluate_samples(
            denoiser if scale == 1 else yardstick.guidance(denoiser, scale=scale),
            yardstick.codec,
            yardstick.extractor,
            yardstick.reference,
            n=protocol.n,
            solver=yardstick.solver,
            grid=yardstick.grid,
            guidance=None if scale == 1 else self._guidance_text(scale),
            metrics=list(yardstick.cfg.evaluation.metrics),
            labels=protocol.labels,
            seed=protocol.seed,
            batch_size=yardstick.cfg.evaluation.batch_size,
            weights=weights,
            preview=protocol.preview,
            device=yardstick.device,
        )
        picture = f"samples/{moment}-{self.name}.png"
        write_png(self.run_dir / picture, picture_grid(found.preview, columns=10))
        return {
            **found.metrics,
            "protocol": found.protocol.as_dict(),
            "protocol_hash": found.protocol.hash,
            "grid": picture,
        }

    def _guidance_text(self, scale: float) -> str:
        settings = {**self.yardstick.guidance.keywords, "scale": scale}
        inner = ", ".join(f"{key}={value!r}" for key, value in sorted(settings.items()))
        return f"{self.yardstick.guidance.func.__name__}({inner})"
