"""Exponential integrators of the probability-flow ODE in lam = ln(alpha / sigma): the DPM-Solver family."""

import math
from itertools import pairwise

from torch import Tensor

from dit.condition import NOTHING, Condition
from dit.diffusion.solvers.steps import DenoiserLike, Level, NoiseSource, at_lam, ddim_step, levels, predict
from dit.errors import check_choice


def dpm_solver(
    denoiser: DenoiserLike,
    x: Tensor,
    ts: Tensor,
    condition: Condition = NOTHING,
    *,
    noise: NoiseSource | None = None,
    order: int = 3,
) -> Tensor:
    """DPM-Solver: exponential integrator of the ODE in lam = ln(alpha / sigma) on eps, single-step, ``order``
    calls a step.

    Steps at the two ends, where lam is infinite, are of first order (DDIM), with one call.

    Options:
        order: 1 (DDIM), 2 (r1 = 1/2) or 3 (r1 = 1/3, r2 = 2/3).

    Source: 2206.00927, equation 3.7 and algorithms 1 and 2.
    """
    check_choice("solver.order", order, (1, 2, 3))
    for now, end in pairwise(levels(denoiser.path, ts)):
        prediction = predict(denoiser, x, now.t, condition)
        x = ddim_step(prediction, end)
        if order == 1 or math.isinf(end.lam - now.lam):
            continue
        h = end.lam - now.lam
        inner = at_lam(denoiser.path, now.lam + h / order)
        r1 = (inner.lam - now.lam) / h  # what the path's inverse reached, 1 / order to rounding
        first = predict(denoiser, ddim_step(prediction, inner), inner.t, condition).eps - prediction.eps
        if order == 2:
            x = x - end.sigma * math.expm1(h) / (2 * r1) * first
            continue
        outer = at_lam(denoiser.path, now.lam + 2 * h / 3)
        r2 = (outer.lam - now.lam) / h
        guess = ddim_step(prediction, outer) - outer.sigma * (r2 / r1) * _phi(r2 * h) * first
        second = predict(denoiser, guess, outer.t, condition).eps - prediction.eps
        x = x - end.sigma / r2 * _phi(h) * second
    return x


def _phi(h: float) -> float:
    """(e^h - 1) / h - 1."""
    return math.expm1(h) / h - 1


def dpmpp_2s(
    denoiser: DenoiserLike,
    x: Tensor,
    ts: Tensor,
    condition: Condition = NOTHING,
    *,
    noise: NoiseSource | None = None,
) -> Tensor:
    """DPM-Solver++(2S): exponential integrator on x0, single-step with a midpoint in lam; order 2, two calls
    a step.

    Source: 2211.01095, algorithm 1 with r = 1/2.
    """
    for now, end in pairwise(levels(denoiser.path, ts)):
        prediction = predict(denoiser, x, now.t, condition)
        if math.isinf(end.lam - now.lam):
            x = ddim_step(prediction, end)
            continue
        inner = at_lam(denoiser.path, (now.lam + end.lam) / 2)
        r = (inner.lam - now.lam) / (end.lam - now.lam)
        x0_inner = predict(denoiser, ddim_step(prediction, inner), inner.t, condition).x0
        x = _data_step(x, prediction.x0 + (x0_inner - prediction.x0) / (2 * r), now, end)
    return x


def dpmpp_2m(
    denoiser: DenoiserLike,
    x: Tensor,
    ts: Tensor,
    condition: Condition = NOTHING,
    *,
    noise: NoiseSource | None = None,
) -> Tensor:
    """DPM-Solver++(2M): exponential integrator on x0, extrapolated from the step before; order 2, one call a
    step.

    Source: 2211.01095, algorithm 2.
    """
    grid = levels(denoiser.path, ts)
    previous: Tensor | None = None
    h_previous = math.inf
    for now, end in pairwise(grid):
        x0 = predict(denoiser, x, now.t, condition).x0
        h = end.lam - now.lam
        extrapolated = x0
        if previous is not None and math.isfinite(h) and math.isfinite(h_previous):
            extrapolated = x0 + h / (2 * h_previous) * (x0 - previous)
        x = _data_step(x, extrapolated, now, end)
        previous, h_previous = x0, h
    return x


def _data_step(x: Tensor, x0: Tensor, now: Level, end: Level) -> Tensor:
    """The exponential step in lam with the data held fixed: (sigma_s / sigma_t) x - alpha_s (e^-h - 1) x0."""
    if end.sigma == 0:
        return end.alpha * x0
    return (end.sigma / now.sigma) * x - end.alpha * math.expm1(now.lam - end.lam) * x0
