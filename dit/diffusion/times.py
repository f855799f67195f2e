"""Times: densities of t in training, as inverse distribution functions of uniform numbers.

Randomness comes in as u, so that a stream of random numbers belongs to whoever trains. Every t returned lies
within the path's [t_min, t_max], on a discrete path on one of its steps.

Shapes: u and t (B,).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dit.diffusion.paths import Path, at_least_float32
from dit.errors import InputError, check_number


def stratified(u: Tensor) -> Tensor:
    """Uniform numbers with one stratum per sample of the global batch: (i + u_i)/B for u (B,) in [0, 1).

    Each alone is still uniform over the batch; together they cover [0, 1) evenly, which lowers the variance
    of the loss.
    Source: variational diffusion models, arXiv 2107.00630, whose strata share one offset where these have
    one each.
    """
    u = at_least_float32(u)
    return (torch.arange(len(u), device=u.device, dtype=u.dtype) + u) / len(u)


def _normal(u: Tensor) -> Tensor:
    """Standard normal quantiles of u, finite at u = 0 and u = 1 too."""
    u = at_least_float32(u)
    eps = torch.finfo(u.dtype).eps / 2
    return torch.special.ndtri(u.clamp(eps, 1 - eps))


class Times(ABC):
    """A density over t."""

    @abstractmethod
    def from_uniform(self, u: Tensor, path: Path) -> Tensor:
        """Times t (B,) of uniform numbers u (B,) in [0, 1]: the inverse of the distribution function."""


@dataclass(frozen=True)
class Uniform(Times):
    """Every t of the path alike; on a discrete path every step alike."""

    def from_uniform(self, u: Tensor, path: Path) -> Tensor:
        return path.from_unit(u)


@dataclass(frozen=True)
class LogitNormal(Times):
    """logit(t) ~ N(m, s^2), as a fraction of the path's interval. Source: SD3, arXiv 2403.03206, eq. 19."""

    m: float = 0.0
    s: float = 1.0

    def __post_init__(self) -> None:
        check_number("objective.times.m", self.m)
        check_number("objective.times.s", self.s, above=0)

    def from_uniform(self, u: Tensor, path: Path) -> Tensor:
        return path.from_unit(torch.sigmoid(self.m + self.s * _normal(u)))


@dataclass(frozen=True)
class LogNormalSigma(Times):
    """ln(sigma/alpha) ~ N(p_mean, p_std^2). Source: EDM, arXiv 2206.00364, table 1.

    On VE sigma/alpha is t, as in the paper; on other paths it is the t of the same log_snr.
    """

    p_mean: float = -1.2
    p_std: float = 1.2

    def __post_init__(self) -> None:
        check_number("objective.times.p_mean", self.p_mean)
        check_number("objective.times.p_std", self.p_std, above=0)

    def from_uniform(self, u: Tensor, path: Path) -> Tensor:
        log_sigma = self.p_mean + self.p_std * _normal(u)
        return path.nearest(path.t_of_log_snr(-2 * log_sigma))


@dataclass(frozen=True)
class Shifted(Times):
    """Another density moved towards noise, as larger images want: log_snr less 2 ln(shift).

    On the linear path this is t -> shift t/(1 + (shift - 1) t). For n pixels of training resolution and m of
    the new one the shift is sqrt(m/n). Source: SD3, arXiv 2403.03206, eq. 23; simple diffusion, 2301.11093,
    section 3.1.
    """

    shift: float = 3.0
    base: Times = field(default_factory=Uniform)

    def __post_init__(self) -> None:
        check_number("objective.times.shift", self.shift, above=0)
        if not isinstance(self.base, Times):
            raise InputError(
                "objective.times.base", self.base, "one of the times: uniform, logit_normal, log_normal_sigma"
            )

    def from_uniform(self, u: Tensor, path: Path) -> Tensor:
        log_snr = path.log_snr(self.base.from_uniform(u, path))
        return path.nearest(path.t_of_log_snr(log_snr - 2 * math.log(self.shift)))
