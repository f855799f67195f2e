"""What the ranks agree on in each step, and what follows from it: to stop, to skip, to go back, to note a spike.

S: reasons to stop, K: bins of log-SNR.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dit.errors import RunError
from dit.training.meters import Meters
from dit.training.settings import Settings

# Reasons to stop, the first that any rank has being that of all: a newer copy of this job owns the run, or its
# directory is gone (nothing is written any more); somebody ended it (SIGTERM, SIGINT); its time is nearly up (SIGUSR1,
# SIGUSR2, max_time).
LOST = ("superseded", "removed")
STOPS = (*LOST, "signal to end", "notice")
MOST_SKIPPED = 10  # steps in a row whose loss or gradient is not finite: such a run will not come back


class DivergedError(RunError):
    """The loss or the gradient is no longer finite; the weights were not touched."""


class RollBack(Exception):
    """Asks the engine to go back to the newest checkpoint and to pass over ``step`` from there."""

    def __init__(self, step: int, message: str) -> None:
        super().__init__(message)
        self.step = step


class Found(NamedTuple):
    """What the ranks found in a step, where it was computed.

    Attributes:
        numbers: (S + 2 + 2K,) float64: ranks with each of the S reasons to stop, the mean loss of the global batch,
            sums and numbers of the losses by bin, the norm of the gradient before clipping.
    """

    numbers: Tensor

    @property
    def norm(self) -> Tensor:
        """Of the gradient before clipping."""
        return self.numbers[-1]

    @property
    def is_finite(self) -> Tensor:
        """Whether loss and gradient are."""
        return self.numbers[len(STOPS)].isfinite() & self.norm.isfinite()


class _Kept(NamedTuple):
    """A step's numbers on their way to the host.

    Attributes:
        step: counted from 1.
        lr: its learning rate.
        numbers: as of ``Found``, on the host.
        arrived: passed by a GPU when they are there; None where they are.
    """

    step: int
    lr: float
    numbers: Tensor
    arrived: torch.cuda.Event | None


class Guards:
    """The ranks' agreement in each step, read one step later so that the host never waits for the device.

    Args:
        settings: what to do where loss or gradient is not finite.
        world_size: ranks that share the batch.
        meters: get the numbers of each step that is finite.

    Attributes:
        asks_to_stop: this rank's reason to stop, asked before each step.
        stopped_by: the reason of all ranks, once there is one.
        events: skipped steps and spikes of the loss that are not yet in the records.
    """

    def __init__(self, settings: Settings, world_size: int, meters: Meters) -> None:
        self.settings, self.world_size, self.meters = settings, world_size, meters
        self.asks_to_stop: Callable[[], str | None] = lambda: None
        self.stopped_by: str | None = None
        self.events: list[dict[str, Any]] = []
        self._skipped_in_a_row = 0
        self._kept: _Kept | None = None  # of the last step, until it is settled

    def agree(self, totals: Tensor, norm: Tensor, copies: int) -> Found:
        """What all ranks found, by the one collective of a step that is not the network's.

        Args:
            totals: (1 + 2K,) float64: this rank's mean loss, sums and numbers of the losses by bin.
            norm: of this rank's pieces of the gradient.
            copies: ranks that hold the same piece.
        """
        square = norm.double().square().reshape(1)
        numbers = torch.cat([self._wishes(totals.device), totals, square])
        if self.world_size > 1:
            torch.distributed.all_reduce(numbers)
            numbers[len(STOPS)] /= self.world_size
            numbers[-1] /= copies
        numbers[-1].sqrt_()
        return Found(numbers)

    def keep(self, found: Found, step: int, lr: float) -> None:
        """Settles the step before, which the device has long done, and keeps what was found in this one."""
        self.settle()
        arrived = None
        numbers = found.numbers.to("cpu", non_blocking=True)  # into pinned memory
        if found.numbers.is_cuda:
            arrived = torch.cuda.Event()
            arrived.record()
        self._kept = _Kept(step, lr, numbers, arrived)

    def settle(self) -> None:
        """Reads what the last step found, if it was not read yet: for the meters, the events and the reasons to stop.

        Every rank must call it after the same steps, since all of them act on it alike.

        Raises:
            DivergedError, RollBack: it was not finite, and the policy says so.
        """
        kept, self._kept = self._kept, None
        if kept is None:
            return
        if kept.arrived is not None:
            kept.arrived.synchronize()
        *numbers, norm = kept.numbers.tolist()
        loss, *bins = numbers[len(STOPS) :]
        self._grant(numbers[: len(STOPS)])
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._not_finite(kept, loss, norm)
            return
        self._skipped_in_a_row = 0
        before = self.meters.add(loss, norm, bins)
        if before is not None:
            self._event(
                "loss_spike", kept.step, loss=loss, grad_norm=norm, mean_before=before[0], sd_before=before[1]
            )

    def agree_to_stop(self, device: torch.device) -> None:
        """Finds out, outside of a step, whether any rank wants to stop; all ranks call it."""
        if self.stopped_by is None:
            wishes = self._wishes(device)
            if self.world_size > 1:
                torch.distributed.all_reduce(wishes)
            self._grant(wishes.tolist())

    def _wishes(self, device: torch.device) -> Tensor:
        wishes = torch.zeros(len(STOPS), dtype=torch.float64, device=device)
        if asked := self.asks_to_stop():
            wishes[STOPS.index(asked)] = 1
        return wishes

    def _grant(self, wishes: list[float]) -> None:
        asked = (reason for reason, ranks in zip(STOPS, wishes, strict=True) if ranks)
        self.stopped_by = next(asked, self.stopped_by)

    def _not_finite(self, kept: _Kept, loss: float, norm: float) -> None:
        message = (
            f"step {kept.step}: loss {loss:g}, gradient norm {norm:g} at learning rate {kept.lr:g}; "
            "the weights were left as they were. Lower optimizer.lr, or raise warmup_images."
        )
        if self.settings.on_nonfinite == "stop" or self._skipped_in_a_row == MOST_SKIPPED:
            raise DivergedError(message)
        if self.settings.on_nonfinite == "rollback":
            raise RollBack(kept.step, message)
        self._skipped_in_a_row += 1
        self._event("skipped", kept.step, loss=loss, grad_norm=norm)

    def _event(self, event: str, step: int, **fields: float) -> None:
        self.events.append({"event": event, "step": step, **fields})
