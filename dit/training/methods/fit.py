"""Fitting an objective: one call of the network per sample, at a time of its own.

b: this rank's share of the batch.
"""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from dit.condition import Condition, ConditionKind
from dit.diffusion.denoiser import NetworkReader
from dit.diffusion.objective import Learnable
from dit.diffusion.process import Loss
from dit.diffusion.times import stratified
from dit.network.counting import Counts
from dit.training.batches import Batch
from dit.training.streams import Streams


class Part(NamedTuple):
    """Data ``x0`` (b, ...), what the network is told of them, uniforms ``u`` (b,) for the times, noise ``eps``."""

    x0: Tensor
    condition: Condition
    u: Tensor
    eps: Tensor


@dataclass(frozen=True)
class Fit:
    """The network learns an objective.

    Args:
        objective: what is learned.
        label_dropout: probability that a sample's condition is replaced by the null condition.
    """

    objective: Learnable
    label_dropout: float

    @staticmethod
    def step_cost(counts: Counts) -> int:
        """Multiply-adds of one example: a forward pass, and the backward pass, which takes twice as many."""
        return 3 * counts.macs_per_image

    def denoiser(self, network: nn.Module) -> NetworkReader:
        return self.objective.process.denoiser(network)

    def parts(self, batch: Batch, kind: ConditionKind, streams: Streams, n: int) -> list[Part]:
        step, device = batch.step, batch.x0.device
        kept = streams.uniform("label_dropout", step, device)[streams.share] >= self.label_dropout
        condition = batch.condition.where(kept, kind.null(len(batch.x0), device))
        u = stratified(streams.uniform("times", step, device))[streams.share]
        eps = streams.normal("noise", step, tuple(batch.x0.shape[1:]), device)
        tensors = (tensor.chunk(n) for tensor in (batch.x0, u, eps))
        return [Part(x0, told, *rest) for told, x0, *rest in zip(condition.parts(n), *tensors, strict=True)]

    def loss(self, denoiser: nn.Module, part: Part) -> Loss:
        return self.objective.loss(denoiser, *part)
