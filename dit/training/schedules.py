"""How the learning rate follows the clock: a schedule is its share of the peak as a function of images seen.

The warm-up is common to all schedules. ``images_seen`` is the clock after a step, its own images included: the first
step has a learning rate above 0, and the last one is at ``total_images``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from dit.errors import InputError, check_choice, check_number
from dit.training.settings import Settings


class Schedule(Protocol):
    """The learning rate's share of its peak over a run."""

    def check(self, total_images: int, warmup_images: int) -> None:
        """Raises InputError where the schedule does not fit into a run of ``total_images``."""
        ...

    def shared_until(self, total_images: int) -> int:
        """The clock up to which a run of this end is the same as any longer run: from there it may branch off."""
        ...

    def factor(self, images_seen: int, total_images: int, warmup_images: int) -> float:
        """The share, in [0, 1], in force for the step that ends at ``images_seen``."""
        ...


def warm_up(images_seen: int, warmup_images: int) -> float:
    """The share of the learning rate in force after ``images_seen``: linear from 0 to 1 over the warm-up."""
    return min(1.0, images_seen / warmup_images) if warmup_images else 1.0


@dataclass(frozen=True)
class Constant:
    """Warm-up, then the peak. It does not depend on the run's end, so one run serves every budget on its way."""

    def check(self, total_images: int, warmup_images: int) -> None:
        """Fits any run."""

    def shared_until(self, total_images: int) -> int:
        return total_images

    def factor(self, images_seen: int, total_images: int, warmup_images: int) -> float:
        return warm_up(images_seen, warmup_images)


def linear(x: float) -> float:
    """1 - x."""
    return 1 - x


def one_minus_sqrt(x: float) -> float:
    """1 - sqrt(x): falls steeply first; the best of those compared by Hägele et al. (their section 3)."""
    return 1 - math.sqrt(x)


COOLDOWN_SHAPES: dict[str, Callable[[float], float]] = {"linear": linear, "sqrt": one_minus_sqrt}


@dataclass(frozen=True)
class WarmupStableDecay:
    """Warm-up, the peak, and a cool-down to 0 over the last images.

    Only the cool-down depends on the run's end: a run at the peak can be branched at any moment (``shared_until``) and
    cooled down, one short branch per budget. A single run's reading before its cool-down is not that budget's result.

    Args:
        cooldown_images: length of the cool-down, or
        cooldown_share: the same as a share of the run; exactly one of the two.
        shape: ``linear``, or ``sqrt`` for 1 - sqrt(x), x from 0 to 1 over the cool-down.

    Source: Hu et al. 2024, arXiv 2404.06395, section 4; shapes and lengths: Hägele et al. 2024, arXiv 2405.18392.
    """

    cooldown_images: int | None = None
    cooldown_share: float | None = None
    shape: str = "sqrt"

    def __post_init__(self) -> None:
        if (self.cooldown_images is None) == (self.cooldown_share is None):
            got = f"(cooldown_images={self.cooldown_images}, cooldown_share={self.cooldown_share})"
            allowed = "exactly one of schedule.cooldown_images, schedule.cooldown_share"
            raise InputError("schedule", got, allowed, "Set the other to null.")
        if self.cooldown_images is not None:
            check_number("schedule.cooldown_images", self.cooldown_images, low=1, integer=True)
        else:
            check_number("schedule.cooldown_share", self.cooldown_share, above=0, high=1)
        check_choice("schedule.shape", self.shape, COOLDOWN_SHAPES)

    def check(self, total_images: int, warmup_images: int) -> None:
        """Raises InputError where warm-up and cool-down together are longer than the run."""
        cooldown = self._cooldown(total_images)
        if warmup_images + cooldown > total_images:
            raise InputError(
                "schedule",
                f"(a warm-up of {warmup_images} and a cool-down of {cooldown:g} images)",
                f"both within the run's {total_images} images",
                "Shorten them, or train longer.",
            )

    def shared_until(self, total_images: int) -> int:
        return max(0, math.floor(total_images - self._cooldown(total_images)))

    def factor(self, images_seen: int, total_images: int, warmup_images: int) -> float:
        cooldown = self._cooldown(total_images)
        progress = min(1.0, max(0.0, 1 - (total_images - images_seen) / cooldown))
        return warm_up(images_seen, warmup_images) * COOLDOWN_SHAPES[self.shape](progress)

    def _cooldown(self, total_images: int) -> float:
        if self.cooldown_images is not None:
            return self.cooldown_images
        assert self.cooldown_share is not None
        return self.cooldown_share * total_images


@dataclass(frozen=True)
class Cosine:
    """Warm-up, then half a cosine from the peak down to ``final_share`` of it at the run's end.

    Every step depends on the end, so each budget needs a run of its own.

    Args:
        final_share: the learning rate at the end over its peak, in [0, 1].

    Source: Loshchilov & Hutter 2017, arXiv 1608.03983, equation 5, without restarts.
    """

    final_share: float = 0.0

    def __post_init__(self) -> None:
        check_number("schedule.final_share", self.final_share, low=0, high=1)

    def check(self, total_images: int, warmup_images: int) -> None:
        """Raises InputError where the run ends within its warm-up."""
        if warmup_images >= total_images:
            raise InputError(
                "warmup_images", warmup_images, f"fewer than the run's {total_images} images with a cosine"
            )

    def shared_until(self, total_images: int) -> int:
        return 0

    def factor(self, images_seen: int, total_images: int, warmup_images: int) -> float:
        if images_seen < warmup_images:
            return warm_up(images_seen, warmup_images)
        progress = min(1.0, (images_seen - warmup_images) / (total_images - warmup_images))
        return self.final_share + (1 - self.final_share) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class Rate:
    """The learning rate over a run.

    Attributes:
        schedule: its share of the peak.
        total_images: the run's end.
        peak: the learning rate that the optimizer's rule gives this network.
    """

    schedule: Schedule
    total_images: int
    peak: float

    def at(self, images_seen: int, settings: Settings) -> float:
        """The learning rate of the step after ``images_seen``."""
        reached = images_seen + settings.batch_size
        return self.peak * self.schedule.factor(reached, self.total_images, settings.warmup_images)
