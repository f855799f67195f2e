"""The path of a table of noise levels: DDPM's, latent diffusion's and iDDPM's schedules."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from dit.diffusion.paths.base import Path, at_least_float32
from dit.errors import InputError, check_choice, check_number

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
        check_choice("objective.path.schedule", self.schedule, _BETAS)
        check_number("objective.path.steps", self.steps, low=2, integer=True)
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
                    allowed = "null for the cosine schedule"
                    raise InputError(f"objective.path.{name}", getattr(self, name), allowed)
            edges = torch.arange(self.steps + 1, dtype=torch.float64) / self.steps
            level = torch.cos((edges + _COSINE_OFFSET) / (1 + _COSINE_OFFSET) * math.pi / 2) ** 2
            return (1 - level[1:] / level[:-1]).clamp(max=_COSINE_LARGEST_BETA)
        low = ends[0] if self.beta_min is None else self.beta_min
        high = ends[1] if self.beta_max is None else self.beta_max
        check_number("objective.path.beta_min", low, above=0, below=1)
        check_number("objective.path.beta_max", high, low=low, below=1)
        if high * 1000 / self.steps >= 1:
            raise InputError(
                "objective.path.steps",
                self.steps,
                f"more than {1000 * high:g} with objective.path.beta_max = {high:g}",
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
