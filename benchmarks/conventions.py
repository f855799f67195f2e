"""Where our conventions and a peer's differ: the size of each difference (docs/conventions.md).

    python benchmarks/conventions.py             # half a minute on one core

Samples are drawn with the exact denoiser of eight Gaussian clusters of unit variance, so that a difference is the
sampler's alone; sizes are relative differences of the samples (root mean square).
"""

import math
import os
from functools import partial

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor, nn
from torchdiffeq import odeint

from dit.condition import NOTHING, Condition
from dit.diffusion import grids, solvers
from dit.diffusion.denoiser import Denoiser, Prediction
from dit.diffusion.paths import VE, Cosine, Discrete, Linear, Path
from dit.diffusion.targets import Velocity
from dit.diffusion.vlb import step_bits
from dit.evaluation.metrics import inception_score

SHAPE = (64, 4, 8, 8)


def draw(seed: int) -> Tensor:
    """Standard normal noise (B, C, H, W) float64."""
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Clusters(Denoiser):
    """The exact denoiser of eight clusters of deviation 0.3, of unit variance together."""

    def __init__(self, path: Path) -> None:
        super().__init__(nn.Identity(), path, Velocity())
        self.centres = math.sqrt(1 - 0.3**2) * draw(7)[:8]

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = NOTHING) -> Prediction:
        """The posterior mean of data and noise."""
        alpha, sigma = (float(c[0]) for c in (self.path.alpha(t), self.path.sigma(t)))
        variance = (0.3 * alpha) ** 2 + sigma**2
        apart = (x_t[:, None] - alpha * self.centres).flatten(2)  # (B, 8, D)
        share = torch.softmax(-apart.square().sum(2) / (2 * variance), 1)
        of_x_t = torch.einsum("bk,bkd->bd", share, apart).view_as(x_t) / variance
        centre = torch.einsum("bk,kchw->bchw", share, self.centres)
        x0 = centre + 0.09 * alpha * of_x_t
        eps = (x_t - alpha * x0) / sigma if sigma else torch.zeros_like(x_t)
        return Prediction(x0, eps, x0)


def apart(got: Tensor, other: Tensor) -> float:
    """The relative difference of two sets of samples."""
    return float((got - other).norm() / other.norm())


def sampled(path: Path, ts: Tensor, solver=solvers.euler, factor: float = 1.0) -> Tensor:
    """Samples along a grid from noise of a given deviation."""
    return solver(Clusters(path), factor * draw(1), ts)


def ends_of_grids() -> None:
    """What the ends of a path and of a grid move."""
    exact = torch.linspace(1, 0, 51, dtype=torch.float64)
    ours = sampled(Linear(), grids.uniform(Linear(), 50))
    print(
        f"start at t = 1 - 1e-5 instead of 1 (Linear, Euler, 50):      {apart(ours, sampled(Linear(), exact)):.1e}"
    )
    ts = grids.karras(VE(), 18)
    heun = partial(sampled, VE(), ts, solvers.heun)
    print(
        f"start of deviation 80.006 instead of EDM's 80 (Heun, 18):   {apart(heun(6401**0.5), heun(80)):.1e}"
    )
    path = Cosine()
    ts = grids.sit(path, 50, last_step_size=None)
    before = sampled(path, ts[:-1])
    last = Clusters(path)(before, torch.full((len(before),), float(ts[-2]), dtype=torch.float64))
    euler = before - ts[-2] * solvers.velocity(path, last, float(ts[-2]))
    print(
        f"Euler's last step instead of the data (Cosine, 50):         {apart(sampled(path, ts), euler):.1e}"
    )


def adaptive() -> None:
    """SiT's ODE goes on to t = 0, ours ends at sigma / alpha 1/1000 with the data prediction."""
    denoiser, ts = Clusters(Linear()), grids.sit(Linear(), 2, last_step_size=None)

    def slope(t: Tensor, x: Tensor) -> Tensor:
        at = max(float(t), 1e-12)
        return solvers.velocity(Linear(), denoiser(x, torch.full((len(x),), at, dtype=x.dtype)), at)

    for rtol, atol in ((1e-3, 1e-6), (1e-8, 1e-8)):
        theirs = odeint(slope, draw(1), torch.linspace(1, 0, 50, dtype=torch.float64), rtol=rtol, atol=atol)
        assert isinstance(theirs, Tensor)
        ours = solvers.dopri5(denoiser, draw(1), ts, rtol=rtol, atol=atol)
        print(f"dopri5 to t = 0 instead of the data step (rtol {rtol:g}):      {apart(ours, theirs[-1]):.1e}")


