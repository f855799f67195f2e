"""Solvers of the probability-flow ODE dx/dt = v(x, t) in t: Euler, Heun and adaptive Dormand-Prince."""

from itertools import pairwise

import torch
from torch import Tensor

from dit.condition import NOTHING, Condition
from dit.diffusion.grids import LOG_SNR_LIMIT
from dit.diffusion.solvers.steps import (
    DenoiserLike,
    Level,
    NoiseSource,
    at_lam,
    ddim_step,
    levels,
    predict,
    velocity,
)
from dit.errors import InputError, check_number


def euler(
    denoiser: DenoiserLike,
    x: Tensor,
    ts: Tensor,
    condition: Condition = NOTHING,
    *,
    noise: NoiseSource | None = None,
) -> Tensor:
    """Euler steps of the probability-flow ODE in t: order 1, one call a step.

    Source: rectified flow (2209.03003); EDM's Euler on VE (2206.00364).
    """
    for now, end in pairwise(levels(denoiser.path, ts)):
        prediction = predict(denoiser, x, now.t, condition)
        if end.sigma == 0:
            x = ddim_step(prediction, end)
        else:
            x = x + (end.t - now.t) * velocity(denoiser.path, prediction, now.t)
    return x


def heun(
    denoiser: DenoiserLike,
    x: Tensor,
    ts: Tensor,
    condition: Condition = NOTHING,
    *,
    noise: NoiseSource | None = None,
) -> Tensor:
    """Heun steps (explicit trapezoid) of the probability-flow ODE in t: order 2, two calls a step but the
    last.

    Source: 2206.00364, algorithm 1.
    """
    for now, end in pairwise(levels(denoiser.path, ts)):
        x = heun_step(denoiser, x, now, end, condition)
    return x


def heun_step(denoiser: DenoiserLike, x: Tensor, now: Level, end: Level, condition: Condition) -> Tensor:
    """One step of `heun`; into data, where sigma is 0, the data prediction."""
    prediction = predict(denoiser, x, now.t, condition)
    if end.sigma == 0:
        return ddim_step(prediction, end)
    slope = velocity(denoiser.path, prediction, now.t)
    guess = x + (end.t - now.t) * slope
    slope_at_end = velocity(denoiser.path, predict(denoiser, guess, end.t, condition), end.t)
    return x + (end.t - now.t) * (slope + slope_at_end) / 2


def dopri5(
    denoiser: DenoiserLike,
    x: Tensor,
    ts: Tensor,
    condition: Condition = NOTHING,
    *,
    noise: NoiseSource | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Tensor:
    """Adaptive Dormand-Prince 5(4) of the probability-flow ODE in t, from the first time of ``ts`` to its
    last.

    The times between are not used. Towards data it integrates to sigma / alpha 1/1000, or to ``t_min`` if
    that is noisier, and ends with the data prediction. Step sizes are chosen for the batch as a whole: a
    sample agrees between batch sizes to the tolerance only.

    Options:
        rtol, atol: relative and absolute tolerance of a step.

    Raises:
        InputError: torchdiffeq is not installed.

    Source: Dormand and Prince (1980), as torchdiffeq has it; used by score SDE (2011.13456) and SiT
    (2401.08740).
    """
    check_number("solver.rtol", rtol, above=0)
    check_number("solver.atol", atol, above=0)
    try:
        from torchdiffeq import odeint
    except ImportError:
        raise InputError(
            "solver",
            "dopri5",
            "a solver that is installed",
            "Install the extra: pip install 'dit-scaling[ode]'.",
        ) from None
    grid = levels(denoiser.path, ts)
    start, end = grid[0], grid[-1]
    stop = at_lam(denoiser.path, LOG_SNR_LIMIT / 2) if end.sigma == 0 else end
    if start.t > stop.t:
        times = torch.tensor([start.t, stop.t], dtype=torch.float64, device=x.device)

        def slope(t: Tensor, state: Tensor) -> Tensor:
            at = min(max(float(t), stop.t), start.t)  # the probe for the first step may look past the end
            return velocity(denoiser.path, predict(denoiser, state, at, condition), at)

        # Without step_t torchdiffeq 0.2 steps past the last time, where the path may end, and interpolates.
        options = {"step_t": times[1:]}
        trajectory = odeint(slope, x, times, rtol=rtol, atol=atol, method="dopri5", options=options)
        assert isinstance(trajectory, Tensor)
        x = trajectory[-1]
    return predict(denoiser, x, stop.t, condition).x0 if end.sigma == 0 else x
