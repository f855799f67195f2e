"""Sample metrics for the trainer and for ``dit evaluate``: one yardstick (extractor, reference, codec) per process."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from dit.config.data import check_images
from dit.config.parts import Parts
from dit.config.samplings import Sampling
from dit.data.codec import Codec
from dit.data.latents import LatentSet
from dit.data.manifest import Manifest
from dit.errors import InputError, check_choice, check_number
from dit.evaluation.catalogue import check_metrics
from dit.evaluation.distributed import place
from dit.evaluation.evaluate import Evaluation, evaluate_samples
from dit.evaluation.extractors import EXTRACTORS, load_extractor
from dit.evaluation.files import images_identity, open_reference
from dit.evaluation.generate import PRECISIONS
from dit.evaluation.grids.pictures import picture_grid, write_png
from dit.evaluation.measured import Measured
from dit.evaluation.reference import latents_reference

COLUMNS = 10  # of the picture of the first samples


def _check_pictures(manifest: Manifest) -> None:
    """Raises InputError where samples are no pictures: there is nothing here to measure them by."""
    if "image_shape" not in manifest.content:
        got, allowed = (
            f"(samples {tuple(manifest.content['shape'])} of {manifest.directory})",
            f"pictures, measured by one of {EXTRACTORS}",
        )
        remedy = (
            "Compare such runs by their validation loss; samples.npz of dit sample is there to be measured."
        )
        raise InputError("evaluation.extractor", got, allowed, remedy)


class Yardstick:
    """What samples of one data set are measured with.

    Args:
        parts: of a configuration with ``data`` and ``evaluation``.
        device: where features and images are computed.
    """

    def __init__(self, parts: Parts, device: torch.device) -> None:
        self.parts, self.evaluation, self.device = parts, parts.cfg.evaluation, device
        _check_pictures(parts.manifest)
        self.metrics = check_metrics(self.evaluation.metrics)
        check_number("evaluation.batch_size", self.evaluation.batch_size, low=1, integer=True)
        check_choice("evaluation.precision", self.evaluation.precision, PRECISIONS)
        if self.evaluation.reference is not None and not Path(self.evaluation.reference).exists():
            raise InputError(
                "evaluation.reference", self.evaluation.reference, "a file or folder that exists"
            )
        self.extractor = load_extractor(self.evaluation.extractor, device)  # at once: its file may be missing

    def check_extractor(self) -> None:
        """Raises InputError where the extractor takes no pictures of this size, which samples would be drawn for."""
        shape = self.parts.manifest.content["image_shape"]
        try:
            with torch.inference_mode():
                self.extractor.outputs(torch.zeros(1, *shape, dtype=torch.uint8))
        except InputError as error:
            raise InputError(
                "evaluation.extractor",
                f"{self.evaluation.extractor} (for pictures {tuple(shape)})",
                "an extractor that takes pictures of this size",
                f"{self.extractor.name}: {error}",
            ) from None

    @property
    def distributed(self) -> bool:
        """Whether this process is one of several, which then all measure together."""
        return dist.is_initialized() and dist.get_world_size() > 1

    @cached_property
    def codec(self) -> Codec:
        """Latents to images."""
        return Codec.open(self.parts.manifest.directory, self.device)

    @cached_property
    def decoder(self) -> str:
        """What a protocol calls the autoencoder: its kind, and the hash of its files where it has some."""
        known = self.parts.manifest.content["autoencoder"]
        return known["kind"] if known["sha256"] is None else f"{known['kind']} {known['sha256'][:16]}"

    @cached_property
    def reference(self) -> Measured:
        """The reference that was named, or the source's training images, as they are before any autoencoder."""
        options: dict[str, Any] = {"distributed": self.distributed}
        if self.evaluation.reference is not None:
            return open_reference(
                self.evaluation.reference,
                self.extractor,
                self.metrics,
                image_size=self.parts.manifest.content["image_shape"][1],
                batch_size=self.evaluation.batch_size,
                **options,
            )
        latents, source = self._training_images()
        return latents_reference(
            latents, source, self.extractor, self.metrics, cache=latents.directory, **options
        )

    def _training_images(self) -> tuple[LatentSet, Any]:
        check_images(self.parts)
        return LatentSet(self.parts.manifest, "train"), self.parts.source

    def reference_identity(self) -> str:
        """What the reference is, without measuring it."""
        if self.evaluation.reference is not None:
            return images_identity(self.evaluation.reference)
        return f"train of {self.parts.manifest.sha256}"


def measure(yardstick: Yardstick, sampling: Sampling, denoiser: Any, weights: str) -> Evaluation:
    """A denoiser's samples, drawn one way and measured; on every rank of the process group, if there is one."""
    held_out = LatentSet(yardstick.parts.manifest, "validation")  # whose texts samples are made for
    return evaluate_samples(
        sampling.guided(denoiser),
        yardstick.codec,
        yardstick.extractor,
        yardstick.reference,
        n=sampling.n,
        condition=held_out.drawn(sampling.labels, sampling.seed, sampling.n),
        solver=sampling.solver,
        grid=sampling.grid,
        guidance=sampling.guidance_text,
        **sampling.guidance_numbers,
        metrics=yardstick.metrics,
        subsets=sampling.subsets,
        labels=sampling.labels,
        seed=sampling.seed,
        batch_size=yardstick.evaluation.batch_size,
        weights=weights,
        precision=yardstick.evaluation.precision,
        decoder=yardstick.decoder,
        preview=sampling.preview,
        device=yardstick.device,
        distributed=yardstick.distributed,
    )


class SampleMeasure:
    """One protocol of an evaluation, applied to a denoiser: the fields of a ``samples`` record and a picture.

    Args:
        yardstick: extractor, reference and codec.
        sampling: how samples are drawn.
        run_dir: pictures go to ``samples/`` in it.
    """

    def __init__(self, yardstick: Yardstick, sampling: Sampling, run_dir: Path) -> None:
        self.yardstick, self.sampling, self.run_dir = yardstick, sampling, run_dir

    def __call__(self, denoiser: Any, moment: str, weights: str) -> dict[str, Any]:
        """Generates, measures and draws: the fields of a ``samples`` record; every rank must call it."""
        found = measure(self.yardstick, self.sampling, denoiser, weights)
        picture = draw(found, self.run_dir, f"{moment}-{self.sampling.name}", self.yardstick.distributed)
        return {**fields(found), "grid": picture}


def fields(found: Evaluation) -> dict[str, Any]:
    """An evaluation as fields of a ``samples`` record."""
    return {
        "frechet_distance": None,  # which records always have, measured or not
        **found.metrics,
        "protocol": found.protocol.as_dict(),
        "protocol_hash": found.protocol.hash,
    }


def draw(found: Evaluation, directory: Path, name: str, distributed: bool) -> str | None:
    """Writes the first samples as a picture, on the first rank; its path below the directory, None for none."""
    if not len(found.preview):
        return None
    picture = f"samples/{name}.png"
    if place(distributed)[0] == 0:
        write_png(directory / picture, picture_grid(found.preview, columns=COLUMNS))
    return picture
