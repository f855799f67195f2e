"""Consistency training: the data prediction at one time learns to agree with itself at an earlier one.

b: this rank's share of the batch; s = sigma/alpha, the noise level of EDM.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dit.condition import Condition, ConditionKind
from dit.diffusion.denoiser import NetworkReader
from dit.diffusion.objective import Learnable, Objective
from dit.diffusion.paths import at_least_float32, per_sample
from dit.diffusion.process import Loss
from dit.diffusion.targets import Data
from dit.errors import InputError, check_number
from dit.network.counting import Counts
from dit.training.batches import Batch
from dit.training.methods.fit import Fit
from dit.training.streams import Streams


class Part(NamedTuple):
    """Data ``x0`` (b, ...), what the network is told of them, uniforms ``u`` (b,) for the times, noise ``eps``; and the
    share by which an earlier level differs from its time's, before it is stretched at low noise.
    """

    x0: Tensor
    condition: Condition
    u: Tensor
    eps: Tensor
    gap: float


@dataclass(frozen=True)
class Consistency:
    """The network learns the map from any point of a path to its data, f(x_t, t): the denoiser's data prediction.

    f at time t is drawn to f at an earlier time r of the same data and noise, whose gradient is stopped. In noise
    levels r = t (1 - q^-a n(t)), at least 0, with n(t) = 1 + k sigmoid(-b t): all the way to the data at first, half as
    far (q = 2) with each ``doubling_examples`` that were seen, since a grows by 1. At r = 0, f is the identity. The
    loss of a sample is d(f_t, f_r) / (t - r), d the pseudo-Huber distance sqrt(mean square + c^2) - c.

    Args:
        objective: its path and target say what f is, its times where it is learned; its weight is not used.
        label_dropout: probability that a sample's condition is replaced by the null condition, at both times.
        doubling_examples: d, examples after which the gap between t and r shrinks by q.
        q, k, b: of the mapping; k sigmoid(-b t) widens the gap at low noise.
        huber: c; null is the mean square itself.

    Raises:
        InputError: an objective whose data prediction is not the identity at time 0, or of another process.

    Source: ECT, arXiv 2406.14548, section 3 and appendix A; iCT, 2310.14189, section 3.3 (pseudo-Huber, whose
    c = 0.00054 sqrt(D) of sums of squares is 0.00054 of means).
    """

    objective: Learnable
    label_dropout: float
    doubling_examples: int = 100_000
    q: float = 2.0
    k: float = 8.0
    b: float = 1.0
    huber: float | None = 0.00054

    def __post_init__(self) -> None:
        check_number("method.doubling_examples", self.doubling_examples, low=1, integer=True)
        check_number("method.q", self.q, above=1)
        check_number("method.k", self.k, low=0)
        check_number("method.b", self.b, low=0)
        if self.huber is not None:
            check_number("method.huber", self.huber, above=0)
        objective = self.objective
        if not isinstance(objective, Objective) or objective.learned_variance:
            allowed = "fit for this objective; consistency learns numbers without a variance"
            raise InputError("method", "consistency", allowed)
        if isinstance(objective.target, Data):
            allowed = "karras, velocity, v_prediction or noise, whose data at time 0 are x itself"
            raise InputError("objective.target", "data", allowed)

    @staticmethod
    def step_cost(counts: Counts) -> int:
        """Multiply-adds of one example: two forward passes, and the backward pass of one."""
        return 4 * counts.macs_per_image

    def denoiser(self, network: nn.Module) -> NetworkReader:
        return self._objective.process.denoiser(network)

    def parts(self, batch: Batch, kind: ConditionKind, streams: Streams, n: int) -> Sequence[Part]:
        gap = self.q ** -math.ceil(batch.step * streams.batch_size / self.doubling_examples)
        drawn = Fit(self.objective, self.label_dropout).parts(batch, kind, streams, n)
        return [Part(*part, gap) for part in drawn]

    def loss(self, denoiser: nn.Module, part: Part) -> Loss:
        path, x0, eps = self._objective.path, at_least_float32(part.x0), at_least_float32(part.eps)
        t = self._objective.times.from_uniform(part.u, path)
        level = torch.exp(-path.log_snr(t) / 2)
        earlier = self.earlier(level, part.gap)
        r = path.t_of_log_snr(-2 * torch.log(earlier.clamp(min=torch.finfo(earlier.dtype).tiny)))
        with torch.no_grad():
            early = denoiser(path.corrupt(x0, r, eps), r, part.condition).x0
            early = torch.where(per_sample(earlier == 0, x0), x0, early)
        late = denoiser(path.corrupt(x0, t, eps), t, part.condition).x0
        error = (late - early).square().flatten(1).mean(1)
        distance = error if self.huber is None else torch.sqrt(error + self.huber**2) - self.huber
        return Loss(distance / (level - earlier), t, path.log_snr(t), error)

    def earlier(self, level: Tensor, gap: float) -> Tensor:
        """The noise level of r (b,) for that of t (b,): s (1 - gap n(s)), and 0 where that is cleaner than the path."""
        path = self._objective.path
        found = level * (1 - gap * (1 + self.k * torch.sigmoid(-self.b * level)))
        cleanest = torch.exp(-path.log_snr(torch.tensor(path.t_min, dtype=level.dtype)) / 2)
        return torch.where(found > cleanest, found, 0)

    @property
    def _objective(self) -> Objective:
        assert isinstance(self.objective, Objective)
        return self.objective
