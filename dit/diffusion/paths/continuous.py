"""Paths with a formula for every t: Linear, Cosine, VP and VE."""

import math
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from dit.diffusion.paths.base import Path, at_least_float32
from dit.errors import InputError, check_number

_Real = TypeVar("_Real", Tensor, float)


def _check_ends(t_min: float, t_max: float, *, above: float, below: float) -> None:
    check_number("objective.path.t_min", t_min, above=above, below=below)
    check_number("objective.path.t_max", t_max, above=above, below=below)
    if not t_min < t_max:
        raise InputError("objective.path.t_min", t_min, f"a number below objective.path.t_max = {t_max:g}")


@dataclass(frozen=True)
class Linear(Path):
    """The straight line alpha = 1 - t, sigma = t.

    Source: rectified flow, arXiv 2209.03003; flow matching, 2210.02747; SiT, 2401.08740; SD3, 2403.03206.
    """

    t_min: float = 1e-5
    t_max: float = 1 - 1e-5

    def __post_init__(self) -> None:
        _check_ends(self.t_min, self.t_max, above=0, below=1)

    @property
    def noise_end(self) -> float:
        return 1.0

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - at_least_float32(t)

    def sigma(self, t: Tensor) -> Tensor:
        return at_least_float32(t)

    def alpha_dot(self, t: Tensor) -> Tensor:
        return torch.full_like(at_least_float32(t), -1.0)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return torch.ones_like(at_least_float32(t))

    def log_snr(self, t: Tensor) -> Tensor:
        t = at_least_float32(t)
        return 2 * (torch.log1p(-t) - torch.log(t))

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-at_least_float32(log_snr) / 2).clamp(self.t_min, self.t_max)


@dataclass(frozen=True)
class Cosine(Path):
    """The quarter circle alpha = cos(pi t / 2), sigma = sin(pi t / 2).

    Source: the generalised variance-preserving path of SiT, arXiv 2401.08740, and the schedule of 2202.00512.
    The discrete schedule of iDDPM with its offset is ``Discrete("cosine")``.
    """

    t_min: float = 1e-5
    t_max: float = 1 - 1e-5

    def __post_init__(self) -> None:
        _check_ends(self.t_min, self.t_max, above=0, below=1)

    @property
    def noise_end(self) -> float:
        return 1.0

    def alpha(self, t: Tensor) -> Tensor:
        # The cosine as a sine of what is left: near t = 1 cos() of a rounded argument loses all its digits.
        return torch.sin(math.pi / 2 * (1 - at_least_float32(t)))

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sin(math.pi / 2 * at_least_float32(t))

    def alpha_dot(self, t: Tensor) -> Tensor:
        return -math.pi / 2 * self.sigma(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return math.pi / 2 * self.alpha(t)

    def log_snr(self, t: Tensor) -> Tensor:
        return 2 * (torch.log(self.alpha(t)) - torch.log(self.sigma(t)))

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        t = 2 / math.pi * torch.atan(torch.exp(-at_least_float32(log_snr) / 2))
        return t.clamp(self.t_min, self.t_max)


@dataclass(frozen=True)
class VP(Path):
    """The variance-preserving SDE with a rate rising linearly from beta_min to beta_max over t in [0, 1].

    alpha = exp(-t^2 (beta_max - beta_min)/4 - t beta_min/2), sigma = sqrt(1 - alpha^2). Source: arXiv
    2011.13456, appendix C (its epsilon of 1e-5 is t_min).
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-5
    t_max: float = 1.0

    def __post_init__(self) -> None:
        check_number("objective.path.beta_min", self.beta_min, above=0)
        check_number("objective.path.beta_max", self.beta_max, low=self.beta_min)
        _check_ends(self.t_min, self.t_max, above=0, below=math.inf)

    def _log_alpha2(self, t: _Real) -> _Real:
        return -t * (t * (self.beta_max - self.beta_min) / 2 + self.beta_min)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(self._log_alpha2(at_least_float32(t)) / 2)

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(self._log_alpha2(at_least_float32(t))))

    def alpha_dot(self, t: Tensor) -> Tensor:
        t = at_least_float32(t)
        return -self.alpha(t) * (self.beta_min + t * (self.beta_max - self.beta_min)) / 2

    def sigma_dot(self, t: Tensor) -> Tensor:
        return -self.alpha(t) * self.alpha_dot(t) / self.sigma(t)

    def log_snr(self, t: Tensor) -> Tensor:
        log_alpha2 = self._log_alpha2(at_least_float32(t))
        return log_alpha2 - torch.log(-torch.expm1(log_alpha2))

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        # -ln alpha^2 = c = t beta_min + t^2 (beta_max - beta_min)/2, solved in the form that does not cancel.
        c = functional.softplus(-at_least_float32(log_snr)).clamp(max=-self._log_alpha2(self.t_max))
        root = torch.sqrt(self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * c)
        return (2 * c / (self.beta_min + root)).clamp(self.t_min, self.t_max)


@dataclass(frozen=True)
class VE(Path):
    """The variance-exploding path alpha = 1, sigma = t: time is the noise level itself.

    A network is shown ln(sigma)/4. Source: EDM, arXiv 2206.00364, table 1 (c_noise; sigma_min 0.002,
    sigma_max 80).
    """

    t_min: float = 0.002
    t_max: float = 80.0

    def __post_init__(self) -> None:
        _check_ends(self.t_min, self.t_max, above=0, below=math.inf)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(at_least_float32(t))

    def sigma(self, t: Tensor) -> Tensor:
        return at_least_float32(t)

    def alpha_dot(self, t: Tensor) -> Tensor:
        return torch.zeros_like(at_least_float32(t))

    def sigma_dot(self, t: Tensor) -> Tensor:
        return torch.ones_like(at_least_float32(t))

    def log_snr(self, t: Tensor) -> Tensor:
        return -2 * torch.log(at_least_float32(t))

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        return torch.exp(-at_least_float32(log_snr) / 2).clamp(self.t_min, self.t_max)

    def time_shown(self, t: Tensor) -> Tensor:
        return torch.log(at_least_float32(t)) / 4
