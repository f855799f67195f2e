"""What is done between optimizer steps: records, checkpoints, measures and a line for people."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from dit.condition import Condition
from dit.data.draws import Draws
from dit.diffusion.process import Process
from dit.launch import World
from dit.records import RecordWriter
from dit.rundir import RunDirectory
from dit.training.module import DiffusionModule
from dit.training.saving import CheckpointManager
from dit.training.settings import ReadPoint
from dit.training.validation import validation_loss
from dit.training.watching import Moment, Waiting, Work, peak_memory

log = logging.getLogger("dit")


class Sink(Protocol):
    """A copy of the records elsewhere (W&B); the JSONL file is the truth.

    ``watch`` gets what is never recorded, since it differs from one machine to another: rates, memory, waiting.
    """

    def record(self, row: dict[str, Any]) -> None: ...

    def watch(self, clock: dict[str, float], facts: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


@dataclass
class Recorder:
    """Writes rows of one run to its records and to the sinks; every rank calls it, rank 0 writes.

    Args:
        run: the run's name.
        writer: the records; None on other ranks.
        train_flops_per_image: the clock in FLOPs.
        sinks: copies elsewhere.
        may_write: asked before each row; False drops it (another process owns the run).
    """

    run: str
    writer: RecordWriter | None
    train_flops_per_image: float
    sinks: Sequence[Sink] = ()
    may_write: Callable[[], bool] = lambda: True

    def prefix(self) -> dict[str, Any]:
        """Length and hash of the records so far, for a checkpoint; rank 0's counts."""
        found = self.writer.prefix() if self.writer else {"bytes": 0, "sha256": None}
        return {f"records_{key}": value for key, value in found.items()}

    def write(self, kind: str, **fields: Any) -> None:
        if self.writer is None or not self.may_write():
            return
        row = {"kind": kind, "run": self.run, **fields}
        self.writer.append(row)
        for sink in self.sinks:
            sink.record(row)

    def measured(self, kind: str, module: DiffusionModule, **fields: Any) -> None:
        """A row with the run's clock in it."""
        self.at(module.images_seen, kind, **fields)

    def at(self, images_seen: int, kind: str, **fields: Any) -> None:
        """A row with a clock in it."""
        flops = images_seen * self.train_flops_per_image
        self.write(kind, images_seen=images_seen, train_flops=flops, **fields)


@dataclass
class Events:
    """An ``event`` record for each step that was skipped and each spike of the loss."""

    recorder: Recorder
    module: DiffusionModule

    def due(self, step: int) -> bool:
        return bool(self.module.guards.events)

    def __call__(self, module: DiffusionModule) -> None:
        for event in module.guards.events:
            self.recorder.at(event["step"] * module.settings.batch_size, "event", **event)
            log.warning(f"step {event['step']}: {_told(event)}")
        module.guards.events.clear()


def _told(event: dict[str, Any]) -> str:
    text = f"{event['event']}, loss {event['loss']:g}"
    if not event.get("sd_before"):
        return text
    sds = (event["loss"] - event["mean_before"]) / event["sd_before"]
    return f"{text}, {sds:.1f} standard deviations above the mean of {event['mean_before']:.4g} before it"


@dataclass
class TrainRecords:
    """A ``train`` record every so many steps: mean loss since the last, gradient norm, learning rate."""

    every: int
    recorder: Recorder

    def due(self, step: int) -> bool:
        return step % self.every == 0

    def __call__(self, module: DiffusionModule) -> None:
        if module.meters.count:  # else every step since the last record was skipped
            self.recorder.measured("train", module, **module.meters.read(), lr=module.learning_rate())