def steps_of_discrete_paths() -> None:
    """ADM's ddimN strides against ours, and iDDPM's sums of floats."""
    path, end = Discrete(), torch.tensor([grids.data_end(Discrete())], dtype=torch.float64)
    for n in (10, 25, 50, 100, 250):
        strided = torch.cat([torch.arange(0, 1000, 1000 // n, dtype=torch.float64).flip(0) / 1000, end])
        ours, theirs = (sampled(path, ts, solvers.ddim) for ts in (grids.respaced(path, n), strided))
        print(f"respaced({n}) instead of ddim{n}: {apart(ours, theirs):.1e}")
    moved = []
    for n in range(2, 1001):
        sums = [round(step) for step in np.cumsum([0.0, *[999 / (n - 1)] * (n - 1)]).tolist()]
        steps = (1000 * grids.respaced(path, n)[:-1]).round().flip(0).int().tolist()
        moved.append(sum(a != b for a, b in zip(sums, steps, strict=True)))
    count = sum(m > 0 for m in moved)
    print(f"respaced against sums of floats: {count} of 999 K differ, by one in at most {max(moved)} steps")


def scores() -> None:
    """The Inception score in ten shuffled parts against parts of 5,000 in order."""
    rng = np.random.default_rng(0)
    for n in (50_000, 10_000):
        logits = rng.standard_normal((n, 200)) + 7 * np.eye(200)[np.arange(n) * 200 // n]  # sorted by class
        p = softmax(rng.permutation(logits), axis=1)
        adm = []
        for part in np.split(p, range(5000, n, 5000)):
            adm.append(math.exp((part * np.log(part / part.mean(0))).sum(1).mean()))
        print(
            f"IS of {n}: ours {inception_score(logits)['inception_score']:.2f}, in parts of 5,000 {np.mean(adm):.2f}"
        )


def bits() -> None:
    """Offsets of bits per dimension, and the decoder at k = 0."""
    ours = math.log2(127.5)
    print(f"8 bits in [-1, 1]: ours + log2(127.5) = {ours:.4f}; score SDE's 7 is {7 - ours:.4f} more")
    path = Discrete()
    t = torch.zeros(SHAPE[0], dtype=torch.float64)
    for name, x0 in (("8-bit values", (draw(2).clamp(-1, 1) * 127.5).round() / 127.5), ("latents", draw(2))):
        x_t = path.alpha(t)[0] * x0 + path.sigma(t)[0] * draw(3)
        said = x0 + 0.01 * draw(4)
        log_variance = path.posterior(t).log_variance.reshape(-1, 1, 1, 1)
        ours = float(step_bits(path, t, x0, x_t, said, log_variance).mean())
        theirs = tanh_bits(x0, said, log_variance)
        print(f"decoder at k = 0, {name}: {ours:.4f} bits, with a tanh {theirs:.4f}")


def tanh_bits(x0: Tensor, mean: Tensor, log_variance: Tensor) -> float:
    """The decoder's bits per dimension with the tanh approximation of the normal distribution function."""

    def cdf(x: Tensor) -> Tensor:
        return (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2

    scaled = (-log_variance / 2).exp()
    upper, lower = cdf((x0 - mean + 1 / 255) * scaled), cdf((x0 - mean - 1 / 255) * scaled)
    probability = torch.where(x0 < -0.999, upper, torch.where(x0 > 0.999, 1 - lower, upper - lower))
    return float(-probability.clamp(min=1e-12).log2().mean())


def main() -> None:
    """Prints every size."""
    for measure in (ends_of_grids, adaptive, steps_of_discrete_paths, scores, bits):
        measure()


if __name__ == "__main__":
    main()
