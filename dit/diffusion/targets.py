"""Targets: what a network is asked for, F = a(t) x0 + b(t) eps.

With the path's x_t = alpha x0 + sigma eps these are two equations in (x0, eps), so that any target is solved
for both.

Shapes: B batch; t (B,), x0, eps, x_t and F (B, ...), channels first.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from dit.diffusion.paths import Path, at_least_float32, per_sample
from dit.errors import check_number


class Target(ABC):
    """A line in the plane of data and noise."""

    @abstractmethod
    def coefficients(self, path: Path, t: Tensor) -> tuple[Tensor, Tensor]:
        """(a, b), each (B,)."""

    def input_scale(self, path: Path, t: Tensor) -> Tensor:
        """Factor (B,) by which x_t is multiplied before the network sees it: one, except for Karras."""
        return torch.ones_like(at_least_float32(t))

    def determinant(self, path: Path, t: Tensor) -> Tensor:
        """Alpha b - sigma a, (B,): at fixed x_t errors along two lines are as these."""
        a, b = self.coefficients(path, t)
        return path.alpha(t) * b - path.sigma(t) * a

    def encode(self, path: Path, t: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        """F (B, ...) of known data and noise."""
        a, b = self.coefficients(path, t)
        return per_sample(a, x0) * x0 + per_sample(b, x0) * eps

    def decode(self, path: Path, t: Tensor, x_t: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        """(x0, eps), each (B, ...), from the noisy sample and F."""
        a, b = self.coefficients(path, t)
        alpha, sigma = path.alpha(t), path.sigma(t)
        determinant = alpha * b - sigma * a

        def solve(of_x_t: Tensor, of_output: Tensor) -> Tensor:
            return (
                per_sample(of_x_t / determinant, x_t) * x_t
                + per_sample(of_output / determinant, x_t) * output
            )

        return solve(b, -sigma), solve(-a, alpha)


@dataclass(frozen=True)
class Noise(Target):
    """F = eps. Source: DDPM, arXiv 2006.11239, eq. 14."""

    def coefficients(self, path: Path, t: Tensor) -> tuple[Tensor, Tensor]:
        one = torch.ones_like(at_least_float32(t))
        return 0 * one, one


@dataclass(frozen=True)
class Data(Target):
    """F = x0. Source: DDPM, arXiv 2006.11239, section 3.2; 2202.00512, section 4."""

    def coefficients(self, path: Path, t: Tensor) -> tuple[Tensor, Tensor]:
        one = torch.ones_like(at_least_float32(t))
        return one, 0 * one


@dataclass(frozen=True)
class Velocity(Target):
    """F = dx_t/dt. Source: flow matching, arXiv 2210.02747; rectified flow, 2209.03003."""

    def coefficients(self, path: Path, t: Tensor) -> tuple[Tensor, Tensor]:
        return path.alpha_dot(t), path.sigma_dot(t)


@dataclass(frozen=True)
class VPrediction(Target):
    """F = alpha eps - sigma x0. Source: progressive distillation, arXiv 2202.00512, section 4."""

    def coefficients(self, path: Path, t: Tensor) -> tuple[Tensor, Tensor]:
        return -path.sigma(t), path.alpha(t)


@dataclass(frozen=True)
class Score(Target):
    """F = -eps/sigma, the score of x_t given x0. Source: arXiv 2011.13456, eq. 7."""

    def coefficients(self, path: Path, t: Tensor) -> tuple[Tensor, Tensor]:
        sigma = path.sigma(t)
        return torch.zeros_like(sigma), -1 / sigma


@dataclass(frozen=True)
class Karras(Target):
    """EDM's preconditioning: input and F of unit variance for data of deviation ``sigma_data``.

    D(x) = c_skip x + c_out F(c_in x) at noise level s = sigma/alpha and x = x_t/alpha, solved for F. With
    r = sqrt(sigma^2 + alpha^2 sigma_data^2) that is F = (sigma/(sigma_data r)) x0 - (alpha sigma_data/r) eps
    and an input of x_t/r; on the path VE it is table 1 of the paper, on others the same network seen through
    a rescaled x_t.

    Source: EDM, arXiv 2206.00364, table 1 and appendix B.6.
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        check_number("objective.target.sigma_data", self.sigma_data, above=0)

    def _spread(self, path: Path, t: Tensor) -> Tensor:
        return torch.sqrt(path.sigma(t) ** 2 + (self.sigma_data * path.alpha(t)) ** 2)

    def coefficients(self, path: Path, t: Tensor) -> tuple[Tensor, Tensor]:
        spread = self._spread(path, t)
        return path.sigma(t) / (self.sigma_data * spread), -self.sigma_data * path.alpha(t) / spread

    def input_scale(self, path: Path, t: Tensor) -> Tensor:
        return 1 / self._spread(path, t)
