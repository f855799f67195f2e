"""Editing: image to image, inpainting and interpolation, with any solver and any denoiser, guided or not.

Legend: B batch, C channels, K steps; a sample has any number of axes behind its channels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dit.condition import NOTHING, Condition
from dit.diffusion.denoiser import Prediction
from dit.diffusion.guidance import AnyDenoiser, Guided
from dit.diffusion.paths import per_sample
from dit.diffusion.sampling import Grid, NoiseStream, Sample, Solver, first_time, run
from dit.errors import InputError, check_number


@torch.no_grad()
def image_to_image(
    denoiser: AnyDenoiser,
    solver: Solver,
    grid: Grid,
    x0: Tensor,
    strength: float,
    seeds: Sequence[int],
    condition: Condition = NOTHING,
) -> Sample:
    """Other samples near given ones: noise is added up to a level inside the grid and taken away again.

    Args:
        denoiser: on the device of ``x0``.
        solver: one of `dit.diffusion.solvers`, its options bound.
        grid: path -> ts (K + 1,), see `dit.diffusion.grids`.
        x0: data to start from (B, ...).
        strength: share of the grid's steps that is taken, in [1/K, 1]; the start lies between two times where
            strength K is not whole. 1 keeps of x0 only what alpha leaves at the grid's first time.
        seeds: one per sample.
        condition: what each sample shall be.

    Raises:
        InputError: the strength is out of range.

    Source: SDEdit, 2108.01073, section 3.
    """
    ts = first_time(denoiser, grid(denoiser.path))
    steps = len(ts) - 1
    check_number("strength", strength, low=1 / steps, high=1)
    skipped = round((1 - strength) * steps, 9)  # 0.9 of 50 steps leaves out 5, not 4.999999999999999
    whole = min(int(skipped), steps - 1)
    start = torch.lerp(ts[whole], ts[whole + 1], skipped - whole)
    stream = NoiseStream(seeds, x0.shape[1:], x0.device, x0.dtype)
    x = denoiser.path.corrupt(x0, start, stream())
    return run(denoiser, solver, torch.cat([start[None], ts[whole + 1 :]]), x, condition, stream)


class KnownRegion(Guided):
    """A denoiser that is told part of the answer: x0 where it is known, and the eps that belongs to it.

    The known part of x_t then moves on its own straight line from noise to the data under any solver, so that
    the network always sees it at the right noise level, and it ends as the data exactly. Wrap it around
    guidance, not inside.

    Args:
        denoiser: what says the rest.
        x0: data (B, ...).
        known: where it is kept, bool, broadcast to x0.

    Source: the replacement of 2011.13456, appendix I.2, written on the prediction instead of on x_t.
    """

    def __init__(self, denoiser: AnyDenoiser, x0: Tensor, known: Tensor) -> None:
        super().__init__(denoiser)
        fits = known.ndim <= x0.ndim and all(k in (1, n) for k, n in zip(known.shape[::-1], x0.shape[::-1]))
        if known.dtype != torch.bool or not fits:
            got = f"({known.dtype} {tuple(known.shape)})"
            raise InputError("mask", got, f"a bool mask that broadcasts to {tuple(x0.shape)}")
        self.x0, self.known = x0, known

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = NOTHING) -> Prediction:
        """The prediction with the known data in it."""
        prediction = self.denoiser(x_t, t, condition)
        alpha, sigma = (per_sample(c.to(x_t.dtype), x_t) for c in (self.path.alpha(t), self.path.sigma(t)))
        x0 = torch.where(self.known, self.x0, prediction.x0)
        eps = torch.where(self.known, (x_t - alpha * self.x0) / sigma, prediction.eps)
        return self.rewritten(prediction, t, x0, eps)


@torch.no_grad()
def inpaint(
    denoiser: AnyDenoiser,
    solver: Solver,
    grid: Grid,
    x0: Tensor,
    known: Tensor,
    seeds: Sequence[int],
    condition: Condition = NOTHING,
) -> Sample:
    """Samples that agree with given data where it is known, the rest made to fit.

    Args:
        denoiser: on the device of ``x0``.
        solver: one of `dit.diffusion.solvers`, its options bound.
        grid: path -> ts (K + 1,), see `dit.diffusion.grids`.
        x0: data (B, ...); what is not known may hold anything finite.
        known: True where x0 is kept, bool, broadcast to (B, ...).
        seeds: one per sample.
        condition: what each sample shall be.

    Raises:
        InputError: the mask is not bool or has another shape.

    Source: see `KnownRegion`.
    """
    stream = NoiseStream(seeds, x0.shape[1:], x0.device, x0.dtype)
    told = KnownRegion(denoiser, x0, known)
    ts = first_time(told, grid(told.path))
    eps = stream()
    x = torch.where(known, told.path.corrupt(x0, ts[0], eps), told.path.start(ts[0], eps))
    return run(told, solver, ts, x, condition, stream)


def slerp(a: Tensor, b: Tensor, fractions: Tensor) -> Tensor:
    """Points on the great circle from a to b: (sin((1 - f) w) a + sin(f w) b) / sin w, w the angle between
    them.

    Two normal draws mixed like this have the length of one, which their mean has not.

    Args:
        a: where fraction 0 is, (C, ...).
        b: where fraction 1 is, (C, ...).
        fractions: f (B,).

    Source: DDIM, 2010.02502, section 5.3.
    """
    cosine = torch.dot(a.flatten().double(), b.flatten().double()) / (a.double().norm() * b.double().norm())
    angle = torch.acos(cosine.clamp(-1, 1))
    if float(torch.sin(angle)) < 1e-6:  # the same draw twice
        of_a, of_b = 1 - fractions.double(), fractions.double()
    else:
        of_a = torch.sin((1 - fractions.double()) * angle) / torch.sin(angle)
        of_b = torch.sin(fractions.double() * angle) / torch.sin(angle)
    return per_sample(of_a.to(a.dtype), a[None]) * a + per_sample(of_b.to(a.dtype), a[None]) * b


@torch.no_grad()
def interpolate(
    denoiser: AnyDenoiser,
    solver: Solver,
    grid: Grid,
    shape: Sequence[int],
    seeds: tuple[int, int],
    n: int,
    condition: Condition = NOTHING,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Sample:
    """A row of n samples from one seed to another, every draw of noise on the great circle between theirs.

    The ends are the samples of the two seeds, with a stochastic solver too.

    Args:
        denoiser: on ``device``.
        solver: one of `dit.diffusion.solvers`, its options bound.
        grid: path -> ts (K + 1,), see `dit.diffusion.grids`.
        shape: (C, ...).
        seeds: the first and the last seed.
        n: number of samples, 2 or more.
        condition: what each sample shall be.
        device: where to sample.
        dtype: of the state.

    Raises:
        InputError: n is below 2, or there are not two seeds.
    """
    check_number("n", n, low=2, integer=True)
    if len(seeds) != 2:
        raise InputError("seeds", list(seeds), "two seeds, the first and the last")
    stream = NoiseStream(seeds, shape, device, dtype)
    fractions = torch.linspace(0, 1, n, dtype=torch.float64, device=device)

    def draw() -> Tensor:
        first, last = stream()
        return slerp(first, last, fractions)

    ts = first_time(denoiser, grid(denoiser.path))
    return run(denoiser, solver, ts, denoiser.path.start(ts[0], draw()), condition, draw)
