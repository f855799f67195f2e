"""Guidance: one denoiser made out of two, or of one and a classifier. The result behaves as a Denoiser.

At fixed x_t the pair (x0, eps) is linear in the network's output, so extrapolating both by one scale is the
same as extrapolating the output, whatever the target: guided = strong + (scale - 1) (strong - weak). Scale 1
is the strong denoiser alone.

Where guidance is off (scale 1, or log-SNR outside the interval for the whole batch) the second evaluation is
not made.

Intervals are in **log-SNR** ln(alpha^2 / sigma^2), both ends included, so that one setting means the same on
every path; on VE (EDM) sigma = exp(-log_snr / 2), on Linear t = 1 / (1 + exp(log_snr / 2)). An open end is an
infinity. A time that misses an end by 2e-5 of itself, or by 1e-4 in log-SNR, lies on it: float32, a path that
stops 1e-5 before pure noise and a typed number of four decimals miss by less, and steps of grids are far longer.

Legend: B batch, C channels; a sample has any number of axes behind its channels.
"""

from dit.diffusion.guidance.autoguidance import Autoguidance
from dit.diffusion.guidance.base import AnyDenoiser, Guided, unguided
from dit.diffusion.guidance.classifier import Classifier
from dit.diffusion.guidance.classifier_free import ClassifierFree, NegativeClass

__all__ = [
    "AnyDenoiser",
    "Autoguidance",
    "Classifier",
    "ClassifierFree",
    "Guided",
    "NegativeClass",
    "unguided",
]
