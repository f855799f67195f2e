"""A model's sample metrics under one protocol: generate, extract, accumulate, compare.

B images of a batch, N images in all, P previewed.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from dit.condition import Classes, Condition, find
from dit.errors import check_number
from dit.evaluation.distributed import gather_images
from dit.evaluation.features import Extractor
from dit.evaluation.generate import Generated, generate_in_turn, sample_seeds
from dit.evaluation.measure import check_reference, compare
from dit.evaluation.measured import Measured
from dit.evaluation.meter import Meter
from dit.evaluation.protocol import Protocol, describe
from dit.evaluation.statistics import Statistics

NO_PICTURES = torch.empty(0, 3, 0, 0, dtype=torch.uint8)


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
    condition: Condition | None = None,
    solver: Any,
    grid: Any,
    metrics: Iterable[str] = ("fd",),
    subsets: Sequence[int] = (),
    labels: str = "balanced",
    seed: int = 0,
    batch_size: int = 128,
    precision: str = "float32",
    preview: int = 0,
    device: str | torch.device = "cpu",
    distributed: bool = False,
    **stated: Any,
) -> Evaluation:
    """The metrics of N generated images, with the protocol they were made under.

    Args:
        denoiser: what is sampled, guidance already wrapped around it.
        codec: decodes latents to uint8.
        extractor: features, and logits for the accuracy where they are of as many classes as the data.
        reference: real images on the same extractor; with features kept where a metric needs them.
        n: images generated.
        condition: what each of them shall be; None draws them as ``labels`` says, by what the network is told.
        solver: a solver (function or partial).
        grid: path -> decreasing times.
        metrics: names of ``dit.evaluation.catalogue.METRICS``.
        subsets: increasing smaller N to report too, from the same images.
        labels: ``balanced`` or ``random``.
        seed: the sampling seed.
        batch_size: images per network call; moves no number.
        precision: of the network, see ``generate_batch``.
        preview: how many of the first images to hand back.
        device: where it runs.
        distributed: whether every rank of the process group calls this and makes its share of the images.
        stated: fields of the protocol that the denoiser and the codec do not tell: guidance, weights, decoder.
    """
    check_number("evaluation.n", n, low=2, integer=True)
    check_number("evaluation.batch_size", batch_size, low=1, integer=True)
    if not isinstance(reference, Measured):
        reference = Measured(reference)
    metrics, kind = check_reference(reference, metrics, extractor), denoiser.network.kind
    classes, marks = find(kind, Classes), [*subsets, n]
    meter = Meter(extractor, metrics, marks, num_classes=classes and classes.n, distributed=distributed)
    told: Condition = kind.drawn(labels, seed, n) if condition is None else condition
    seeds = sample_seeds(seed, n)
    how = {"solver": solver, "grid": grid, "device": device, "precision": precision}
    batches = generate_in_turn(denoiser, codec, told, seeds, batch_size, distributed, **how)
    nfe, first = _measure(meter, batches, preview)
    stated = {"weights": "raw", "decoder": codec.autoencoder.kind, **stated}
    stated |= {"solver": describe(solver), "grid": describe(grid), "nfe": nfe}
    stated |= {"labels": labels, "seed": seed, "precision": precision}
    shown = told.part(slice(len(first)))
    return evaluated(meter.marks, meter.results(), extractor, reference, metrics, stated, first, shown)


def _measure(
    meter: Meter, batches: Iterator[tuple[range, Generated]], preview: int
) -> tuple[int, torch.Tensor]:
    """Gives a meter the batches of this rank; network calls per image, and the first images of all ranks."""
    n, nfe = meter.marks[-1], 0
    shown: list[torch.Tensor] = []
    for mine, batch in batches:
        nfe = batch.nfe
        meter.update(batch.images, np.asarray(mine or [n]), batch.condition.get("label"))
        if sum(map(len, shown)) < preview:
            few = batch.images[: len(mine)]
            shown += gather_images(few) if meter.distributed else [few.cpu()]
    return nfe, torch.cat(shown)[: min(preview, n)] if shown else NO_PICTURES


def evaluated(
    counts: Sequence[int],
    sets: Sequence[Measured],
    extractor: Extractor,
    reference: Measured,
    metrics: Iterable[str],
    stated: dict[str, Any],
    preview: torch.Tensor,
    condition: Condition,
) -> Evaluation:
    """The evaluation of sets of images, of increasing counts.

    Args:
        counts: how many images are in each set.
        sets: what was measured of each.
        extractor: what they were measured with.
        reference: what they are compared with.
        metrics: names of ``dit.evaluation.catalogue.METRICS``.
        stated: further fields of the protocol.
        preview: the first images, uint8 (P, 3, H, W).
        condition: of these.
    """
    protocol = Protocol(
        reference=str(reference.stats.metadata.get("images", "unknown")),
        reference_n=reference.stats.n,
        extractor=extractor.name,
        extractor_sha256=extractor.sha256,
        preprocessing=extractor.preprocessing,
        n=counts[-1],
        **stated,
    )
    *subsets, whole = (
        Evaluation(
            {**compare(measured, reference, metrics), "accuracy": measured.accuracy, "n": n},
            dataclasses.replace(protocol, n=n),
            preview,
            condition,
        )
        for n, measured in zip(counts, sets, strict=True)
    )
    return whole._replace(subsets=tuple(subsets))
