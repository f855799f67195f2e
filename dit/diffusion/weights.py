"""Weights: how much an error counts at each noise level, and the space in which that error is measured.

At fixed x_t an error in F is an error in x0, eps or v times a known factor, so "uniform in eps" and "min-SNR
in x0" are weights on the one squared error of F: w_F = w * (d space / d F)^2, with d space / d F the ratio of
the two determinants.

Shapes: t and weights (B,).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from dit.diffusion.paths import Path, at_least_float32
from dit.diffusion.targets import Data, Noise, Target, Velocity, VPrediction
from dit.errors import check_choice, check_number

# "output" is the target itself, whatever it is.
SPACES: dict[str, Target | None] = {
    "output": None,
    "data": Data(),
    "noise": Noise(),
    "velocity": Velocity(),
    "v_prediction": VPrediction(),
}


class Weight(ABC):
    """A function of the noise level, in a named space."""

    space: str

    @abstractmethod
    def in_space(self, path: Path, t: Tensor) -> Tensor:
        """Weight (B,) on the squared error in ``space``."""

    def __call__(self, path: Path, target: Target, t: Tensor) -> Tensor:
        """Weight (B,) on the squared error in the network's output F."""
        weight = self.in_space(path, t)
        space = SPACES[self.space]
        if space is None or space == target:
            return weight
        return weight * (space.determinant(path, t) / target.determinant(path, t)) ** 2


@dataclass(frozen=True)
class Uniform(Weight):
    """One everywhere, in ``space``: output (the plain loss), data, noise, velocity or v_prediction."""

    space: str = "output"

    def __post_init__(self) -> None:
        check_choice("objective.weight.space", self.space, SPACES)

    def in_space(self, path: Path, t: Tensor) -> Tensor:
        return torch.ones_like(at_least_float32(t))


@dataclass(frozen=True)
class MinSNR(Weight):
    """min(SNR, gamma) on the error in x0. Source: arXiv 2303.09556 (gamma 5)."""

    gamma: float = 5.0
    space = "data"

    def __post_init__(self) -> None:
        check_number("objective.weight.gamma", self.gamma, above=0)

    def in_space(self, path: Path, t: Tensor) -> Tensor:
        return torch.exp(path.log_snr(t)).clamp(max=self.gamma)


@dataclass(frozen=True)
class SoftMinSNR(Weight):
    """SNR gamma/(SNR + gamma) on the error in x0, a smooth min. Source: HDiT, arXiv 2401.11605 (gamma 4)."""

    gamma: float = 4.0
    space = "data"

    def __post_init__(self) -> None:
        check_number("objective.weight.gamma", self.gamma, above=0)

    def in_space(self, path: Path, t: Tensor) -> Tensor:
        return 1 / (torch.exp(-path.log_snr(t)) + 1 / self.gamma)


@dataclass(frozen=True)
class EDM(Weight):
    """(s^2 + sigma_data^2)/(s sigma_data)^2 on the error in x0, s = sigma/alpha: one in the output of Karras.

    Source: EDM, arXiv 2206.00364, table 1.
    """

    sigma_data: float = 0.5
    space = "data"

    def __post_init__(self) -> None:
        check_number("objective.weight.sigma_data", self.sigma_data, above=0)

    def in_space(self, path: Path, t: Tensor) -> Tensor:
        return torch.exp(path.log_snr(t)) + 1 / self.sigma_data**2


@dataclass(frozen=True)
class ELBO(Weight):
    """-(1/2) dlog_snr/dt on the error in eps: with uniform times the diffusion term of the variational bound.

    Per dimension and unit of t, in nats; another density of times multiplies it. Source: arXiv 2107.00630,
    eq. 17.
    """

    space = "noise"

    def in_space(self, path: Path, t: Tensor) -> Tensor:
        return -path.log_snr_dot(t) / 2
