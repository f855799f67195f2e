"""Likelihood of data under a denoiser, by the probability-flow ODE.

Along dx/dt = v(x, t) the log-density changes by -div v, so that

    ln p(x0) = ln N(x_T; 0, alpha_T^2 + sigma_T^2) + integral of div v dt + D ln alpha_0,

with the ODE followed from the grid's last noisy time, where x = alpha_0 x0, up to its first, and the prior
from which `dit.diffusion.sampling.sample` starts. It is the density of what that sampler draws, with the
little noise sigma / alpha of the last noisy time.

Bits per dimension are -log2 p(x0) / D in the units of x0 as it is handed in, with no dequantisation: for
8-bit values scaled to [-1, 1] add log2(127.5).

Legend: B batch, D numbers of a sample, which has any number of axes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from dit.condition import NOTHING, Condition
from dit.diffusion.guidance import AnyDenoiser
from dit.diffusion.sampling import Grid, NoiseStream, counted, first_time
from dit.diffusion.solvers import level, velocity
from dit.errors import InputError, check_number

_LARGEST_EXACT = 4096


@dataclass(frozen=True)
class Likelihood:
    """ln p(x0) ``log_density`` (B,) in nats and ``bits_per_dim`` (B,), both float64; ``nfe`` per sample."""

    log_density: Tensor
    bits_per_dim: Tensor
    nfe: int


def likelihood(
    denoiser: AnyDenoiser,
    x0: Tensor,
    grid: Grid,
    condition: Condition = NOTHING,
    *,
    seeds: Sequence[int] | None = None,
    probes: int | None = 1,
) -> Likelihood:
    """The likelihood of data by classical Runge-Kutta steps (order 4, four calls a step) along a grid.

    Double the steps to see the error of the grid; use one spaced in noise levels (`karras`, `log_snr`), since
    most of the integral lies at little noise. No gradient to the network is kept.

    Args:
        denoiser: a `Denoiser` or a guided one, on the device of ``x0``.
        x0: data (B, ...), float32 or float64; the ODE runs in its dtype, sums in float64.
        grid: path -> ts, see `dit.diffusion.grids`.
        condition: what each sample shall be.
        seeds: one per sample, for the probes; the estimate of a sample does not depend on its batch.
        probes: number of Rademacher probes of the divergence (Hutchinson), the same along the whole path, or
            None for the exact divergence, which takes D backward passes a call.

    Raises:
        InputError: probes are asked for without a seed per sample, or the exact divergence of more than 4096
            dimensions.

    Source: 2011.13456, equation 39 and appendix D.2; the estimate with fixed probes is FFJORD's, 1810.01367,
    section 3.1.
    """
    signs = _probes(x0, seeds, probes)
    ts = first_time(denoiser, grid(denoiser.path))
    path = denoiser.path
    noisy = [at for at in (level(path, t) for t in reversed(ts.tolist())) if at.sigma > 0]
    x, change = noisy[0].alpha * x0, torch.zeros(len(x0), dtype=torch.float64, device=x0.device)

    def slope(state: Tensor, t: float) -> tuple[Tensor, Tensor]:
        return _slope(denoiser, state, t, condition, signs)

    with torch.no_grad(), counted(denoiser) as evaluations:
        for now, end in pairwise(noisy):
            h, middle = end.t - now.t, (now.t + end.t) / 2
            v1, d1 = slope(x, now.t)
            v2, d2 = slope(x + h / 2 * v1, middle)
            v3, d3 = slope(x + h / 2 * v2, middle)
            v4, d4 = slope(x + h * v3, end.t)
            x = x + h / 6 * (v1 + 2 * v2 + 2 * v3 + v4)
            change = change + h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
    dims, variance = x0[0].numel(), path.deviation(ts[0]) ** 2
    prior = -x.double().square().flatten(1).sum(1) / (2 * variance) - dims / 2 * math.log(
        2 * math.pi * variance
    )
    log_density = prior + change + dims * math.log(noisy[0].alpha)
    return Likelihood(log_density, -log_density / (dims * math.log(2)), evaluations.per_sample(len(x0)))


def _probes(x0: Tensor, seeds: Sequence[int] | None, probes: int | None) -> list[Tensor] | None:
    if probes is None:
        if x0[0].numel() > _LARGEST_EXACT:
            raise InputError("probes", None, f"a number of probes above {_LARGEST_EXACT} dimensions")
        return None
    check_number("probes", probes, low=1, integer=True)
    if seeds is None or len(seeds) != len(x0):
        raise InputError("seeds", seeds, f"one seed for each of the {len(x0)} samples")
    stream = NoiseStream(seeds, x0.shape[1:], x0.device, x0.dtype)
    return [torch.where(stream() >= 0, 1.0, -1.0).to(x0.dtype) for _ in range(probes)]


def _slope(
    denoiser: AnyDenoiser, x: Tensor, t: float, condition: Condition, signs: list[Tensor] | None
) -> tuple[Tensor, Tensor]:
    """The velocity (B, ...) at x and t, and its divergence (B,) float64."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        times = torch.full((len(x),), t, dtype=x.dtype, device=x.device)
        v = velocity(denoiser.path, denoiser(x, times, condition), t)
        divergence = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        if signs is None:
            for i in range(x[0].numel()):
                (row,) = torch.autograd.grad(v.flatten(1)[:, i].sum(), x, retain_graph=True)
                divergence += row.flatten(1)[:, i].double()
        else:
            for sign in signs:
                (product,) = torch.autograd.grad((v * sign).sum(), x, retain_graph=True)
                divergence += (product * sign).double().flatten(1).sum(1) / len(signs)
    return v.detach(), divergence
