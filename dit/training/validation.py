"""Validation loss on stored draws, comparable between objectives of one process.

Every model, of any path and target, is read at the same (sample, log-SNR, noise) draws, so most of the sampling noise
cancels between models. The process gives the error: one fixed measure whatever the model was trained on.
"""

import torch
from torch import nn

from dit.condition import Condition
from dit.data.draws import Draws
from dit.diffusion.process import Process
from dit.launch import World


@torch.no_grad()
def validation_loss(
    process: Process,
    denoiser: nn.Module,
    draws: Draws,
    condition: Condition,
    world: World = World(),  # noqa: B008 - frozen
    batch_size: int = 512,
) -> tuple[float, list[float]]:
    """Mean validation error in the process's unit: over all draws, and per log-SNR bin.

    Args:
        process: how the denoiser's answer is read.
        denoiser: the model to read.
        draws: the stored draws.
        condition: what is known of each.
        world: the ranks that share the draws out, in whole batches: the result is that of one process, bit for bit.
        batch_size: draws per network call; it does not move the result beyond float32 rounding.
    """
    device = next(denoiser.parameters()).device
    error = torch.zeros(len(draws), dtype=torch.float64)
    for start in range(world.rank * batch_size, len(draws), world.size * batch_size):
        part = slice(start, start + batch_size)
        x0, eps, log_snr = (a[part].to(device) for a in (draws.x0, draws.eps, draws.log_snr))
        told = condition.part(part).to(device)
        error[part] = process.validation_error(denoiser, x0, told, log_snr, eps).cpu()
    if world.size > 1:
        torch.distributed.all_reduce(error)
    n_bins = len(draws.edges) - 1
    return float(error.mean()), [float(error[draws.bin_id == index].mean()) for index in range(n_bins)]
