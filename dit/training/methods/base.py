"""The interface of a method, as the training module uses it."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import nn

from dit.condition import ConditionKind
from dit.diffusion.denoiser import NetworkReader
from dit.diffusion.process import Loss
from dit.network.counting import Counts
from dit.training.batches import Batch
from dit.training.streams import Streams


class Method(Protocol):
    """From a batch to losses; its randomness comes from the streams of the batch's step alone."""

    @staticmethod
    def step_cost(counts: Counts) -> int:
        """Multiply-adds of one example in one optimizer step: forward and backward passes, and whatever makes targets.

        Training compute C is twice that for each example.
        """
        ...

    def denoiser(self, network: nn.Module) -> NetworkReader:
        """The denoiser that is sampled and read: the network as this method trains it."""
        ...

    def parts(self, batch: Batch, kind: ConditionKind, streams: Streams, n: int) -> Sequence[Any]:
        """The arguments of ``loss`` for ``n`` parts of this rank's share of the batch, on the batch's device."""
        ...

    def loss(self, denoiser: nn.Module, part: Any) -> Loss:
        """The loss of each sample of a part; differentiable in the denoiser's network."""
        ...
