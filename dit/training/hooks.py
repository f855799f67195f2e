"""What happens between optimizer steps, on the clock of images seen.

A hook is a callable with its moments: ``due(step)`` says when, ``__call__(module)`` does it. They run in the order
given: records first, then measurements, then the checkpoint that covers them, so that whatever a resumed run finds in
its checkpoint is already in its records.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import lightning as L
import torch

from dit import signals
from dit.data.draws import Draws
from dit.records import RecordWriter
from dit.rundir import RunDirectory
from dit.training.checkpoint import CheckpointManager
from dit.training.module import DiffusionModule
from dit.training.settings import ReadPoint
from dit.training.validation import validation_loss

log = logging.getLogger("dit")


class Hook(Protocol):
    """Something to do after certain steps."""

    def due(self, step: int) -> bool: ...

    def __call__(self, module: DiffusionModule) -> None: ...


class Sink(Protocol):
    """A copy of the records elsewhere (W&B); the JSONL file is the truth."""

    def record(self, row: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


@dataclass
class Recorder:
    """Writes rows of one run to its records and to the sinks; on rank 0 only."""

    run: str
    writer: RecordWriter
    train_flops_per_image: float
    sinks: Sequence[Sink] = ()

    def write(self, kind: str, **fields: Any) -> None:
        row = {"kind": kind, "run": self.run, **fields}
        self.writer.append(row)
        for sink in self.sinks:
            sink.record(row)

    def measured(self, kind: str, module: DiffusionModule, **fields: Any) -> None:
        """A row with the clock in it."""
        images = module.images_seen
        self.write(kind, images_seen=images, train_flops=images * self.train_flops_per_image, **fields)


class Clock(L.Callback):
    """Runs the hooks that are due after each step, then looks whether somebody asked to stop."""

    def __init__(self, hooks: Iterable[Hook]) -> None:
        self.hooks = list(hooks)
        self.stopped_by: str | None = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, DiffusionModule)
        for hook in self.hooks:
            if hook.due(pl_module.steps_done):
                hook(pl_module)
        self.stopped_by = _agreed_stop(trainer)
        if self.stopped_by:
            trainer.should_stop = True


def _agreed_stop(trainer: L.Trainer) -> str | None:
    """The stop request of any rank, known to all of them after the same step."""
    name = signals.stop_requested()
    if trainer.world_size > 1:
        flag = torch.tensor(float(name is not None), device=trainer.strategy.root_device)
        torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
        name = name or ("another rank" if flag.item() else None)
    return name


@dataclass
class TrainRecords:
    """A ``train`` record every so many steps: mean loss since the last, gradient norm, learning rate."""

    every: int
    recorder: Recorder

    def due(self, step: int) -> bool:
        return step % self.every == 0

    def __call__(self, module: DiffusionModule) -> None:
        self.recorder.measured("train", module, **module.read_meters(), lr=module.learning_rate())


@dataclass
class Validation:
    """Validation loss of the raw weights and of every average, at the read points."""

    points: dict[int, ReadPoint]
    draws: Draws
    labels: torch.Tensor
    recorder: Recorder

    def due(self, step: int) -> bool:
        return step in self.points

    def __call__(self, module: DiffusionModule) -> None:
        for weights in ("raw", *module.averages.profiles):
            with module.averages.applied(module.network, weights):
                loss, loss_bins = validation_loss(module.denoiser, self.draws, self.labels)
            self.recorder.measured(
                "validation",
                module,
                budget_flops=self.points[module.steps_done].budget_flops,
                weights=weights,
                loss=loss,
                loss_bins=loss_bins,
                log_snr_edges=self.draws.edges.tolist(),
                n_draws=len(self.draws),
                draws_hash=self.draws.sha256,
            )


@dataclass
class Samples:
    """Measures of generated images at the read points, by a function that the verb hands in.

    Args:
        points: when.
        measure: (denoiser, budget label) -> fields of the ``samples`` record.
        weights: the average to sample from.
        recorder: where the row goes.
    """

    points: dict[int, ReadPoint]
    measure: Callable[[Any, str, str], dict[str, Any]]
    weights: str
    recorder: Recorder

    def due(self, step: int) -> bool:
        return step in self.points

    def __call__(self, module: DiffusionModule) -> None:
        budget = self.points[module.steps_done].budget_flops
        with module.averages.applied(module.network, self.weights), torch.no_grad():
            fields = self.measure(module.denoiser, f"images-{module.images_seen:012d}", self.weights)
        self.recorder.measured("samples", module, budget_flops=budget, weights=self.weights, **fields)


@dataclass
class Checkpoints:
    """A checkpoint every so many steps; those at read points are kept for good."""

    every: int
    points: dict[int, ReadPoint]
    manager: CheckpointManager
    recorder: Recorder
    config_hash: str

    def due(self, step: int) -> bool:
        return step % self.every == 0 or step in self.points

    def __call__(self, module: DiffusionModule) -> None:
        facts = {
            "step": module.steps_done,
            "config_hash": self.config_hash,
            "records_bytes": self.recorder.writer.offset,
        }
        keep = module.steps_done in self.points
        self.manager.save(module.state_tensors(), module.images_seen, facts, keep=keep)


@dataclass
class Progress:
    """Heartbeat, and a line for people, at most every few seconds.

    Args:
        run_directory: gets the status.
        total_images: the clock at the end.
        train_flops_per_image: for the rate of computation.
        every_seconds: spacing of heartbeats; lines come every five of them.
    """

    run_directory: RunDirectory
    total_images: int
    train_flops_per_image: float
    every_seconds: float = 2.0
    _last: tuple[float, int] = field(default_factory=lambda: (0.0, 0))
    _beats: int = 0

    def due(self, step: int) -> bool:
        return time.monotonic() - self._last[0] >= self.every_seconds

    def __call__(self, module: DiffusionModule) -> None:
        now, images = time.monotonic(), module.images_seen
        then, images_then = self._last
        self._last = (now, images)
        if not then:
            return
        rate = (images - images_then) / (now - then)
        total, count, norm = module.meters.tolist()
        loss = total / count if count else None
        eta = (self.total_images - images) / rate if rate else None
        self.run_directory.write_status(
            "running",
            images_seen=images,
            total_images=self.total_images,
            images_per_second=rate,
            flops_per_second=rate * self.train_flops_per_image,
            loss=loss,
            eta_seconds=eta,
        )
        self._beats += 1
        if self._beats % 5 == 1:
            shown = "-" if loss is None else f"{loss:.4f}"
            log.info(
                f"{images}/{self.total_images} images, loss {shown}, grad norm {norm:.3g}, "
                f"lr {module.learning_rate():.3g}, {rate:.0f} images/s, ETA {eta or 0:.0f} s"
            )
