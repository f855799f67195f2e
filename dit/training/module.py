"""The Lightning module: one optimizer step of one denoiser, and everything of it that a checkpoint must hold.

b: this rank's share of the batch, C H W: latent shape.
"""

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from dit.diffusion.objective import Objective
from dit.diffusion.times import stratified
from dit.errors import RunError
from dit.network.dit import DiT
from dit.training.averaging import Averages, Profile
from dit.training.batches import Batch
from dit.training.optimizers import AdamW, warm_up
from dit.training.settings import Settings
from dit.training.streams import Streams


class DivergedError(RunError):
    """The loss or the gradient is no longer finite; the weights were not touched."""


class DiffusionModule(L.LightningModule):
    """One denoiser in training.

    Steps are optimized by hand (``automatic_optimization = False``): what happens between backward and the averages is
    the part of a trainer that a study has to be able to read.

    Args:
        objective: what is learned; makes the denoiser from the network.
        network: (x (b, C, H, W), t (b,), y (b,)) -> (b, C_out, H, W).
        null_class: the label that stands for "no label".
        optimizer: its settings.
        profiles: averages of the weights to follow, by name.
        settings: the numbers of the loop.
        streams: the run's random streams.
        first_step: optimizer steps done before this process began.
    """

    def __init__(
        self,
        objective: Objective,
        network: DiT,
        *,
        null_class: int,
        optimizer: AdamW,
        profiles: Mapping[str, Profile],
        settings: Settings,
        streams: Streams,
        first_step: int = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.objective, self.optimizer_settings = objective, optimizer
        self.settings, self.streams, self.null_class = settings, streams, null_class
        self.denoiser = objective.denoiser(network)
        self.averages = Averages(network, profiles)
        self.steps_done = first_step
        # sum of losses, number of them and last gradient norm since the last `train` record
        self.meters: torch.Tensor
        self.register_buffer("meters", torch.zeros(3, dtype=torch.float64), persistent=False)

    @property
    def network(self) -> DiT:
        """The network inside the denoiser."""
        network = self.denoiser.network
        assert isinstance(network, DiT)
        return network

    @property
    def images_seen(self) -> int:
        """The clock: images of the global batches that have moved the weights."""
        return self.steps_done * self.settings.batch_size

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer_settings.build(self.network)

    def learning_rate(self) -> float:
        """The learning rate of the step after ``images_seen``, which warms up over the images including its own."""
        reached = self.images_seen + self.settings.batch_size
        return self.optimizer_settings.learning_rate(self.network.config.width) * warm_up(
            reached, self.settings.warmup_images
        )

    def training_step(self, batch: Batch, _batch_index: int) -> None:
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        loss = self.loss(batch)
        optimizer.zero_grad()
        self.manual_backward(loss)
        self.clip_and_step(loss, optimizer)
        self.after_step(loss)

    def loss(self, batch: Batch) -> torch.Tensor:
        """The mean loss of a batch, with label dropout, times and noise of its step's streams; a scalar."""
        streams, step, device = self.streams, batch.step, batch.latents.device
        dropped = streams.uniform("label_dropout", step, device)[streams.share] < self.settings.label_dropout
        labels = torch.where(dropped, self.null_class, batch.labels)
        u = stratified(streams.uniform("times", step, device))[streams.share]
        eps = streams.normal("noise", step, tuple(batch.latents.shape[1:]), device)
        return self.objective.loss(self.denoiser, batch.latents, labels, u, eps).loss.mean()

    def clip_and_step(self, loss: torch.Tensor, optimizer: Any) -> None:
        """Clips the gradient, refuses one that is not finite, and moves the weights at the clock's learning rate."""
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.grad_clip, foreach=True)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        self._guard(loss, norm)
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate() * group["lr_multiplier"]
        optimizer.step()
        self.meters[2] = norm

    def after_step(self, loss: torch.Tensor) -> None:
        """Moves clock, averages and meters on."""
        self.steps_done += 1
        self.averages.update(self.network, self.steps_done, self.settings.batch_size)
        self.meters[0] += loss.detach()
        self.meters[1] += 1

    def _guard(self, loss: torch.Tensor, norm: torch.Tensor) -> None:
        if not bool(torch.isfinite(loss) & torch.isfinite(norm)):
            raise DivergedError(
                f"step {self.steps_done + 1}: loss {float(loss):g}, gradient norm {float(norm):g} "
                f"at learning rate {self.learning_rate():g}; the weights were left as they were. "
                "Lower optimizer.lr, or raise warmup_images."
            )

    def read_meters(self) -> dict[str, float]:
        """Mean loss since the last reading and the last gradient norm; starts the next interval."""
        total, count, norm = self.meters.tolist()
        self.meters.zero_()
        return {"loss": total / count, "grad_norm": norm}

    # -- what a checkpoint holds ---------------------------------------------------------------------------

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """Every tensor that a resumed run needs, by name."""
        optimizer = self._torch_optimizer()
        tensors = {"meters": self.meters}
        for name, parameter in self.network.named_parameters():
            tensors[f"network/{name}"] = parameter.detach()
            for key, value in optimizer.state[parameter].items():
                tensors[f"optimizer/{name}/{key}"] = value
        for profile, shadow in self.averages.shadows.items():
            for name, value in shadow.items():
                tensors[f"average/{profile}/{name}"] = value
        return tensors

    @torch.no_grad()
    def load_state_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Puts the tensors of ``state_tensors`` back, sharded as the parameters are now."""
        optimizer = self._torch_optimizer()
        self.meters.copy_(tensors["meters"])
        states: dict[str, dict[str, torch.Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer/"):
                parameter_name, key = name.removeprefix("optimizer/").rsplit("/", 1)
                states.setdefault(parameter_name, {})[key] = value
        for name, parameter in self.network.named_parameters():
            parameter.copy_(_like(tensors[f"network/{name}"], parameter))
            optimizer.state[parameter] = {
                key: _like(value, parameter) if value.shape == parameter.shape else value.to(parameter.device)
                for key, value in states.get(name, {}).items()
            }
        for profile, shadow in self.averages.shadows.items():
            for name, value in shadow.items():
                value.copy_(_like(tensors[f"average/{profile}/{name}"], value))

    def _torch_optimizer(self) -> torch.optim.Optimizer:
        optimizer = self.optimizers()
        return optimizer.optimizer if hasattr(optimizer, "optimizer") else optimizer  # type: ignore[return-value]


def _like(whole: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """A whole tensor on the device, and in the sharding, of ``reference``."""
    whole = whole.to(reference.device)
    if isinstance(reference, DTensor):
        return distribute_tensor(whole, reference.device_mesh, reference.placements)
    return whole
