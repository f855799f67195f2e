"""Schedules of masking: the share of tokens that is still there at a time, from all at t = 0 to none at t = 1.

Shapes: t of any shape; alpha, log_snr and derivatives likewise.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from dit.diffusion.paths import at_least_float32
from dit.errors import check_number

MASKED = -1  # what stands in x_t for a token that is hidden


class Schedule(ABC):
    """alpha(t), the probability that a token is not hidden: 1 at t = 0, 0 at t = 1, decreasing.

    A grid of times takes a schedule as it takes a path.
    """

    t_min, t_max, noise_end = 0.0, 1.0, 1.0

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """The share of tokens that is there."""

    @abstractmethod
    def alpha_dot(self, t: Tensor) -> Tensor:
        """Its derivative with respect to t (negative)."""

    @abstractmethod
    def t_of_alpha(self, alpha: Tensor) -> Tensor:
        """The inverse of alpha."""

    def log_snr(self, t: Tensor) -> Tensor:
        """ln(alpha^2 / (1 - alpha)^2), the odds of a token that is there; infinite at both ends."""
        alpha = self.alpha(at_least_float32(t))
        return 2 * torch.log(alpha / (1 - alpha))

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """The inverse of log_snr."""
        return self.t_of_alpha(torch.sigmoid(at_least_float32(log_snr) / 2))

    def start(self, t: Tensor, eps: Tensor) -> Tensor:
        """What a sample starts from: every token of the shape of ``eps`` (B, 1, ...) is hidden."""
        return torch.full_like(eps, MASKED, dtype=torch.int64)


@dataclass(frozen=True)
class Linear(Schedule):
    """alpha = 1 - t. Source: MDLM, arXiv 2406.07524, where it is called log-linear."""

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def alpha_dot(self, t: Tensor) -> Tensor:
        return -torch.ones_like(t)

    def t_of_alpha(self, alpha: Tensor) -> Tensor:
        return 1 - alpha


@dataclass(frozen=True)
class Cosine(Schedule):
    """alpha = 1 - cos(pi (1 - t) / 2): most tokens are hidden early.

    Source: MaskGIT, arXiv 2202.04200; MD4, 2406.04329.
    """

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - torch.cos(math.pi / 2 * (1 - t))

    def alpha_dot(self, t: Tensor) -> Tensor:
        return -math.pi / 2 * torch.sin(math.pi / 2 * (1 - t))

    def t_of_alpha(self, alpha: Tensor) -> Tensor:
        return 1 - 2 / math.pi * torch.acos(1 - alpha)


@dataclass(frozen=True)
class Polynomial(Schedule):
    """alpha = 1 - t^power. Source: MD4, arXiv 2406.04329, table 1.

    Args:
        power: above 1 hides most tokens late, below 1 early.
    """

    power: float = 2.0

    def __post_init__(self) -> None:
        check_number("objective.masking.power", self.power, above=0)

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t**self.power

    def alpha_dot(self, t: Tensor) -> Tensor:
        return -self.power * t ** (self.power - 1)

    def t_of_alpha(self, alpha: Tensor) -> Tensor:
        return (1 - alpha) ** (1 / self.power)
