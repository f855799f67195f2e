"""Where the time of a training step goes, measured on the very steps that training makes."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from dit.training.batches import Batch
from dit.training.module import DiffusionModule


class Stopwatch:
    """Wall time by part; waits for the device at every boundary, so a part's time is its own."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, list[float]] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self._wait()
        start = time.perf_counter()
        yield
        self._wait()
        self.seconds.setdefault(name, []).append(time.perf_counter() - start)

    def medians(self) -> dict[str, float]:
        """Median seconds of each part."""
        return {name: statistics.median(values) for name, values in self.seconds.items()}

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def time_split(
    module: DiffusionModule, batch: Callable[[int], Batch], steps: int, warm_up: int, device: torch.device
) -> dict[str, float]:
    """Median seconds of a step's parts: data, forward, backward, optimizer, average; and of the whole step.

    Args:
        module: on its device, with ``module.optimizer`` as the trainer would hold it.
        batch: step -> batch, as the loader makes it.
        steps: timed steps.
        warm_up: steps before them.
        device: of the module.
    """
    module.to(device)
    optimizer = module.configure_optimizers()
    watch = Stopwatch(device)
    for step in range(warm_up + steps):
        if step == warm_up:
            watch.seconds.clear()
        with watch.part("step"):
            with watch.part("data"):
                made = batch(step)
                made = Batch(made.latents.to(device), made.labels.to(device), made.index, made.step)
            with watch.part("forward"):
                loss = module.loss(made)
            optimizer.zero_grad()
            with watch.part("backward"):
                loss.backward()
            with watch.part("optimizer"):
                module.clip_and_step(loss, optimizer)
            with watch.part("average"):
                module.after_step(loss)
    return watch.medians()


def train_figures(split: dict[str, float], batch_size: int, train_flops_per_image: float) -> dict[str, Any]:
    """Throughput and the share of each part, as JSON values."""
    step = split["step"]
    parts = {name: seconds for name, seconds in split.items() if name != "step"}
    parts["rest"] = max(0.0, step - sum(parts.values()))
    return {
        "images_per_second": batch_size / step,
        "train_flops_per_second": batch_size * train_flops_per_image / step,
        "step_seconds": step,
        "share": {name: seconds / step for name, seconds in parts.items()},
    }
