"""Batches as a pure function of (seed, step): what the trainer iterates.

B: global batch, b: this rank's share.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch.utils.data import IterableDataset

from dit import signals
from dit.condition import Condition
from dit.data.latents import LatentSet
from dit.data.loader import indices
from dit.training.streams import Streams


class Batch(NamedTuple):
    """One step's data on one rank.

    Attributes:
        x0: (b, ...) float32 at unit variance per channel, drawn from the autoencoder's posterior.
        condition: what is known of each sample.
        index: (b,) int64 positions in the latent set.
        step: the optimizer step that this batch is for.
    """

    x0: torch.Tensor
    condition: Condition
    index: torch.Tensor
    step: int


class Batches(IterableDataset):
    """The batches of steps ``first_step`` .. ``last_step - 1``, in order.

    Args:
        latents: the training latents.
        streams: the run's random streams; they fix order, flips and posterior draws.
        first_step: optimizer step to begin at (a resumed run begins where its checkpoint ends).
        last_step: optimizer step to end before.
    """

    def __init__(self, latents: LatentSet, streams: Streams, first_step: int, last_step: int) -> None:
        super().__init__()
        self.latents, self.streams = latents, streams
        self.first_step, self.last_step = first_step, last_step

    def batch(self, step: int) -> Batch:
        """The batch of one step."""
        streams = self.streams
        images_seen = step * streams.batch_size
        index = indices(streams.seed, len(self.latents), images_seen, streams.batch_size)[streams.share]
        noise = streams.normal("posterior", step, self.latents.shape) if self.latents.has_posterior else None
        flip = streams.uniform("flip", step)[streams.share] < 0.5 if self.latents.has_flips else None
        return Batch(self.latents.draw(index, noise, flip), self.latents.condition(index), index, step)

    def __iter__(self) -> Iterator[Batch]:
        worker = torch.utils.data.get_worker_info()
        if worker:
            signals.obey_parent_alone()  # as the worker starts, not with its first batch, which may never be asked for
        offset, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        return map(self.batch, range(self.first_step + offset, self.last_step, stride))
