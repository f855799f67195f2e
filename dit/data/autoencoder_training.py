"""Training of the small autoencoder: seconds on two cores, the same bits for the same seed.

B batch, C H W latent.
"""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from dit.data.autoencoder import Images, Progress, TrainedKL

# Sums are split by thread, so a fixed number makes the weights independent of the caller's setting. One, because these
# layers are too small to share: a second thread saves a third of the time on an idle machine, but on a busy one the two
# wait for each other (30 times the processor time for a convolution of 16 channels and its gradient).
TRAINING_THREADS = 1
WARMUP_STEPS = 50
REPORT_EVERY = 25


@contextlib.contextmanager
def fixed_threads(count: int) -> Iterator[None]:
    """Runs the body with ``count`` threads inside operations, then restores the caller's number."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def train_kl(spec: "TrainedKL", images: "Images", progress: "Progress"):
    """The trained diffusers AutoencoderKL; the same bits at any setting of the caller's threads and
    generators.
    """
    data = torch.cat(list(images()))  # (N, 3, H, W) uint8
    with torch.random.fork_rng(devices=[]), fixed_threads(TRAINING_THREADS):
        torch.manual_seed(spec.seed)  # the weights' initialisation knows only the global generator
        model = build_kl(spec, data.shape[-1])
        _fit(model, spec, data, progress)
    return model


def build_kl(spec: "TrainedKL", image_size: int):
    """The untrained diffusers AutoencoderKL of this spec."""
    # From its own file: `import diffusers` itself is lazy, but the package's other entry points load more.
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    levels = len(spec.widths)
    return AutoencoderKL(  # diffusers annotates tuples of any length as tuples of one
        down_block_types=("DownEncoderBlock2D",) * levels,  # type: ignore[arg-type]
        up_block_types=("UpDecoderBlock2D",) * levels,  # type: ignore[arg-type]
        block_out_channels=spec.widths,  # type: ignore[arg-type]
        layers_per_block=1,
        latent_channels=spec.latent_channels,
        norm_num_groups=8,
        sample_size=image_size,
        scaling_factor=1.0,  # latents are normalised per channel by the manifest's statistics instead
        mid_block_add_attention=False,
    )


def rate_share(step: int, steps: int) -> float:
    """The share of the peak learning rate at a step: up over the first 50 steps, down over the second half."""
    return min(1, (step + 1) / WARMUP_STEPS, 2 * (1 - step / steps))


def _fit(model: nn.Module, spec: "TrainedKL", data: Tensor, progress: "Progress") -> None:
    generator = torch.Generator().manual_seed(spec.seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=spec.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_share(step, spec.steps))
    model.train()
    for step in range(1, spec.steps + 1):
        index = torch.randint(len(data), (spec.batch_size,), generator=generator)
        x = data[index].float() / 127.5 - 1  # (B, 3, H, W)
        posterior = model.encode(x).latent_dist  # type: ignore[operator]
        eps = torch.randn(posterior.mean.shape, generator=generator)
        decoded = model.decode(posterior.mean + posterior.std * eps).sample  # type: ignore[operator]
        mse = (decoded - x).square().mean()
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        optimizer.zero_grad()
        (mse + spec.kl_weight * kl).backward()
        optimizer.step()
        schedule.step()
        if step % REPORT_EVERY == 0 or step == spec.steps:
            progress("autoencoder", step, spec.steps, f"mse {mse.item():.4f} kl {kl.item():.2f}")
    model.eval()
