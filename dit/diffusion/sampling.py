"""Sampling: seeds -> noise -> data, with one random generator per sample and the network's evaluations
counted.

Legend: B batch, C channels, K steps; a sample has any number of axes behind its channels.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dit.condition import NOTHING, Condition
from dit.diffusion.denoiser import NetworkReader
from dit.diffusion.grids import LOG_SNR_LIMIT
from dit.diffusion.guidance import AnyDenoiser
from dit.diffusion.paths import Path
from dit.diffusion.process import Process
from dit.diffusion.solvers import NoiseSource
from dit.diffusion.targets import Noise, Score
from dit.errors import InputError, check_number

Solver = Callable[..., Tensor]
Grid = Callable[[Path], Tensor]


class NoiseStream:
    """Standard normal draws with one generator per sample: each call gives every sample's next (C, ...).

    Draws are made on the CPU in float32 and then moved, so that a seed means the same noise at any batch
    size, on any device and in any dtype.

    Args:
        seeds: one integer in [0, 2**32) per sample (the CPU generator keeps 32 bits of a seed).
        shape: (C, ...).
        device, dtype: of the draws returned.

    Raises:
        InputError: a seed is no integer in range, or there is none.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        shape: Sequence[int],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if not len(seeds):
            raise InputError("seeds", list(seeds), "at least one seed")
        for seed in seeds:
            check_number("seeds", seed, low=0, high=2**32 - 1, integer=True)
        self.shape, self.device, self.dtype = tuple(shape), device, dtype
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self) -> Tensor:
        """The next draw of every sample, (B, ...)."""
        draws = [torch.randn(self.shape, generator=generator) for generator in self._generators]
        return torch.stack(draws).to(self.device, self.dtype)


class Evaluations:
    """Counts samples that passed through networks; ``per_sample(B)`` is the NFE of a batch of B."""

    def __init__(self) -> None:
        self.total = 0

    def per_sample(self, batch: int) -> int:
        assert self.total % batch == 0, f"{self.total} evaluations do not divide over {batch} samples"
        return self.total // batch


@contextmanager
def counted(denoiser: AnyDenoiser) -> Iterator[Evaluations]:
    """Counts network evaluations inside: one per sample and call of every Denoiser within ``denoiser``.

    A guided call counts 2, whether it is made of two passes or of one pass over conditional and unconditional
    together.
    """
    evaluations = Evaluations()

    def count(_module: nn.Module, args: tuple) -> None:
        evaluations.total += args[0].shape[0]

    leaves = [module for module in denoiser.modules() if isinstance(module, NetworkReader)]
    hooks = [leaf.register_forward_pre_hook(count) for leaf in leaves]
    try:
        yield evaluations
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True)
class Sample:
    """What a solver made: ``x0`` (B, ...) and ``nfe``, the network evaluations per sample."""

    x0: Tensor
    nfe: int


def first_time(denoiser: AnyDenoiser, ts: Tensor) -> Tensor:
    """``ts``, its first time moved to sigma / alpha 1000 where the target says nothing of data at pure noise.

    Noise and Score divide by alpha: an error of the network at t = 1 - 1e-5 would count 1e5 times in x0. SiT
    leaves out the same 1e-3 of its paths for these targets (2401.08740). Other targets, and grids
    that start lower, stay as they are.
    """
    path = denoiser.path
    reached = float(path.log_snr(ts[0])) >= -LOG_SNR_LIMIT
    if reached or not isinstance(getattr(denoiser, "target", None), (Noise, Score)):
        return ts
    limit = path.t_of_log_snr(torch.tensor(-LOG_SNR_LIMIT, dtype=torch.float64))
    if ts[1] >= limit:
        allowed = f"a second time below {float(limit):.6g} for a target of noise or score"
        raise InputError("grid", float(ts[1]), allowed, "Take fewer steps, or grid=log_snr.")
    return torch.cat([limit[None], ts[1:]])


def run(
    denoiser: AnyDenoiser, solver: Solver, ts: Tensor, x: Tensor, condition: Condition, noise: NoiseSource
) -> Sample:
    """Carries x (B, ...) along ts and counts; keeps gradients if the caller does."""
    if x.dtype not in (torch.float32, torch.float64, torch.int64):
        raise InputError(
            "dtype", x.dtype, "float32 or float64", "Only the network may run in half precision."
        )
    condition.check(len(x))
    condition = condition.to(x.device)
    with counted(denoiser) as evaluations:
        x0 = solver(denoiser, x, ts, condition, noise=noise)
    return Sample(x0, evaluations.per_sample(len(x)))


class _Silent(nn.Module):
    """A network that answers 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor, t: Tensor, condition: Condition = NOTHING) -> Tensor:
        return torch.zeros(len(x), self.channels, *x.shape[2:])


def rehearse(process: Process, solver: Solver, grid: Grid) -> None:
    """Walks a grid with the simplest data of a process, and a network that answers 0.

    So what a solver or a grid refuses is refused before anything is computed.

    Args:
        process: that of the denoiser that will sample.
        solver: one of `dit.diffusion.solvers`, its options bound.
        grid: path -> ts, see `dit.diffusion.grids`.

    Raises:
        InputError: what the grid or the solver says.
    """
    simplest = process.simplest
    denoiser = process.denoiser(_Silent(process.out_channels(simplest)))
    sample(denoiser, solver, grid, simplest.shape, [0])


@torch.no_grad()
def sample(
    denoiser: AnyDenoiser,
    solver: Solver,
    grid: Grid,
    shape: Sequence[int],
    seeds: Sequence[int],
    condition: Condition = NOTHING,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Sample:
    """Samples, one per seed: noise at the grid's first time, carried to its last by the solver.

    The start is the path's at the grid's first time, made of the first draw of each sample's stream; a stochastic
    solver draws on from there. Seeds mean the same noise at any batch size.

    Args:
        denoiser: a `Denoiser` or a guided one, on ``device``.
        solver: one of `dit.diffusion.solvers`, its options bound.
        grid: path -> ts (K + 1,) decreasing, one of `dit.diffusion.grids` with its number of steps bound.
        shape: (C, ...).
        seeds: one per sample, see `NoiseStream`.
        condition: what each sample shall be.
        device: where to sample.
        dtype: of the state; float32 or float64.
    """
    stream = NoiseStream(seeds, shape, device, dtype)
    ts = first_time(denoiser, grid(denoiser.path))
    return run(denoiser, solver, ts, denoiser.path.start(ts[0], stream()), condition, stream)
