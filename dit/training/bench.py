"""How fast steps of training, samples and batches are; of steps also where their time goes, as the trainer makes them.

b: samples of a batch.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dit.condition import Condition, ConditionKind
from dit.data.latents import LatentSet
from dit.diffusion.sampling import Sample
from dit.domain import Domain
from dit.launch import World
from dit.training.batches import Batches
from dit.training.hardware import Hardware
from dit.training.module import DiffusionModule
from dit.training.strategy import make_trainer
from dit.training.streams import Streams
from dit.training.watching import Waiting, peak_memory

PARTS = ("data", "forward", "backward", "optimizer", "ema")


class SyntheticLatents:
    """Standard normal latents that need no directory: what ``Batches`` asks of a latent set."""

    has_posterior, has_flips = True, False

    def __init__(self, domain: Domain, kind: ConditionKind, count: int = 2**16) -> None:
        self.domain, self.shape, self.kind, self.count = domain, domain.shape, kind, count
        self._conditions = kind.drawn("balanced", 0, count)

    def __len__(self) -> int:
        return self.count

    def draw(self, index: Tensor, eps: Tensor, flip: Tensor | None = None) -> Tensor:
        """(b, ...) float32: the posterior draw itself; tokens: its quantiles."""
        if n_values := self.domain.vocabulary:
            return (torch.special.ndtr(eps) * n_values).long().clamp(max=n_values - 1)
        return eps

    def condition(self, index: Tensor) -> Condition:
        """Of samples in turn."""
        return self._conditions.part(index)

    def as_latents(self) -> LatentSet:
        """This, where a LatentSet is asked for."""
        return cast(LatentSet, self)


class Stopwatch:
    """Seconds by part, while it is running; waits for the device at every boundary, so a part's time is its own."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.is_running = False
        self.seconds: dict[str, float] = {}
        self._started: dict[str, float] = {}

    def start(self, name: str) -> None:
        if self.is_running:
            self._started[name] = self.now()

    def stop(self, name: str) -> None:
        if self.is_running:
            self.seconds[name] = self.seconds.get(name, 0.0) + self.now() - self._started[name]

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self.start(name)
        yield
        self.stop(name)

    def now(self) -> float:
        """The time once the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


@dataclass(frozen=True)
class Timed:
    """What was measured.

    Attributes:
        step_seconds: mean of the steps that ran undisturbed.
        part_seconds: mean of each of PARTS, and of the ``rest``, over as many steps more, in which the device was
            waited for at every boundary.
        peak_memory_bytes: of this rank.
    """

    step_seconds: float
    part_seconds: dict[str, float]
    peak_memory_bytes: int

    @property
    def shares(self) -> dict[str, float]:
        """Each part's share of the step; they add up to 1."""
        whole = sum(self.part_seconds.values())
        return {name: seconds / whole for name, seconds in self.part_seconds.items()}

    @property
    def outside_share(self) -> float:
        """Share of the step outside the network's own forward, backward and optimizer."""
        return 1 - sum(self.shares[name] for name in ("forward", "backward", "optimizer"))


def time_training(
    module: DiffusionModule,
    latents: LatentSet,
    hardware: Hardware,
    strategy: str,
    world: World,
    steps: int,
    warm_up: int,
) -> Timed:
    """Times ``steps`` steps of Lightning's trainer as training sets it up; every rank of the world calls it.

    Args:
        module: not yet on its device.
        latents: what the loader reads, or ``SyntheticLatents``.
        hardware: as in training.
        strategy: its name, resolved.
        world: this process among those that share the batch.
        steps: twice as many are made, see ``Timed``.
        warm_up: steps before them.
    """
    device = hardware.torch_device(world)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    batches = Batches(latents, module.streams, 0, warm_up + 2 * steps)
    pinned = device.type == "cuda"
    loader = DataLoader(batches, batch_size=None, num_workers=hardware.n_workers, pin_memory=pinned)
    waiting = Waiting(loader)
    timing = _Timing(Stopwatch(device), waiting, steps, warm_up)
    make_trainer(hardware, strategy, world, [timing]).fit(module, waiting)
    return Timed(timing.step_seconds, timing.part_seconds, peak_memory(device))


def time_sampling(
    draw: Callable[[], Sample], device: torch.device, bf16: bool, steps: int, warm_up: int
) -> tuple[float, int]:
    """Seconds that one batch of samples takes, and the network calls that it is made of.

    Args:
        draw: makes a batch of samples.
        device: where it does.
        bf16: whether matrix products are taken in bfloat16.
        steps: batches that are timed.
        warm_up: batches before them.
    """
    watch, nfe, start = Stopwatch(device), 0, 0.0
    for number in range(warm_up + steps):
        start = watch.now() if number == warm_up else start
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            nfe = draw().nfe
    return (watch.now() - start) / steps, nfe


def time_loading(latents: LatentSet, streams: Streams, n_workers: int, steps: int, warm_up: int) -> float:
    """Seconds that one batch takes to be read: this rank's share, by as many workers as in training."""
    batches = Batches(latents, streams, 0, warm_up + steps)
    start = time.perf_counter()
    for number, _ in enumerate(DataLoader(batches, batch_size=None, num_workers=n_workers), 1):
        if number == warm_up:
            start = time.perf_counter()
    return (time.perf_counter() - start) / steps


class _Timing(L.Callback):
    """Reads the clock after the warm-up, after ``steps`` undisturbed steps, and after as many taken apart."""

    def __init__(self, watch: Stopwatch, waiting: Waiting, steps: int, warm_up: int) -> None:
        self.watch, self.waiting, self.steps, self.warm_up = watch, waiting, steps, warm_up
        self.step_seconds = 0.0
        self.part_seconds: dict[str, float] = {}
        self._marked, self._waited = 0.0, 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, DiffusionModule)
        watch, network = self.watch, pl_module.network
        network.register_forward_pre_hook(lambda *_: watch.start("forward"), prepend=True)
        network.register_forward_hook(lambda *_: watch.stop("forward"))
        pl_module.manual_backward = self._timed("backward", pl_module.manual_backward)
        pl_module.averages.update = self._timed("ema", pl_module.averages.update)
        optimizer = trainer.optimizers[0]
        optimizer.register_step_pre_hook(lambda *_: watch.start("optimizer"))
        optimizer.register_step_post_hook(lambda *_: watch.stop("optimizer"))
        self._mark()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done = batch_idx + 1
        if done == self.warm_up:
            self._mark()
        elif done == self.warm_up + self.steps:
            self.step_seconds = (self.watch.now() - self._marked) / self.steps
            self.watch.is_running = True
            self._mark()
        elif done == self.warm_up + 2 * self.steps:
            self.watch.seconds["data"] = self.waiting.seconds - self._waited
            found = {name: self.watch.seconds[name] / self.steps for name in PARTS}
            whole = (self.watch.now() - self._marked) / self.steps
            self.part_seconds = {**found, "rest": whole - sum(found.values())}

    def _mark(self) -> None:
        self._marked, self._waited = self.watch.now(), self.waiting.seconds

    def _timed(self, name: str, act: Callable[..., None]) -> Callable[..., None]:
        def timed(*arguments: Any, **options: Any) -> None:
            with self.watch.part(name):
                act(*arguments, **options)

        return timed
