"""Methods: one that the package does not know trains through the module as it is; Fit's draws are the streams'."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dit.condition import Condition, Nothing, labelled
from dit.diffusion.denoiser import Denoiser
from dit.diffusion.objective import Objective
from dit.diffusion.paths import Linear
from dit.diffusion.process import Loss
from dit.diffusion.targets import Data, Velocity
from dit.diffusion.times import Uniform
from dit.diffusion.weights import Uniform as Plain
from dit.domain import Domain
from dit.network.config import DiTConfig
from dit.training.averaging import Power
from dit.training.batches import Batch
from dit.training.methods import Fit
from dit.training.module import DiffusionModule
from dit.training.optimizers import AdamW
from dit.training.schedules import Constant, Rate
from dit.training.settings import Settings
from dit.training.streams import Streams


@dataclass(frozen=True)
class TwoTimes:
    """A toy: the data are to be found from two places on one line through them and noise."""

    early: float = 0.2
    late: float = 0.6

    def denoiser(self, network: nn.Module) -> Denoiser:
        return Denoiser(network, Linear(), Data())

    def parts(self, batch: Batch, kind, streams: Streams, n: int) -> list[tuple[Tensor, Tensor, Condition]]:
        eps = streams.normal("noise", batch.step, tuple(batch.x0.shape[1:]), batch.x0.device)
        return list(zip(batch.x0.chunk(n), eps.chunk(n), batch.condition.parts(n), strict=True))

    def loss(self, denoiser: nn.Module, part: tuple[Tensor, Tensor, Condition]) -> Loss:
        x0, eps, told = part
        times = [torch.full((len(x0),), t) for t in (self.early, self.late)]
        found = [denoiser(Linear().corrupt(x0, t, eps), t, told).x0 for t in times]
        error = torch.stack([(x - x0).square().flatten(1).mean(1) for x in found]).mean(0)
        return Loss(error, times[1], Linear().log_snr(times[1]), error)


def module(method, accumulation: int = 1) -> DiffusionModule:
    """Trajectories of 3 channels and 16 moments, about which nothing is told; the trainer's services stood in for."""
    settings = Settings(
        batch_size=8, seed=0, warmup_images=0, label_dropout=0.1, grad_clip=1e9, log_every_images=8,
        checkpoint_every_images=8,
    )  # fmt: skip
    made = DiffusionModule(
        method,
        DiTConfig(16, 1, 2, 2).build(Domain(3, (16,)), Nothing()),
        optimizer=AdamW(lr=0.01),
        rate=Rate(Constant(), 1000, 0.01),
        profiles={"a": Power(0.05)},
        settings=settings,
        streams=Streams(0, 8),
        edges=torch.linspace(-8, 8, 3),
        accumulation=accumulation,
    )
    made.configure_model()
    built = made.configure_optimizers()
    made.optimizers = lambda use_pl_optimizer=True: built
    made.manual_backward = lambda loss: loss.backward()
    return made


def batch(step: int) -> Batch:
    x0 = torch.randn(8, 3, 16, generator=torch.Generator().manual_seed(1 + step % 2))
    return Batch(x0, Condition(), torch.arange(8), step)


def test_a_method_of_ones_own_trains_on_a_domain_of_one_axis():
    """Its loss falls, and in parts it makes the same steps."""
    losses = []
    for accumulation in (1, 4):
        made = module(TwoTimes(), accumulation)
        found = []
        for step in range(40):
            before = made.method.loss(
                made.denoiser, made.method.parts(batch(step), Nothing(), made.streams, 1)[0]
            )
            made.training_step(batch(step), 0)
            found.append(float(before.loss.mean().detach()))
        assert made.steps_done == 40 and sum(found[-4:]) < 0.8 * sum(found[:4])
        losses.append(found)
    torch.testing.assert_close(torch.tensor(losses[0]), torch.tensor(losses[1]), rtol=1e-2, atol=1e-3)


def test_fit_drops_conditions_by_the_share_asked_for_and_keeps_samples_together():
    from dit.condition import Classes

    objective = Objective(Linear(), Velocity(), Uniform(), Plain())
    label = torch.arange(4000) % 7
    whole = Batch(label[:, None].float().expand(-1, 2), labelled(label), label, 3)
    parts = Fit(objective, 0.25).parts(whole, Classes(7), Streams(0, 4000), 5)
    told = torch.cat([part.condition["label"] for part in parts])
    kept = told != 7
    assert len(parts) == 5 and torch.equal(told[kept], label[kept])
    assert abs(float(kept.float().mean()) - 0.75) < 4 * (0.25 * 0.75 / 4000) ** 0.5
    assert torch.equal(torch.cat([part.x0[:, 0] for part in parts]).long(), label)
    u = torch.cat([part.u for part in parts]).sort().values
    assert (u * 4000).long().tolist() == list(range(4000))  # one in each stratum
