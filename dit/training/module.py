"""The Lightning module: one optimizer step of one denoiser, and everything of it that a checkpoint must hold.

b: this rank's share of the batch, K: bins of log-SNR.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import lightning as L
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from dit.diffusion.denoiser import NetworkReader
from dit.network.base import Network
from dit.training import state
from dit.training.averaging import Averages, Profile, shards
from dit.training.batches import Batch
from dit.training.guards import Guards
from dit.training.meters import Meters
from dit.training.methods import Method
from dit.training.optimizers import AdamW
from dit.training.schedules import Rate
from dit.training.settings import Settings
from dit.training.streams import Streams
from dit.training.watching import bin_totals


class DiffusionModule(L.LightningModule):
    """One denoiser in training.

    Steps are optimized by hand (``automatic_optimization = False``): what happens between backward and the averages is
    the part of a trainer that a study has to be able to read. The host hands out a step's work without waiting for it:
    whether the gradient is finite is decided where it lies, and ``guards`` read a step's numbers one step later.

    Args:
        method: what a step asks of the network; makes the denoiser from it.
        network: (x (b, ...), t (b,), condition) -> (b, C_out, ...), whole.
        optimizer: its settings.
        rate: the learning rate.
        profiles: averages of the weights to follow, by name.
        settings: the numbers of the loop.
        streams: the run's random streams.
        edges: (K + 1,) of the log-SNR bins in which the training loss is watched.
        accumulation: parts in which this rank takes its share.
        prepare: compiles and shards the network in place, once its device is known.
    """

    def __init__(
        self,
        method: Method,
        network: Network,
        *,
        optimizer: AdamW,
        rate: Rate,
        profiles: Mapping[str, Profile],
        settings: Settings,
        streams: Streams,
        edges: Tensor,
        accumulation: int = 1,
        prepare: Callable[[Network], None] | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.method, self.optimizer_settings, self.rate = method, optimizer, rate
        self.settings, self.streams, self.accumulation = settings, streams, accumulation
        self.denoiser = method.denoiser(network)
        self.profiles, self.prepare = profiles, prepare
        self.averages: Averages
        self.meters = Meters(len(edges) - 1)
        self.guards = Guards(settings, streams.world_size, self.meters)
        self.edges: Tensor
        self.register_buffer("edges", edges.to(torch.float32), persistent=False)
        self.steps_done = 0
        self.passed_over: set[int] = set()  # steps (from 1) that a rollback goes past

    @property
    def network(self) -> Network:
        """The network inside the denoiser."""
        network = self.denoiser.network
        assert isinstance(network, Network)
        return network

    @property
    def images_seen(self) -> int:
        """The clock: images of the global batches so far."""
        return self.steps_done * self.settings.batch_size

    @property
    def is_shared(self) -> bool:
        """Whether the network's parameters are shards of a device mesh."""
        return isinstance(next(self.network.parameters()), DTensor)

    def configure_model(self) -> None:
        if not hasattr(self, "averages"):
            if self.prepare is not None:
                self.prepare(self.network)
            self.averages = Averages(self.network, self.profiles)
            # once, since asking for them takes a while in a small network's step
            self.trained = list(self.network.parameters())
            # ranks that hold the same piece of a parameter
            mesh = self.trained[0].device_mesh if isinstance(self.trained[0], DTensor) else None
            self._copies = mesh.shape[0] if mesh is not None and mesh.ndim == 2 else 1

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer_settings.build(self.network)

    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return self.rate.at(self.images_seen, self.settings)

    def training_step(self, batch: Batch, _batch_index: int) -> None:
        if batch.step + 1 in self.passed_over:
            self.after_step()
            return
        optimizer = self._optimizer()
        optimizer.zero_grad()
        totals = self.forward_backward(batch, self.manual_backward)
        self.clip_and_step(totals, optimizer)
        self.after_step()

    def forward_backward(self, batch: Batch, backward: Callable[[Tensor], None]) -> Tensor:
        """Loss and gradient of a batch, in ``accumulation`` parts.

        Returns:
            (1 + 2K,) float64: this rank's mean loss, then the sums and the numbers of the losses by bin of log-SNR.
        """
        totals = torch.zeros(1 + 2 * (len(self.edges) - 1), dtype=torch.float64, device=self.edges.device)
        parts = self.method.parts(batch, self.network.kind, self.streams, self.accumulation)
        for index, part in enumerate(parts):
            if self.is_shared:  # gradients travel once per step
                self.network.set_requires_gradient_sync(index == len(parts) - 1)  # type: ignore[operator]
            found = self.method.loss(self.denoiser, part)
            loss = found.loss.mean() / len(parts)
            backward(loss)
            totals[0] += loss.detach()
            totals[1:] += bin_totals(found.loss, found.log_snr, self.edges).flatten()
        return totals

    def clip_and_step(self, totals: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Clips the gradient, agrees with the other ranks on what was found, and moves the weights if it is finite."""
        gradients = shards(weight.grad for weight in self.trained if weight.grad is not None)
        norm = nn.utils.get_total_norm(gradients, foreach=True)
        found = self.guards.agree(totals, norm, self._copies)
        # as torch.nn.utils.clip_grad_norm_, which over sharded gradients would ask the ranks once more
        shrink = (self.settings.grad_clip / (found.norm.float() + 1e-6)).clamp(max=1)
        torch._foreach_mul_(gradients, shrink)  # pyright: ignore[reportPrivateImportUsage]
        lr = self.learning_rate()
        for group in optimizer.param_groups:
            group["lr"] = lr * group["lr_multiplier"]
        # what optimizers look at before they move anything, as torch's GradScaler sets it
        optimizer.found_inf = 1 - found.is_finite.float()  # type: ignore[attr-defined]
        optimizer.step()
        self.averages.update(self.steps_done + 1, self.settings.batch_size)
        self.guards.keep(found, self.steps_done + 1, lr)

    def after_step(self) -> None:
        """Moves the clock on."""
        self.steps_done += 1

    @contextmanager
    def read(self, weights: str) -> Iterator[NetworkReader]:
        """The denoiser with the ``raw`` weights or an average of them, for measuring: whole, and on every rank.

        Where the network is shared this is a copy, so that ranks may call it as often as each likes.
        """
        if not self.is_shared:
            with self.averages.applied(weights):
                yield self.denoiser
            return
        network = self.network
        with torch.device("meta"):
            whole = network.twin()
        whole.to_empty(device=self.edges.device)
        whole.fill_tables()
        shadow = dict(network.named_parameters()) if weights == "raw" else self.averages.shadows[weights]
        with torch.no_grad():
            for name, parameter in whole.named_parameters():
                value = shadow[name]
                assert isinstance(value, DTensor)
                parameter.copy_(value.full_tensor())
        yield self.method.denoiser(whole)

    def state_tensors(self) -> dict[str, Tensor]:
        """Every tensor that a resumed run needs, by name."""
        return state.gather(self.network, self._optimizer(), self.averages, self.meters)

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts the tensors of ``state_tensors`` back, sharded as the parameters are now; each is asked for once.

        Raises:
            InputError: they are of another network, or lack an average.
        """
        state.restore(tensors, self.network, self._optimizer(), self.averages, self.meters)

    def _optimizer(self) -> torch.optim.Optimizer:
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        return optimizer
