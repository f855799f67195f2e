"""The variational bound of a discrete path, in bits per dimension.

-log2 p(x0) <= prior + sum over k of KL(q(x_{k-1} | x_k, x0) || p(x_{k-1} | x_k)), where the term of k = 0 is
the decoder's, the negative log-probability of x0 given x_t. Source: DDPM, arXiv 2006.11239, eq. 5-7 and 13;
iDDPM, 2102.09672, section 3.1.

Shapes: B batch, T steps; t and bits (B,), data, noise and log-variances (B, ...), channels first.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from dit.condition import Condition
from dit.diffusion.denoiser import Denoiser
from dit.diffusion.paths import Discrete, per_sample
from dit.errors import InputError, check_choice

# DDPM's decoder: data are 8-bit values in [-1, 1], each with a bin of 2/255, the outermost two open. DiT
# applies it to latents as it stands, and so do we: k = 0 is one step in T.
_HALF_BIN = 1 / 255
_EDGE = 0.999
_SMALLEST_PROBABILITY = 1e-12


class Bound(NamedTuple):
    """Bits per dimension of each sample: ``total`` (B,) is ``prior`` (B,) plus all of ``steps`` (B, T)."""

    total: Tensor
    prior: Tensor
    steps: Tensor


def reverse_log_variance(
    path: Discrete, t: Tensor, fraction: Tensor | None = None, fixed: str = "beta"
) -> Tensor:
    """Logarithm of the variance of p(x_{k-1} | x_k): of each number (B, ...), or of each sample (B,).

    Args:
        path: the discrete path.
        t: times (B,).
        fraction: where a network puts it between the posterior's variance (0) and beta (1), on a log scale,
            (B, ...). Source: arXiv 2102.09672, eq. 15.
        fixed: without ``fraction``: "beta" (at k = 0 the posterior's, as in DDPM) or "posterior".
    """
    check_choice("fixed", fixed, ("beta", "posterior"))
    posterior = path.posterior(t)
    if fraction is not None:
        low, high = per_sample(posterior.log_variance, fraction), per_sample(posterior.log_beta, fraction)
        return fraction * high + (1 - fraction) * low
    large = torch.where(path.time_shown(t) < 1, posterior.log_variance, posterior.log_beta)
    return large if fixed == "beta" else posterior.log_variance


def _normal_kl(log_variance_q: Tensor, log_variance_p: Tensor, difference: Tensor) -> Tensor:
    """KL(q || p) in nats of two normal distributions whose means differ by ``difference``, elementwise."""
    ratio = log_variance_q - log_variance_p
    return (torch.exp(ratio) - 1 - ratio + difference**2 * torch.exp(-log_variance_p)) / 2


def _decoder_nats(x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """-ln of the probability that N(mean, variance) gives to the bin of x0, elementwise.

    iDDPM approximates the normal distribution function by a tanh; this is the function itself.
    """
    inverse = torch.exp(-log_variance / 2)
    upper, lower = (x0 - mean + _HALF_BIN) * inverse, (x0 - mean - _HALF_BIN) * inverse
    inside = torch.special.ndtr(upper) - torch.special.ndtr(lower)
    log_inside = torch.log(inside.clamp(min=_SMALLEST_PROBABILITY))
    log_top = torch.special.log_ndtr(-lower)
    log_bottom = torch.special.log_ndtr(upper)
    return -torch.where(x0 < -_EDGE, log_bottom, torch.where(x0 > _EDGE, log_top, log_inside))


def _bits(nats: Tensor) -> Tensor:
    return nats.flatten(1).mean(1) / math.log(2)


def step_bits(
    path: Discrete, t: Tensor, x0: Tensor, x_t: Tensor, predicted_x0: Tensor, log_variance: Tensor
) -> Tensor:
    """The term of the bound at t in bits per dimension, (B,): a KL divergence, at k = 0 the decoder.

    Args:
        path: the discrete path.
        t: times (B,); between steps the posterior is interpolated, and the term an indication.
        x0: data (B, ...).
        x_t: noisy data (B, ...).
        predicted_x0: the denoiser's x0 (B, ...).
        log_variance: that of the reverse step, from ``reverse_log_variance``.
    """
    posterior, log_variance = path.posterior(t), per_sample(log_variance, x0)
    of_x0, of_x_t = per_sample(posterior.of_x0, x0), per_sample(posterior.of_x_t, x0)
    kl = _normal_kl(per_sample(posterior.log_variance, x0), log_variance, of_x0 * (x0 - predicted_x0))
    decoder = _decoder_nats(x0, of_x0 * predicted_x0 + of_x_t * x_t, log_variance)
    return torch.where(path.time_shown(t) < 1, _bits(decoder), _bits(kl))


def prior_bits(path: Discrete, x0: Tensor) -> Tensor:
    """KL(q(x_T | x0) || N(0, I)) in bits per dimension, (B,): what the last step still knows of x0."""
    t = torch.full(x0.shape[:1], path.t_max, dtype=x0.dtype, device=x0.device)
    alpha, log_variance = per_sample(path.alpha(t), x0), per_sample(2 * torch.log(path.sigma(t)), x0)
    return _bits(_normal_kl(log_variance, torch.zeros_like(log_variance), alpha * x0))


@torch.no_grad()
def variational_bound(
    denoiser: Denoiser, x0: Tensor, condition: Condition, generator: torch.Generator, fixed: str = "beta"
) -> Bound:
    """The whole bound of each sample by T calls of the network, with fresh noise at every step.

    Args:
        denoiser: on a discrete path.
        x0: data (B, ...).
        condition: what is known of each sample.
        generator: source of the noise, on the device of x0.
        fixed: the variance of a denoiser that has learned none: "beta" or "posterior".

    Raises:
        InputError: the path is not discrete.
    """
    path = denoiser.path
    if not isinstance(path, Discrete):
        raise InputError(
            "path", type(path).__name__, "a discrete path", "Others have a likelihood by the ODE."
        )
    terms = []
    for k in reversed(range(path.steps)):
        t = torch.full(x0.shape[:1], k / path.steps, dtype=x0.dtype, device=x0.device)
        eps = torch.randn(x0.shape, generator=generator, dtype=x0.dtype, device=x0.device)
        x_t = path.corrupt(x0, t, eps)
        prediction = denoiser(x_t, t, condition)
        log_variance = reverse_log_variance(path, t, prediction.variance_fraction, fixed)
        terms.append(step_bits(path, t, x0, x_t, prediction.x0, log_variance))
    steps, prior = torch.stack(terms[::-1], dim=1), prior_bits(path, x0)
    return Bound(prior + steps.sum(1), prior, steps)
