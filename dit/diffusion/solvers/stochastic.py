"""Solvers that add noise on the way: DDIM (none at eta 0), DDPM, EDM's churn."""

import math
from itertools import pairwise

import torch
from torch import Tensor

from dit.condition import NOTHING, Condition
from dit.diffusion.solvers.ode import heun_step
from dit.diffusion.solvers.steps import (
    DenoiserLike,
    NoiseSource,
    at_lam,
    ddim_step,
    forward_variance,
    levels,
    predict,
    required,
)
from dit.errors import check_choice, check_number


def ddim(
    denoiser: DenoiserLike,
    x: Tensor,
    ts: Tensor,
    condition: Condition = NOTHING,
    *,
    noise: NoiseSource | None = None,
    eta: float = 0.0,
) -> Tensor:
    """DDIM: order 1 in log-SNR, one call a step; eta 0 is deterministic, eta 1 ancestral.

    Options:
        eta: share of the ancestral noise, in [0, 1]. On any path the added variance is
            eta^2 (sigma_s / sigma_t)^2 (sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2).

    Source: 2010.02502, equations 12 and 16.
    """
    check_number("solver.eta", eta, low=0, high=1)
    for now, end in pairwise(levels(denoiser.path, ts)):
        prediction = predict(denoiser, x, now.t, condition)
        if eta == 0 or end.sigma == 0:
            x = ddim_step(prediction, end)
            continue
        added = eta * end.sigma / now.sigma * math.sqrt(max(forward_variance(now, end), 0.0))
        kept = math.sqrt(max(end.sigma**2 - added**2, 0.0))
        x = end.alpha * prediction.x0 + kept * prediction.eps + added * required(noise, "ddim with eta > 0")()
    return x


def consistency(
    denoiser: DenoiserLike,
    x: Tensor,
    ts: Tensor,
    condition: Condition = NOTHING,
    *,
    noise: NoiseSource | None = None,
) -> Tensor:
    """Consistency sampling: each step takes the data prediction and noises it to the next level with new noise.

    For networks that learned a consistency function; one step is one call, whose answer is the sample. The levels
    between are the grid's: ``grid=uniform grid.n_steps=1`` for one call, ``grid=karras grid.n_steps=2
    grid.sigma_min=0.8`` for two.

    Source: arXiv 2303.01469, algorithm 1.
    """
    for now, end in pairwise(levels(denoiser.path, ts)):
        x = end.alpha * predict(denoiser, x, now.t, condition).x0
        if end.sigma:
            x = x + end.sigma * required(noise, "consistency with more than one step")()
    return x


def ddpm(
    denoiser: DenoiserLike,
    x: Tensor,
    ts: Tensor,
    condition: Condition = NOTHING,
    *,
    noise: NoiseSource | None = None,
    variance: str = "posterior",
) -> Tensor:
    """Ancestral sampling: each step draws from the Gaussian q(x_s | x_t, x0) at the predicted x0, one call a
    step.

    On a grid that skips steps this is iDDPM's respaced process. A network that learned its variance uses it,
    between the two bounds of the respaced step; the last step, to data, adds no noise.

    Options:
        variance: of a network without a learned one: posterior (beta-tilde, "fixed small") or beta ("fixed
            large").

    Source: DDPM, 2006.11239, equations 6-7; learned variance and respacing, 2102.09672, equation 15 and
    section 4.
    """
    check_choice("solver.variance", variance, ("posterior", "beta"))
    draw = required(noise, "ddpm")
    for now, end in pairwise(levels(denoiser.path, ts)):
        prediction = predict(denoiser, x, now.t, condition)
        if end.sigma == 0:
            x = ddim_step(prediction, end)
            continue
        beta = forward_variance(now, end)
        posterior = beta * (end.sigma / now.sigma) ** 2
        mean = (end.alpha * beta / now.sigma**2) * prediction.x0 + (
            now.alpha / end.alpha * (end.sigma / now.sigma) ** 2
        ) * x
        if prediction.variance_fraction is not None:
            fraction = prediction.variance_fraction
            spread = torch.exp((fraction * math.log(beta) + (1 - fraction) * math.log(posterior)) / 2)
        else:
            spread = math.sqrt(beta if variance == "beta" else posterior)
        x = mean + spread * draw()
    return x


def edm_stochastic(
    denoiser: DenoiserLike,
    x: Tensor,
    ts: Tensor,
    condition: Condition = NOTHING,
    *,
    noise: NoiseSource | None = None,
    churn: float = 40.0,
    s_min: float = 0.05,
    s_max: float = 50.0,
    s_noise: float = 1.003,
) -> Tensor:
    """EDM's stochastic sampler: before each Heun step noise is added as if time had run back a little.

    On paths other than VE the noise level s = sigma / alpha is what rises by the factor 1 + gamma, held
    within the path.

    Options:
        churn: S_churn, the amount of noise over all steps; 0 is `heun`.
        s_min, s_max: S_tmin and S_tmax, the levels s = sigma / alpha between which noise is added; s_max may
            be infinite.
        s_noise: S_noise, standard deviation of what is added.

    Source: 2206.00364, algorithm 2; the defaults are those for ImageNet-64 (table 5).
    """
    for name, value in (("churn", churn), ("s_min", s_min), ("s_max", s_max), ("s_noise", s_noise)):
        if (name, value) != ("s_max", math.inf):  # EDM's own default
            check_number(f"solver.{name}", value, low=0)
    grid = levels(denoiser.path, ts)
    gamma = min(churn / (len(grid) - 1), math.sqrt(2) - 1)
    for now, end in pairwise(grid):
        # an end of the range that the grid lands on belongs to it, whatever rounding makes of exp and ln
        if gamma > 0 and s_min * (1 - 1e-6) <= math.exp(-now.lam) <= s_max * (1 + 1e-6):
            back = at_lam(denoiser.path, now.lam - math.log1p(gamma))
            if back.t > now.t:
                ratio = back.alpha / now.alpha
                added = math.sqrt(max(forward_variance(back, now), 0.0))
                x = ratio * x + (s_noise * added) * required(noise, "edm_stochastic with churn > 0")()
                now = back
        x = heun_step(denoiser, x, now, end, condition)
    return x