@dataclass
class Validation:
    """Validation loss of the raw weights and of every average, at the read points."""

    points: dict[int, ReadPoint]
    process: Process
    draws: Draws
    condition: Condition
    recorder: Recorder
    world: World
    n_rows: int

    def due(self, step: int) -> bool:
        return step in self.points

    def __call__(self, module: DiffusionModule) -> None:
        for weights in ("raw", *module.averages.profiles):
            with module.read(weights) as denoiser:
                loss, loss_bins = validation_loss(
                    self.process, denoiser, self.draws, self.condition, self.world
                )
            self.recorder.measured(
                "validation",
                module,
                budget_flops=self.points[module.steps_done].budget_flops,
                weights=weights,
                loss=loss,
                unit=self.process.unit,
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
    n_rows: int = 1

    def due(self, step: int) -> bool:
        return step in self.points

    def __call__(self, module: DiffusionModule) -> None:
        budget = self.points[module.steps_done].budget_flops
        with module.read(self.weights) as denoiser, torch.no_grad():
            fields = self.measure(denoiser, f"images-{module.images_seen:012d}", self.weights)
        self.recorder.measured("samples", module, budget_flops=budget, weights=self.weights, **fields)


@dataclass
class Checkpoints:
    """A checkpoint every so many steps; those at read points, and every ``keep_every`` steps, are kept for good."""

    every: int
    keep_every: int | None
    points: dict[int, ReadPoint]
    manager: CheckpointManager
    recorder: Recorder
    config_hash: str

    def due(self, step: int) -> bool:
        return step % self.every == 0 or self._is_kept(step)

    def _is_kept(self, step: int) -> bool:
        return step in self.points or (self.keep_every is not None and step % self.keep_every == 0)

    def __call__(self, module: DiffusionModule) -> None:
        facts = {
            "step": module.steps_done,
            "config_hash": self.config_hash,
            **self.recorder.prefix(),
        }
        keep = self._is_kept(module.steps_done)
        self.manager.save(module.state_tensors(), module.images_seen, facts, keep=keep)


@dataclass
class Progress:
    """Heartbeat, and a line for people, at most every few seconds.

    Args:
        run_directory: gets the status.
        work: what there is to do, and with what.
        waiting: knows how long the step waited for data.
        device: whose memory is shown.
        sinks: get the rates.
        every_seconds: spacing of heartbeats; lines come every five of them.
    """

    run_directory: RunDirectory
    work: Work
    waiting: Waiting
    device: torch.device
    sinks: Sequence[Sink] = ()
    every_seconds: float = 2.0
    _last: Moment | None = None
    _beats: int = 0

    def due(self, step: int) -> bool:
        return self._last is None or time.monotonic() - self._last.seconds >= self.every_seconds

    def __call__(self, module: DiffusionModule) -> None:
        then, now = self._last, Moment(time.monotonic(), module.images_seen, self.waiting.seconds)
        self._last = now
        if then is None:
            return
        rates = {**self.work.rates(then, now), "peak_memory_bytes": peak_memory(self.device)}
        facts = {**rates, "loss": module.meters.loss, "grad_norm": module.meters.grad_norm}
        images = module.images_seen
        clock = {"images_seen": images, "train_flops": images * self.work.train_flops_per_image}
        for sink in self.sinks:
            sink.watch(clock, rates)
        self.run_directory.write_status(
            "running",
            images_seen=module.images_seen,
            step=module.steps_done,
            total_images=self.work.total_images,
            **facts,
        )
        self._beats += 1
        if self._beats % 5 == 1:
            log.info(_line(module, self.work.total_images, facts))


def _line(module: DiffusionModule, total_images: int, facts: dict[str, Any]) -> str:
    loss, mfu = facts["loss"], facts["mfu"]
    parts = [
        f"{module.images_seen}/{total_images} images",
        f"loss {'-' if loss is None else format(loss, '.4f')}",
        f"grad norm {facts['grad_norm']:.3g}",
        f"lr {module.learning_rate():.3g}",
        f"{facts['images_per_second']:.0f} images/s",
        *([f"MFU {mfu:.1%}"] if mfu is not None else []),
        f"{facts['peak_memory_bytes'] / 2**30:.1f} GiB",
        f"data wait {facts['data_wait_share']:.0%}",
        f"ETA {facts['eta_seconds'] or 0:.0f} s",
    ]
    return ", ".join(parts)
