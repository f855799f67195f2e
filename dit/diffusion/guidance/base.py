"""The base of every guidance: the denoiser that it wraps, and the interval where it is on."""

import math
from collections.abc import Sequence
from typing import Union

import torch
from torch import Tensor, nn

from dit.diffusion.denoiser import NetworkReader, Prediction
from dit.diffusion.paths import Path
from dit.diffusion.targets import Target
from dit.errors import InputError

_SAME_TIME, _SAME_LOG_SNR = 2e-5, 1e-4
Interval = Sequence[float]
AnyDenoiser = Union[NetworkReader, "Guided"]


def _check_interval(interval: Interval | None) -> tuple[float, float]:
    if interval is None:
        return -math.inf, math.inf
    ends = list(interval) if isinstance(interval, Sequence) else []
    numbers = all(isinstance(end, (int, float)) and not isinstance(end, bool) for end in ends)
    if len(ends) != 2 or not numbers or not ends[0] < ends[1]:
        raise InputError(
            "guidance.interval",
            interval,
            "[low, high] in log-SNR with low < high, an infinity for an open end",
            "Infinities are inf and -inf on the command line, .inf and -.inf in YAML.",
        )
    return float(ends[0]), float(ends[1])


class Guided(nn.Module):
    """A denoiser that wraps another: same path, target, network and call.

    Args:
        denoiser: the (strong) denoiser, itself guided or not.
        interval: [low, high] in log-SNR where guidance is on; None is everywhere.
    """

    def __init__(self, denoiser: AnyDenoiser, interval: Interval | None = None) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.interval = _check_interval(interval)

    @property
    def path(self) -> Path:
        """The path of the strong denoiser."""
        return self.denoiser.path

    @property
    def target(self) -> Target:
        """The target of the strong denoiser."""
        return self.denoiser.target

    @property
    def network(self) -> nn.Module:
        """The network of the strong denoiser."""
        return self.denoiser.network

    def is_on(self, t: Tensor) -> Tensor:
        """(B,) bool: log-SNR at ``t`` lies in the interval, or so near an end that it means the end."""
        if self.interval == (-math.inf, math.inf):
            return torch.ones_like(t, dtype=torch.bool)
        t = t.double()
        cleaner, noisier = t * (1 - _SAME_TIME), (t * (1 + _SAME_TIME)).clamp(max=self.path.noise_end)
        low, high = self.interval[0] - _SAME_LOG_SNR, self.interval[1] + _SAME_LOG_SNR
        return (self.path.log_snr(cleaner) >= low) & (self.path.log_snr(noisier) <= high)

    def is_off(self, on: Tensor) -> bool:
        """Whether no sample of the batch is guided; without an interval this needs no look at the device."""
        return self.interval != (-math.inf, math.inf) and not bool(on.any())

    def rewritten(self, strong: Prediction, t: Tensor, x0: Tensor, eps: Tensor) -> Prediction:
        """``strong`` with other data and noise; a learned variance stays as it was."""
        return strong._replace(x0=x0, eps=eps, output=self.target.encode(self.path, t, x0, eps))

    def extrapolated(self, strong: Prediction, weak: Prediction, t: Tensor, gain: Tensor) -> Prediction:
        """Strong + gain (strong - weak), as the strong denoiser adds predictions."""
        return self.denoiser.extrapolated(strong, weak, t, gain)


def unguided(denoiser: AnyDenoiser) -> AnyDenoiser:
    """The denoiser as it is."""
    return denoiser
