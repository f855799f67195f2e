"""Masked tokens: data whose tokens are hidden, more of them at later times, and guessed from those that are not.

A time t in [0, 1] hides each token with probability 1 - alpha(t). A network learns the odds of a hidden token's values,
given those that are not hidden; neither these odds nor the bound on the likelihood depends on the schedule.

Legend: B batch, L tokens of a sample, V values of a token; MASKED stands for a hidden one.
"""

from dit.diffusion.masked.denoiser import TokenDenoiser, TokenPrediction
from dit.diffusion.masked.process import Masked, MaskedObjective
from dit.diffusion.masked.schedules import MASKED, Cosine, Linear, Polynomial, Schedule
from dit.diffusion.masked.solver import unmask

__all__ = [
    "MASKED",
    "Cosine",
    "Linear",
    "Masked",
    "MaskedObjective",
    "Polynomial",
    "Schedule",
    "TokenDenoiser",
    "TokenPrediction",
    "unmask",
]
