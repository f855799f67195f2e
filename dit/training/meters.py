"""What is remembered of the steps since the last record: part of a checkpoint, so that records resume bit for bit.

K: bins of log-SNR.
"""

import math

import torch
from torch import Tensor

from dit.study.spikes import SPIKE_MEMORY, SPIKE_SDS
from dit.training.watching import bin_means


class Meters:
    """Losses and gradient norms of the global batch, equal on every rank.

    Args:
        n_bins: K.
    """

    def __init__(self, n_bins: int) -> None:
        self.n_bins = n_bins
        self.loss_sum, self.count, self.grad_norm = 0.0, 0, math.nan
        self.bins = torch.zeros(2, n_bins, dtype=torch.float64)  # sums, then numbers
        # exponentially weighted mean and variance of the loss, and the steps behind them
        self.mean, self.variance, self.steps = 0.0, 0.0, 0

    def add(self, loss: float, grad_norm: float, bins: list[float]) -> tuple[float, float] | None:
        """Adds one step.

        Args:
            loss: mean of the global batch.
            grad_norm: before clipping.
            bins: sums, then numbers, of the losses by bin of log-SNR, (2K,).

        Returns:
            Mean and standard deviation of about SPIKE_MEMORY steps before this one, where its loss is a spike: it lies
            SPIKE_SDS standard deviations above that mean. None where it is not.
        """
        self.loss_sum += loss
        self.count += 1
        self.grad_norm = grad_norm
        self.bins += torch.tensor(bins, dtype=torch.float64).view(2, self.n_bins)
        distance, before = loss - self.mean, (self.mean, math.sqrt(self.variance))
        is_spike = self.steps >= SPIKE_MEMORY and distance > SPIKE_SDS * before[1]
        # the first steps count equally, as in a plain mean; West 1979 for the variance
        share = max(1 / (self.steps + 1), 1 / SPIKE_MEMORY)
        self.mean += share * distance
        self.variance = (1 - share) * (self.variance + share * distance**2)
        self.steps += 1
        return before if is_spike else None

    @property
    def loss(self) -> float | None:
        """Mean loss since the last reading, just after one the smoothed loss; None where there was no step at all."""
        if self.count:
            return self.loss_sum / self.count
        return self.mean if self.steps else None

    def read(self) -> dict[str, float | list[float | None] | None]:
        """Mean loss, loss by bin (None for an empty one) and the last gradient norm; starts the next interval."""
        found = {"loss": self.loss, "grad_norm": self.grad_norm, "loss_bins": bin_means(self.bins)}
        self.loss_sum, self.count = 0.0, 0
        self.bins.zero_()
        return found

    def state(self) -> Tensor:
        """(6 + 2K,) float64."""
        numbers = (self.loss_sum, self.count, self.grad_norm, self.mean, self.variance, self.steps)
        return torch.cat([torch.tensor(numbers, dtype=torch.float64), self.bins.flatten()])

    def load(self, state: Tensor) -> None:
        """Takes up a ``state``."""
        self.loss_sum, count, self.grad_norm, self.mean, self.variance, steps = state[:6].tolist()
        self.count, self.steps = int(count), int(steps)
        self.bins = state[6:].view(2, self.n_bins).clone()
