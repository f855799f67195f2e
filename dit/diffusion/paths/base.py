"""What every path has: two coefficients of time, their derivatives, log-SNR and its inverse."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` in float32, or its own type where wider: no schedule runs in half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def per_sample(coefficient: Tensor, like: Tensor) -> Tensor:
    """A coefficient of each sample, (B,), with as many axes as ``like`` (B, ...): it multiplies along B alone.

    One number for all, (), and a tensor that has all axes stay as they are.
    """
    if coefficient.ndim == 0:
        return coefficient
    return coefficient.reshape(*coefficient.shape, *[1] * (like.ndim - coefficient.ndim))


class Path(ABC):
    """A line from data to noise: two coefficients of time and their derivatives."""

    t_min: float
    t_max: float

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Coefficient of the data."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Coefficient of the noise."""

    @abstractmethod
    def alpha_dot(self, t: Tensor) -> Tensor:
        """Derivative of alpha with respect to t."""

    @abstractmethod
    def sigma_dot(self, t: Tensor) -> Tensor:
        """Derivative of sigma with respect to t."""

    @abstractmethod
    def log_snr(self, t: Tensor) -> Tensor:
        """ln(alpha^2 / sigma^2), decreasing in t; finite within [t_min, t_max]."""

    @abstractmethod
    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """The inverse of log_snr, clamped to [t_min, t_max]: a network is asked only what it was shown."""

    @property
    def noise_end(self) -> float:
        """The last time at which alpha and sigma are defined: ``t_max``, or pure noise where a path has it."""
        return self.t_max

    def corrupt(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """The noisy sample x_t = alpha x0 + sigma eps, of the shape of x0 (B, ...); t is (B,), or () for all."""
        return per_sample(self.alpha(t), x0) * x0 + per_sample(self.sigma(t), x0) * eps

    def deviation(self, t: Tensor) -> float:
        """Standard deviation of x_t for data of unit variance, sqrt(alpha^2 + sigma^2).

        1 on variance-preserving paths, as DDPM and DiT have it; on VE 80.006 where EDM starts from 80.
        """
        return float(torch.sqrt(self.alpha(t) ** 2 + self.sigma(t) ** 2))

    def start(self, t: Tensor, eps: Tensor) -> Tensor:
        """What a sample starts from at a grid's first time t (): the deviation there times standard normal eps."""
        return self.deviation(t) * eps

    def log_snr_dot(self, t: Tensor) -> Tensor:
        """Derivative of log_snr with respect to t (negative)."""
        return 2 * (self.alpha_dot(t) / self.alpha(t) - self.sigma_dot(t) / self.sigma(t))

    def from_unit(self, unit: Tensor) -> Tensor:
        """The time at a fraction of the path: [0, 1] -> [t_min, t_max], linearly."""
        return self.t_min + (self.t_max - self.t_min) * at_least_float32(unit)

    def nearest(self, t: Tensor) -> Tensor:
        """The time closest to ``t`` at which this path trains."""
        return at_least_float32(t).clamp(self.t_min, self.t_max)

    def time_shown(self, t: Tensor) -> Tensor:
        """The number a network is shown for ``t``, of the size of DDPM's steps 0..999."""
        return 1000 * at_least_float32(t)
