"""Validation loss on stored draws, comparable between objectives.

Every model, of any path and target, is read at the same (image, log-SNR, noise) draws, so most of the sampling noise
cancels between models. The error is that of the velocity in the frame of rectified flow, ``v = eps - x0``, with t of
that path uniform: one fixed measure whatever the model was trained on.

n: draws.
"""

import torch

from dit.condition import Condition
from dit.data.draws import Draws
from dit.diffusion.denoiser import Denoiser
from dit.launch import World


@torch.no_grad()
def validation_loss(
    denoiser: Denoiser,
    draws: Draws,
    condition: Condition,
    world: World = World(),  # noqa: B008 - frozen
    batch_size: int = 512,
) -> tuple[float, list[float]]:
    """Mean squared velocity error per latent dimension: over all draws, and per log-SNR bin.

    Args:
        denoiser: the model to read.
        draws: the stored draws.
        condition: what is known of each.
        world: the ranks that share the draws out, in whole batches: the result is that of one process, bit for bit.
        batch_size: draws per network call; it does not move the result beyond float32 rounding.
    """
    path, device = denoiser.path, next(denoiser.parameters()).device
    error = torch.zeros(len(draws), dtype=torch.float64)
    for start in range(world.rank * batch_size, len(draws), world.size * batch_size):
        part = slice(start, start + batch_size)
        x0, eps, log_snr = (a[part].to(device) for a in (draws.x0, draws.eps, draws.log_snr))
        t = path.t_of_log_snr(log_snr)
        prediction = denoiser(path.corrupt(x0, t, eps), t, condition.part(part).to(device))
        velocity_error = (prediction.eps - prediction.x0) - (eps - x0)
        error[part] = velocity_error.double().square().flatten(1).mean(1).cpu()
    if world.size > 1:
        torch.distributed.all_reduce(error)
    n_bins = len(draws.edges) - 1
    return float(error.mean()), [float(error[draws.bin_id == index].mean()) for index in range(n_bins)]
