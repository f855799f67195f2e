"""A model's sample metrics under one protocol: generate, extract, accumulate, compare.

B images of a batch, N images in all, P previewed.
"""

import dataclasses
import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from dit.errors import check_number
from dit.evaluation.features import Extractor
from dit.evaluation.generate import generate_batches, sample_labels, sample_seeds
from dit.evaluation.measure import Measured, Meter, compare
from dit.evaluation.protocol import Protocol, describe, require_equal
from dit.evaluation.statistics import Statistics


class Evaluation(NamedTuple):
    """What ``evaluate_samples`` measured; the same on every rank.

    ``metrics`` holds plain numbers (frechet_distance, accuracy, n, ...); ``preview`` the first images, uint8
    (P, 3, H, W), with ``preview_labels``, of the same seeds for every model; ``subsets`` the same of smaller
    N.
    """

    metrics: dict[str, float | int | None]
    protocol: Protocol
    preview: torch.Tensor
    preview_labels: torch.Tensor
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
        metrics: names of ``dit.evaluation.measure.METRICS``.
        subsets: increasing smaller N to report too, from the same images.
        labels: ``balanced`` or ``random``.
        seed: the sampling seed.
        batch_size: images per network call; moves no number.
        weights: which weights these are, for the protocol.
        precision: arithmetic of the network, for the protocol.
        decoder: what the protocol calls the codec; its autoencoder's kind by default.
        preview: how many of the first images to hand back.
        device: where it runs.
        distributed: whether every rank of the process group calls this and makes its share of the images.
    """
    rank, world = (dist.get_rank(), dist.get_world_size()) if distributed else (0, 1)
    check_number("evaluation.n", n, low=max(2, world), integer=True)
    num_classes = denoiser.network.num_classes
    meter = Meter(extractor, metrics, [*subsets, n], num_classes=num_classes, distributed=distributed)
    # Every rank makes as many network calls as the others, since sharded networks wait for each other: the
    # last round is filled up with samples that are thrown away.
    mine = np.arange(rank, -(-n // world) * world, world)
    classes = sample_labels(labels, seed, -(-n // world) * world, num_classes)
    seeds = sample_seeds(seed, len(classes))
    kept: list[tuple[int, torch.Tensor]] = []
    nfe, done = 0, 0
    for batch in generate_batches(
        denoiser,
        codec,
        classes[mine],
        seeds[rank::world],
        solver=solver,
        grid=grid,
        batch_size=batch_size,
        device=device,
    ):
        index = mine[done : done + len(batch.images)]
        nfe, done, wanted = batch.nfe, done + len(index), int((index < n).sum())
        meter.update(batch.images[:wanted], index[:wanted], batch.labels[:wanted])
        kept += [(int(i), image.cpu()) for i, image in zip(index, batch.images) if i < min(preview, n)]
    if not isinstance(reference, Measured):
        reference = Measured(reference)
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
        weights=weights,
        precision=precision,
        decoder=codec.autoencoder.kind if decoder is None else decoder,
    )
    shown = _stack(_gathered(kept) if distributed else kept)
    found = [
        Evaluation(
            {**compare(measured, reference, meter.metrics), "accuracy": measured.accuracy, "n": count},
            dataclasses.replace(protocol, n=count),
            shown,
            classes[: len(shown)],
        )
        for count, measured in zip(meter.marks, meter.results())
    ]
    return found[-1]._replace(subsets=tuple(found[:-1]))


def over_seeds(evaluations: Sequence[Evaluation]) -> dict[str, float | int | None]:
    """The mean of each metric over sampling seeds, and its sd as ``<metric>_sd_over_seeds`` (one seed: None).

    Raises:
        InputError: the evaluations differ in anything but the seed.
    """
    require_equal([evaluation.protocol for evaluation in evaluations], varying=["seed"])
    table = [evaluation.metrics for evaluation in evaluations]
    summary: dict[str, float | int | None] = {"n": table[0]["n"], "seeds": len(table)}
    for name in table[0]:
        values = [value for row in table if (value := row[name]) is not None]
        if name != "n" and len(values) == len(table):
            summary[name] = statistics.fmean(values)
            summary[f"{name}_sd_over_seeds"] = statistics.stdev(values) if len(values) > 1 else None
    return summary


def _gathered(kept: list[tuple[int, torch.Tensor]]) -> list[tuple[int, torch.Tensor]]:
    parts: list[list[tuple[int, torch.Tensor]]] = [kept] * dist.get_world_size()
    dist.all_gather_object(parts, kept)
    return [pair for part in parts for pair in part]


def _stack(kept: list[tuple[int, torch.Tensor]]) -> torch.Tensor:
    if not kept:
        return torch.empty(0, 3, 0, 0, dtype=torch.uint8)
    return torch.stack([image for _, image in sorted(kept, key=lambda pair: pair[0])])
