"""The solver of masked tokens: from all hidden to none, along a grid of times.

Shapes: B batch, L tokens of a sample, V values of a token; tokens (B, 1, ...), log-probabilities (B, V, ...).
"""

from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from dit.condition import NOTHING, Condition
from dit.diffusion.masked.denoiser import TokenPrediction
from dit.diffusion.masked.schedules import MASKED, Schedule
from dit.diffusion.solvers.steps import NoiseSource, required
from dit.errors import InputError, check_choice

ORDERS = ("ancestral", "random", "confidence")


class _Tokens(Protocol):
    """A TokenDenoiser, guided or not."""

    @property
    def path(self) -> Schedule: ...

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition) -> TokenPrediction: ...


def unmask(
    denoiser: _Tokens,
    x: Tensor,
    ts: Tensor,
    condition: Condition = NOTHING,
    *,
    noise: NoiseSource | None = None,
    order: str = "ancestral",
) -> Tensor:
    """Draws hidden tokens from the denoiser's odds and keeps a share of them at each step: one call a step.

    With the exact odds, steps that uncover one token leave the distribution of the data; those that uncover several
    draw them independently of each other.

    Options:
        order: which tokens a step from t to s uncovers. ``ancestral``: each with probability
            (alpha_s - alpha_t)/(1 - alpha_t), as the process is run backwards. ``random``: as many as there are then on
            average, drawn at random. ``confidence``: as many, those of whose drawn value the denoiser is surest.

    Source: MDLM, arXiv 2406.07524, equation 7 (ancestral); MaskGIT, 2202.04200, and LLaDA, 2502.09992 (confidence).
    """
    check_choice("solver.order", order, ORDERS)
    if not isinstance(denoiser.path, Schedule):
        allowed = "a solver of numbers, such as solver=euler"
        raise InputError("solver", "unmask", allowed, "unmask draws tokens: objective=masked.")
    noise = required(noise, "unmask")
    for now, end in pairwise(ts.to(torch.float64)):
        t = torch.full((len(x),), float(now), device=x.device)
        log_p = denoiser(x, t, condition).log_p
        guess, score = _drawn(log_p, noise()), noise()
        hidden = x == MASKED
        if order == "ancestral":
            gone, left = (1 - float(denoiser.path.alpha(time)) for time in (now, end))
            chosen = hidden & (torch.special.ndtr(score.double()) >= left / gone)
        else:
            if order == "confidence":
                score = log_p.gather(1, guess)
            chosen = hidden & _highest(score.where(hidden, torch.inf), denoiser.path.alpha(end))
        x = torch.where(chosen, guess, x)
    return x


def _drawn(log_p: Tensor, eps: Tensor) -> Tensor:
    """One value (B, 1, ...) of each token, by the inverse distribution function at standard normal eps (B, 1, ...)."""
    cumulated = log_p.double().exp().cumsum(1)
    level = torch.special.ndtr(eps.double()) * cumulated[:, -1:]
    return (cumulated <= level).sum(1, keepdim=True).clamp(max=log_p.shape[1] - 1)


def _highest(score: Tensor, alpha: Tensor) -> Tensor:
    """Which tokens are uncovered when a share ``alpha`` of all is: those of the highest score, bool (B, 1, ...)."""
    flat = score.flatten(1)
    rank = flat.argsort(1, descending=True).argsort(1)
    return (rank < round(float(alpha) * flat.shape[1])).view_as(score)
