"""Paths from data to noise: x_t = alpha(t) x0 + sigma(t) eps, with t rising from data to noise.

Every path names the interval [t_min, t_max] inside which log_snr is finite and every target can be solved for
(x0, eps). alpha and sigma themselves are defined up to the singular ends, so that a solver whose target
allows it may go there.

Shapes: t and everything returned here is (B,), or any shape at all: all functions are elementwise. Half
precision is raised to float32; float64 stays float64.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from dit.errors import InputError, check_choice, check_number

_Real = TypeVar("_Real", Tensor, float)


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` in float32, or its own type where wider: no schedule runs in half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


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


def _check_ends(t_min: float, t_max: float, *, above: float, below: float) -> None:
    check_number("path.t_min", t_min, above=above, below=below)
    check_number("path.t_max", t_max, above=above, below=below)
    if not t_min < t_max:
        raise InputError("path.t_min", t_min, f"a number below path.t_max = {t_max:g}")


@dataclass(frozen=True)
class Linear(Path):
    """The straight line alpha = 1 - t, sigma = t.

    Source: rectified flow, arXiv 2209.03003; flow matching, 2210.02747; SiT, 2401.08740; SD3, 2403.03206.
    """

    t_min: float = 1e-5
    t_max: float = 1 - 1e-5

    def __post_init__(self) -> None:
        _check_ends(self.t_min, self.t_max, above=0, below=1)

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
        check_number("path.beta_min", self.beta_min, above=0)
        check_number("path.beta_max", self.beta_max, low=self.beta_min)
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


# Defaults of (beta_min, beta_max) at 1000 steps: DDPM (2006.11239); latent diffusion (2112.10752);
# DDPM's ends for the sigmoid, which GeoDiff (2203.02923) proposed with its own.
_BETAS = {"linear": (1e-4, 0.02), "scaled_linear": (0.00085, 0.012), "sigmoid": (1e-4, 0.02), "cosine": None}
_COSINE_OFFSET, _COSINE_LARGEST_BETA = 0.008, 0.999


class Posterior(NamedTuple):
    """The reverse step q(x_{k-1} | x_k, x0) of a discrete path, each (B,).

    Attributes:
        of_x0: factor of x0 in its mean.
        of_x_t: factor of x_k in its mean.
        log_variance: ln of its variance. That of k = 0 is zero; the variance of k = 1 stands in, as in iDDPM.
        log_beta: ln beta_k, the variance where x0 is standard normal instead of known.
    """

    of_x0: Tensor
    of_x_t: Tensor
    log_variance: Tensor
    log_beta: Tensor


@dataclass(frozen=True)
class Discrete(Path):
    """A table of ``steps`` noise levels: step k = 0..steps-1 stands at t = k/steps and is shown as k.

    The table holds abar_k = prod_{i<=k} (1 - beta_i), so k means what it means in DDPM's and DiT's code:
    alpha(k/T)^2 is entry k of ``alphas_cumprod``, and k = 0 already carries the noise of beta_0. Training
    draws whole k only. Between two entries log_snr is linear in k, so that a network may be read at any
    log_snr (it is then shown a fractional k); the derivatives are those of that interpolation, at an entry of
    the cell above it.

    Args:
        schedule: linear, scaled_linear (linear in sqrt(beta)), cosine or sigmoid.
        steps: T. Betas are those of 1000 steps times 1000/T, as in iDDPM, so that the ends of the path
            stay where they are.
        beta_min: first beta at 1000 steps; none means the schedule's own. The cosine schedule has none.
        beta_max: last beta at 1000 steps, likewise.

    Source: DDPM, arXiv 2006.11239; iDDPM (cosine, eq. 17), 2102.09672; latent diffusion, 2112.10752.
    """

    schedule: str = "linear"
    steps: int = 1000
    beta_min: float | None = None
    beta_max: float | None = None
    _table: Tensor = field(init=False, repr=False, compare=False)
    _tables: dict[tuple[torch.device, torch.dtype], Tensor] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_choice("path.schedule", self.schedule, _BETAS)
        check_number("path.steps", self.steps, low=2, integer=True)
        object.__setattr__(self, "_table", self._make_table())
        object.__setattr__(self, "_tables", {})

    def _make_table(self) -> Tensor:
        """Rows log_snr and those of Posterior, (5, steps) float64."""
        betas = self._make_betas()
        abar = torch.cumprod(1 - betas, 0)
        before = torch.cat([torch.ones(1, dtype=torch.float64), abar[:-1]])
        variance = betas * (1 - before) / (1 - abar)
        rows = (
            torch.log(abar) - torch.log1p(-abar),
            betas * torch.sqrt(before) / (1 - abar),
            torch.sqrt(1 - betas) * (1 - before) / (1 - abar),
            torch.log(torch.cat([variance[1:2], variance[1:]])),
            torch.log(betas),
        )
        return torch.stack(rows)

    def _make_betas(self) -> Tensor:
        ends = _BETAS[self.schedule]
        if ends is None:
            for name in ("beta_min", "beta_max"):
                if getattr(self, name) is not None:
                    raise InputError(f"path.{name}", getattr(self, name), "null for the cosine schedule")
            edges = torch.arange(self.steps + 1, dtype=torch.float64) / self.steps
            level = torch.cos((edges + _COSINE_OFFSET) / (1 + _COSINE_OFFSET) * math.pi / 2) ** 2
            return (1 - level[1:] / level[:-1]).clamp(max=_COSINE_LARGEST_BETA)
        low = ends[0] if self.beta_min is None else self.beta_min
        high = ends[1] if self.beta_max is None else self.beta_max
        check_number("path.beta_min", low, above=0, below=1)
        check_number("path.beta_max", high, low=low, below=1)
        if high * 1000 / self.steps >= 1:
            raise InputError(
                "path.steps", self.steps, f"more than {1000 * high:g} with path.beta_max = {high:g}"
            )
        if self.schedule == "linear":
            betas = torch.linspace(low, high, self.steps, dtype=torch.float64)
        elif self.schedule == "scaled_linear":
            betas = torch.linspace(low**0.5, high**0.5, self.steps, dtype=torch.float64) ** 2
        else:
            betas = low + (high - low) * torch.sigmoid(torch.linspace(-6, 6, self.steps, dtype=torch.float64))
        return betas * (1000 / self.steps)

    @property
    def t_min(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return 0.0

    @property
    def t_max(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return (self.steps - 1) / self.steps

    @property
    def betas(self) -> Tensor:
        """beta_k, (steps,) float64 on the CPU."""
        return self._make_betas()

    def time_shown(self, t: Tensor) -> Tensor:
        """The step k of ``t``, a whole number where ``t`` is k/steps up to rounding."""
        k = (at_least_float32(t) * self.steps).clamp(0, self.steps - 1)
        whole = torch.round(k)
        # k/T*T misses k by an ulp or two; an entry of the table must be met exactly.
        return torch.where((k - whole).abs() <= 4 * torch.finfo(k.dtype).eps * self.steps, whole, k)

    def _table_like(self, like: Tensor) -> Tensor:
        key = (like.device, like.dtype)
        if key not in self._tables:
            self._tables[key] = self._table.to(like.dtype).to(like.device)
        return self._tables[key]

    def _cell(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(fraction within its cell (B,), the table's rows at the cell's two ends (5, B)) of each time."""
        k = self.time_shown(t)
        table = self._table_like(k)
        below = torch.floor(k).clamp(max=self.steps - 2)
        index = below.long()
        return k - below, table[:, index], table[:, index + 1]

    def log_snr(self, t: Tensor) -> Tensor:
        fraction, low, high = self._cell(t)
        return torch.lerp(low[0], high[0], fraction)

    def posterior(self, t: Tensor) -> Posterior:
        """The reverse step from t to t - 1/steps; between steps interpolated like log_snr."""
        fraction, low, high = self._cell(t)
        return Posterior(*torch.lerp(low[1:], high[1:], fraction).unbind())

    def log_snr_dot(self, t: Tensor) -> Tensor:
        _, low, high = self._cell(t)
        return (high[0] - low[0]) * self.steps

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        log_snr = at_least_float32(log_snr)
        table = self._table_like(log_snr)[0]
        log_snr = log_snr.clamp(table[-1], table[0])
        index = (torch.searchsorted(-table, -log_snr) - 1).clamp(0, self.steps - 2)
        fraction = (table[index] - log_snr) / (table[index] - table[index + 1])
        return (index + fraction) / self.steps

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sqrt(torch.sigmoid(self.log_snr(t)))

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(torch.sigmoid(-self.log_snr(t)))

    def alpha_dot(self, t: Tensor) -> Tensor:
        return self.alpha(t) * self.sigma(t) ** 2 / 2 * self.log_snr_dot(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return -self.sigma(t) * self.alpha(t) ** 2 / 2 * self.log_snr_dot(t)

    def from_unit(self, unit: Tensor) -> Tensor:
        """Step floor(unit * steps): every step has the same share of [0, 1)."""
        k = torch.floor(at_least_float32(unit) * self.steps).clamp(0, self.steps - 1)
        return k / self.steps

    def nearest(self, t: Tensor) -> Tensor:
        return torch.round(at_least_float32(t) * self.steps).clamp(0, self.steps - 1) / self.steps
