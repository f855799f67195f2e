"""What calls the hooks between optimizer steps, on the clock of images seen.

A hook is a callable with its moments: ``due(step)`` says when, ``__call__(module)`` does it. They run in the order
given: records first, then the checkpoint that covers them, then measurements, which may take long. A resumed run keeps
the measurements that its records hold of its checkpoint's clock, makes those that are missing, and drops all rows
behind.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import lightning as L

from dit.training.guards import LOST
from dit.training.module import DiffusionModule


class Hook(Protocol):
    """Something to do after certain steps."""

    def due(self, step: int) -> bool: ...

    def __call__(self, module: DiffusionModule) -> None: ...


class Measure(Hook, Protocol):
    """A hook that reads the weights and writes a fixed number of records; it may take hours."""

    n_rows: int


class Clock(L.Callback):
    """Runs the hooks that are due after each step, then the measures, then stops where any rank asked for it.

    The ranks agree on that inside the step (``Guards.agree``), so all of them stop after the same one. The
    hooks save before anything is measured, so a stop need not wait for measures: they are left to the resumed run.
    A step's numbers are waited for only where hooks or measures are due.

    Args:
        hooks: after each step; due after the same ones on every rank.
        measures: after them; between two of them the ranks look again whether to stop.
        left: measures that are due at the start, since the run before did not come to them.
        alive: a context for the length of a measure, which says that this process has not died.
        progress: looks on, whenever it likes, at what is known by then.
    """

    def __init__(
        self,
        hooks: Iterable[Hook],
        measures: Iterable[Measure],
        left: Iterable[Measure],
        alive: Callable[[], AbstractContextManager[None]],
        progress: Hook | None = None,
    ) -> None:
        self.hooks, self.measures, self.left, self.alive = list(hooks), list(measures), list(left), alive
        self.progress = progress

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, DiffusionModule)
        self._measure(pl_module)
        trainer.should_stop = bool(pl_module.guards.stopped_by)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, DiffusionModule)
        module, guards, step = pl_module, pl_module.guards, pl_module.steps_done
        if guards.stopped_by or any(each.due(step) for each in (*self.hooks, *self.measures)):
            guards.settle()
        if guards.stopped_by not in LOST:
            for hook in self.hooks:
                if hook.due(step):
                    hook(module)
            if self.progress is not None and self.progress.due(step):
                self.progress(module)
            self.left = [measure for measure in self.measures if measure.due(step)]
            self._measure(module)
        if guards.stopped_by:
            trainer.should_stop = True

    def _measure(self, module: DiffusionModule) -> None:
        while self.left:
            module.guards.agree_to_stop(module.edges.device)
            if module.guards.stopped_by:
                return
            with self.alive():
                self.left[0](module)
            del self.left[0]
