"""A model's sample metrics under one protocol: generate, extract, accumulate, compare.

B images of a batch, N images in all, P previewed.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from dit.condition import Classes, Condition
from dit.errors import check_number
from dit.evaluation.distributed import batches_in_turn, gather_images, place
from dit.evaluation.features import Extractor
from dit.evaluation.generate import generate_batch, sample_seeds
from dit.evaluation.measure import check_reference, compare
from dit.evaluation.measured import Measured
from dit.evaluation.meter import Meter
from dit.evaluation.protocol import Protocol, describe
from dit.evaluation.statistics import Statistics


class Evaluation(NamedTuple):
    """What ``evaluate_samples`` measured; the same on every rank.

    ``metrics`` holds plain numbers (frechet_distance, accuracy, n, ...); ``preview`` the first images, uint8
    (P, 3, H, W), with ``preview_condition``, of the same seeds for every model; ``subsets`` the same of smaller
    N.
    """

    metrics: dict[str, float | int | None]
    protocol: Protocol
    preview: torch.Tensor
    preview_condition: Condition
    subsets: tuple["Evaluation", ...] = ()


def evaluate_samples(
    denoiser: Any,
    codec: Any,
    extractor: Extractor,
    reference: Measured | Statistics,
    *,
    n: int,
    solver: Any,
    grid: Any,
    guidance: object = None,
    guidance_scale: float | None = 1.0,
    guidance_channels: int | None = None,
    metrics: Iterable[str] = ("fd",),
    subsets: Sequence[int] = (),
    labels: str = "balanced",
    seed: int = 0,
    batch_size: int = 128,
    weights: str = "raw",
    precision: str = "float32",
    decoder: str | None = None,
    preview: int = 0,
    device: str | torch.device = "cpu",
    distributed: bool = False,
) -> Evaluation:
    """The metrics of N generated images, with the protocol they were made under.

    Args:
        denoiser: what is sampled, guidance already wrapped around it.
        codec: decodes latents to uint8; see ``generate_batches``.
        extractor: features, and logits for the accuracy where they are of as many classes as the data.
        reference: real images on the same extractor; with features kept where a metric needs them.
        n: images generated.
        solver: a solver (function or partial), named in the protocol.
        grid: path -> decreasing times, named in the protocol.
        guidance: how guidance was wrapped, for the protocol: a text or the value that made it.
        guidance_scale: its scale, for the protocol; 1 where it is off.
        guidance_channels: how many channels it moves, for the protocol; None: all.
        metrics: names of ``dit.evaluation.catalogue.METRICS``.
        subsets: increasing smaller N to report too, from the same images.
        labels: ``balanced`` or ``random``.
        seed: the sampling seed.
        batch_size: images per network call; moves no number.
        weights: which weights these are, for the protocol.
        precision: of the network: ``float32``, or ``bfloat16`` for its matrix products and residual stream.
        decoder: what the protocol calls the codec; its autoencoder's kind by default.
        preview: how many of the first images to hand back.
        device: where it runs.
        distributed: whether every rank of the process group calls this and makes its share of the images.
    """
    check_number("evaluation.n", n, low=2, integer=True)
    check_number("evaluation.batch_size", batch_size, low=1, integer=True)
    if not isinstance(reference, Measured):
        reference = Measured(reference)
    metrics = check_reference(reference, metrics, extractor)
    kind = denoiser.network.kind
    num_classes = kind.n if isinstance(kind, Classes) else None
    meter = Meter(extractor, metrics, [*subsets, n], num_classes=num_classes, distributed=distributed)
    condition, seeds = kind.drawn(labels, seed, n), sample_seeds(seed, n)
    shown: list[torch.Tensor] = []
    nfe = 0
    for mine in batches_in_turn(n, batch_size, *place(distributed)):
        part = slice(mine.start, mine.stop) if mine else slice(0, 1)  # nothing left: not counted
        batch = generate_batch(
            denoiser,
            codec,
            condition.part(part),
            seeds[part],
            solver=solver,
            grid=grid,
            device=device,
            precision=precision,
        )
        nfe = batch.nfe
        meter.update(batch.images, np.asarray(mine or [n]), batch.condition.get("label"))
        if sum(map(len, shown)) < preview:
            few = batch.images[: len(mine)]
            shown += gather_images(few) if distributed else [few.cpu()]
    protocol = Protocol(
        reference=str(reference.stats.metadata.get("images", "unknown")),
        reference_n=reference.stats.n,
        extractor=extractor.name,
        extractor_sha256=extractor.sha256,
        preprocessing=extractor.preprocessing,
        n=n,
        seed=seed,
        labels=labels,
        solver=describe(solver),
        grid=describe(grid),
        nfe=nfe,
        guidance=describe(guidance),
        guidance_scale=guidance_scale,
        guidance_channels=guidance_channels,
        weights=weights,
        precision=precision,
        decoder=codec.autoencoder.kind if decoder is None else decoder,
    )
    first = torch.cat(shown)[: min(preview, n)] if shown else torch.empty(0, 3, 0, 0, dtype=torch.uint8)
    found = [
        Evaluation(
            {**compare(measured, reference, meter.metrics), "accuracy": measured.accuracy, "n": count},
            dataclasses.replace(protocol, n=count),
            first,
            condition.part(slice(len(first))),
        )
        for count, measured in zip(meter.marks, meter.results())
    ]
    return found[-1]._replace(subsets=tuple(found[:-1]))
