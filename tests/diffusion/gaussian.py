"""Denoisers that need no training: the exact one of a Gaussian, and one that is plausible everywhere."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from dit.condition import NOTHING, Classes, Condition
from dit.diffusion.denoiser import Denoiser, Prediction
from dit.diffusion.paths import Path, per_sample
from dit.diffusion.targets import Target, Velocity


class Gaussian(Denoiser):
    """E[x0 | x_t] and E[eps | x_t] of independent x0 ~ N(mean, spread^2), in closed form."""

    def __init__(
        self, path: Path, target: Target | None = None, mean: float = 0.3, spread: float = 0.6
    ) -> None:
        super().__init__(nn.Identity(), path, target or Velocity())
        self.mean, self.spread = mean, spread

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = NOTHING) -> Prediction:
        alpha, sigma = (per_sample(c, x_t) for c in (self.path.alpha(t), self.path.sigma(t)))
        of_x_t = (x_t - alpha * self.mean) / (alpha**2 * self.spread**2 + sigma**2)
        x0, eps = self.mean + alpha * self.spread**2 * of_x_t, sigma * of_x_t
        return Prediction(x0, eps, self.target.encode(self.path, t, x0, eps))

    def deviation(self, t: float) -> float:
        """Standard deviation of x_t."""
        at = torch.tensor(t, dtype=torch.float64)
        return math.hypot(float(self.path.alpha(at)) * self.spread, float(self.path.sigma(at)))

    def flow(self, x: Tensor, start: float, end: float) -> Tensor:
        """Where the probability-flow ODE carries x: each quantile to the same quantile."""
        alphas = (float(self.path.alpha(torch.tensor(t, dtype=torch.float64))) for t in (start, end))
        at_start, at_end = (alpha * self.mean for alpha in alphas)
        return at_end + self.deviation(end) / self.deviation(start) * (x - at_start)


class Plausible(Denoiser):
    """Estimates as sane as a trained network's, through encode and decode of the target, by a convolution."""

    def __init__(self, path: Path, target: Target, channels: int = 2, learned_variance: bool = False) -> None:
        convolution = nn.Conv2d(channels, channels, 3, padding=1)
        generator = torch.Generator().manual_seed(0)
        for parameter in convolution.parameters():
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
        convolution.kind = Classes(10)  # type: ignore[assignment]
        super().__init__(convolution, path, target, learned_variance)

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = NOTHING) -> Prediction:
        alpha, sigma = (per_sample(c, x_t) for c in (self.path.alpha(t), self.path.sigma(t)))
        level = alpha**2 + sigma**2
        wish = torch.sin(per_sample(condition["label"].to(x_t.dtype), x_t)) if condition else 0.0
        x0 = (
            alpha * x_t / level
            + 0.3 * sigma * torch.tanh(self.network(x_t / level.sqrt()) + wish) / level.sqrt()
        )
        output = self.target.encode(self.path, t, x0, (x_t - alpha * x0) / sigma)
        fraction = torch.sigmoid(x0) if self.learned_variance else None
        return Prediction(*self.target.decode(self.path, t, x_t, output), output, fraction)


def between(path: Path, high: float, low: float, steps: int, in_log_snr: bool) -> Tensor:
    """A grid between two log-SNRs, evenly spaced in log-SNR or in t; both ends noisy."""
    ends = torch.tensor([high, low], dtype=torch.float64)
    if in_log_snr:
        return path.t_of_log_snr(torch.linspace(high, low, steps + 1, dtype=torch.float64))
    first, last = path.t_of_log_snr(ends).tolist()
    return torch.linspace(first, last, steps + 1, dtype=torch.float64)


def measured_order(errors: list[float]) -> float:
    """The order of convergence from the errors at K, 2 K, 4 K, ... steps, from the last two."""
    *_, order = (math.log2(coarse / fine) for coarse, fine in pairwise(errors))
    return order
