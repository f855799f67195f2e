"""A model's sample metrics under one protocol: generate, extract, accumulate, compare.

N images, D feature width.
"""

from typing import Any, NamedTuple

import torch

from dit.evaluation.features import Extractor
from dit.evaluation.generate import generate_batches, sample_labels, sample_seeds
from dit.evaluation.metrics import frechet_distance
from dit.evaluation.protocol import Protocol, describe
from dit.evaluation.statistics import Statistics


class Evaluation(NamedTuple):
    """What ``evaluate_samples`` measured.

    ``metrics`` holds plain numbers (frechet_distance, accuracy, n); ``preview`` the first images, uint8
    (P, 3, H, W), with ``preview_labels``, the same seeds for every model.
    """

    metrics: dict[str, float | int | None]
    protocol: Protocol
    preview: torch.Tensor
    preview_labels: torch.Tensor


def evaluate_samples(
    denoiser: Any,
    codec: Any,
    extractor: Extractor,
    reference: Statistics,
    *,
    n: int,
    solver: Any,
    grid: Any,
    guidance: object = None,
    labels: str = "balanced",
    seed: int = 0,
    batch_size: int = 128,
    weights: str = "raw",
    precision: str = "float32",
    preview: int = 0,
    device: str | torch.device = "cpu",
) -> Evaluation:
    """The Fréchet distance and classifier agreement of N generated images.

    Args:
        denoiser: what is sampled, guidance already wrapped around it.
        codec: decodes latents to uint8; see ``generate_batches``.
        extractor: features, and logits for the accuracy where it has classes.
        reference: statistics of the real images on the same extractor.
        n: images generated.
        solver: a solver (function or partial), named in the protocol.
        grid: path -> decreasing times, named in the protocol.
        guidance: how guidance was wrapped, for the protocol: a text or the value that made it.
        labels: ``balanced`` or ``random``.
        seed: the sampling seed.
        batch_size: images per network call; moves no number.
        weights: which weights these are, for the protocol.
        precision: arithmetic of the network, for the protocol.
        preview: how many of the first images to hand back.
        device: where it runs.
    """
    classes = sample_labels(labels, seed, n, denoiser.network.num_classes)
    stats = Statistics(extractor.dim, describe_extractor(extractor))
    shown: list[torch.Tensor] = []
    right, judged, nfe = 0, 0, 0
    for batch in generate_batches(
        denoiser,
        codec,
        classes,
        sample_seeds(seed, n),
        solver=solver,
        grid=grid,
        batch_size=batch_size,
        device=device,
    ):
        nfe = batch.nfe
        if sum(map(len, shown)) < preview:
            shown.append(batch.images.cpu())
        with torch.inference_mode():
            stats.update(extractor.features(batch.images))
            logits = extractor.logits(batch.images)
        if logits is not None:
            right += int((logits.argmax(1).cpu() == batch.labels).sum())
            judged += len(batch.labels)
    protocol = Protocol(
        reference=str(reference.metadata.get("images", "unknown")),
        reference_n=reference.n,
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
        decoder=codec.autoencoder.kind,
    )
    metrics: dict[str, float | int | None] = {
        "frechet_distance": frechet_distance(stats, reference),
        "accuracy": right / judged if judged else None,
        "n": n,
    }
    kept = torch.cat(shown)[:preview] if shown else torch.empty(0, 3, 0, 0, dtype=torch.uint8)
    return Evaluation(metrics, protocol, kept, classes[:preview])


def describe_extractor(extractor: Extractor) -> dict[str, object]:
    """The metadata under which statistics of an extractor are stored and compared."""
    return {
        "extractor": extractor.name,
        "extractor_sha256": extractor.sha256,
        "preprocessing": extractor.preprocessing,
    }
