"""Images from a denoiser, as an iterable keyed by sample seed: image 17 is the same at any batch size.

B images of a batch, C H W latent, N images in all.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from dit.condition import Condition
from dit.diffusion.sampling import sample
from dit.errors import InputError, check_choice, check_number
from dit.evaluation.distributed import batches_in_turn, gather_images, place

SEED_BLOCK = 1_000_000  # sample seeds of one sampling seed; torch's CPU generator keeps 32 bits of a seed
PRECISIONS = ("float32", "bfloat16")


class Generated(NamedTuple):
    """A batch of generated images: uint8 (B, 3, H, W), condition and seed of each, network calls per image."""

    images: torch.Tensor
    condition: Condition
    seeds: Sequence[int]
    nfe: int


def generate_batches(
    denoiser: Any,
    codec: Any,
    condition: Condition,
    seeds: Sequence[int],
    *,
    batch_size: int,
    **sampling: Any,
) -> Iterator[Generated]:
    """Batches of images with their conditions, seeds and cost; ``generate`` gives the images alone.

    Args:
        denoiser: what is sampled, guidance already wrapped around it.
        codec: decodes unit-variance latents to uint8: ``dit.data.codec.Codec``.
        condition: what each image shall be.
        seeds: N sample seeds; the noise of image i depends on ``seeds[i]`` alone.
        batch_size: images per network call.
        sampling: ``solver``, ``grid``, and what else ``generate_batch`` takes.
    """
    check_number("batch_size", batch_size, low=1, integer=True)
    condition.check(len(seeds))
    for start in range(0, len(seeds), batch_size):
        part = slice(start, start + batch_size)
        yield generate_batch(denoiser, codec, condition.part(part), seeds[part], **sampling)


def generate_in_turn(
    denoiser: Any,
    codec: Any,
    condition: Condition,
    seeds: Sequence[int],
    batch_size: int,
    distributed: bool,
    **sampling: Any,
) -> Iterator[tuple[range, Generated]]:
    """The batches that this rank makes of those of ``generate_batches``, and which of the images each one is.

    Ranks make equally many: an empty range comes with an image that is thrown away.
    """
    for mine in batches_in_turn(len(seeds), batch_size, *place(distributed)):
        part = slice(mine.start, mine.stop) if mine else slice(0, 1)
        yield mine, generate_batch(denoiser, codec, condition.part(part), seeds[part], **sampling)


def generate_shared(
    denoiser: Any,
    codec: Any,
    condition: Condition,
    seeds: Sequence[int],
    *,
    batch_size: int,
    distributed: bool,
    **sampling: Any,
) -> Iterator[torch.Tensor]:
    """The batches of ``generate`` on every rank of the process group, each made by one of them."""
    check_number("batch_size", batch_size, low=1, integer=True)
    for mine, batch in generate_in_turn(
        denoiser, codec, condition, seeds, batch_size, distributed, **sampling
    ):
        yield from gather_images(batch.images[: len(mine)]) if distributed else [batch.images]


def generate_batch(
    denoiser: Any,
    codec: Any,
    condition: Condition,
    seeds: Sequence[int],
    *,
    solver: Any,
    grid: Any,
    device: str | torch.device = "cpu",
    shape: Sequence[int] | None = None,
    precision: str = "float32",
) -> Generated:
    """One batch of images, one per seed.

    Args:
        denoiser: what is sampled, guidance already wrapped around it.
        codec: decodes unit-variance latents to uint8; always in its own precision.
        condition: what each image shall be.
        seeds: B sample seeds.
        solver: a solver of ``dit.diffusion.solvers``.
        grid: path -> decreasing times (K+1,); one of ``dit.diffusion.grids`` with its steps bound.
        device: where it runs.
        shape: (C, H, W) of the latents; the network's own by default.
        precision: ``float32``, or ``bfloat16`` for the network's matrix products and residual stream, all else being
            float32.
    """
    check_choice("precision", precision, PRECISIONS)
    shape = _shape(denoiser) if shape is None else shape
    kind = torch.device(device).type
    with torch.no_grad():  # not inference_mode: classifier guidance differentiates inside
        with torch.autocast(kind, torch.bfloat16, enabled=precision == "bfloat16"):
            drawn = sample(denoiser, solver, grid, shape, seeds, condition.to(device), device)
        images = codec.decode(drawn.x0)
    return Generated(images, condition, seeds, drawn.nfe)


def generate(*arguments: Any, **sampling: Any) -> Iterator[torch.Tensor]:
    """Batches of uint8 images (b, 3, H, W), in the order of ``seeds``; arguments as ``generate_batches``."""
    for batch in generate_batches(*arguments, **sampling):
        yield batch.images


def _shape(denoiser: Any) -> tuple[int, ...]:
    domain = getattr(denoiser.network, "domain", None)
    if domain is None:
        raise InputError(
            "shape", None, "(C, H, W) of the latents", "The network does not say what it was built for."
        )
    return domain.shape


def sample_seeds(seed: int, n: int) -> range:
    """The N sample seeds of one sampling seed: disjoint for different seeds, a prefix for smaller N."""
    check_number("seed", seed, low=0, below=2**32 // SEED_BLOCK, integer=True)
    check_number("n", n, low=1, high=SEED_BLOCK, integer=True)
    return range(seed * SEED_BLOCK, seed * SEED_BLOCK + n)
