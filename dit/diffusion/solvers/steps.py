"""What the steps of all solvers are made of: levels of a grid, the denoiser's prediction, the first-order step.

Shapes: B batch; a sample has any number of axes behind its channels.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from dit.condition import Condition
from dit.diffusion.denoiser import Prediction
from dit.diffusion.paths import Path
from dit.errors import InputError

NoiseSource = Callable[[], Tensor]


class DenoiserLike(Protocol):
    """What a solver needs: a Denoiser or anything that guides one."""

    @property
    def path(self) -> Path: ...

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition) -> Prediction: ...


class Level(NamedTuple):
    """One time of a grid in float64: t, alpha, sigma and lam = ln(alpha / sigma)."""

    t: float
    alpha: float
    sigma: float
    lam: float


def level(path: Path, t: float) -> Level:
    """The noise level of ``path`` at ``t``; below ``t_min`` it is clean data (alpha 1, sigma 0).

    ``t_min`` itself is noisy, also as float32 has it.
    """
    if t < path.t_min * (1 - 1e-6):
        return Level(t, 1.0, 0.0, math.inf)
    at = torch.tensor(t, dtype=torch.float64)
    return Level(t, float(path.alpha(at)), float(path.sigma(at)), float(path.log_snr(at)) / 2)


def levels(path: Path, ts: Tensor) -> list[Level]:
    """The noise levels of a grid of times.

    Raises:
        InputError: ``ts`` is not a decreasing grid of two times or more, or the data are tokens.
    """
    if not isinstance(path, Path):
        raise InputError("solver", "(of an ODE or an SDE)", "solver=unmask: the data are tokens")
    times = ts.to("cpu", torch.float64).tolist()
    if len(times) < 2 or any(not late < early for early, late in pairwise(times)):
        raise InputError("grid", f"({len(times)} times)", "two or more strictly decreasing times")
    return [level(path, t) for t in times]


def at_lam(path: Path, lam: float) -> Level:
    """The level whose ln(alpha / sigma) is ``lam``."""
    return level(path, float(path.t_of_log_snr(torch.tensor(2 * lam, dtype=torch.float64))))


def predict(denoiser: DenoiserLike, x: Tensor, t: float, condition: Condition) -> Prediction:
    """The denoiser's prediction for x (B, ...), with one time for the whole batch."""
    return denoiser(x, torch.full((x.shape[0],), t, dtype=x.dtype, device=x.device), condition)


def velocity(path: Path, prediction: Prediction, t: float) -> Tensor:
    """dx/dt = alpha' x0 + sigma' eps of the probability-flow ODE, (B, ...)."""
    at = torch.tensor(t, dtype=torch.float64)
    return float(path.alpha_dot(at)) * prediction.x0 + float(path.sigma_dot(at)) * prediction.eps


def ddim_step(prediction: Prediction, end: Level) -> Tensor:
    """The first-order step: both predictions held fixed, put together again at another level."""
    if end.sigma == 0:
        return end.alpha * prediction.x0
    return end.alpha * prediction.x0 + end.sigma * prediction.eps


def required(noise: NoiseSource | None, solver: str) -> NoiseSource:
    """The noise of a stochastic solver.

    Raises:
        InputError: there is none.
    """
    if noise is None:
        raise InputError("noise", None, "a callable that draws (B, ...)", f"{solver} is stochastic.")
    return noise


def forward_variance(now: Level, end: Level) -> float:
    """Var(x_t | x_s), s < t: sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2, the beta of a respaced DDPM."""
    return now.sigma**2 - (now.alpha / end.alpha) ** 2 * end.sigma**2
