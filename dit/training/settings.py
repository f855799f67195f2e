"""What a training run is told, as plain checked values."""

import math
import re
from dataclasses import dataclass

from dit.errors import InputError, check_choice, check_number


@dataclass(frozen=True)
class Duration:
    """How long to train, in exactly one unit.

    Args:
        images: images seen; a multiple of the batch is reached by rounding to the nearest step.
        flops: training FLOPs (6 x forward multiply-adds x images).
        steps: optimizer steps.
    """

    images: int | None = None
    flops: float | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        given = {unit: value for unit, value in vars(self).items() if value is not None}
        if len(given) != 1:
            got = ", ".join(f"duration.{unit}={value}" for unit, value in given.items()) or "none"
            raise InputError(
                "duration",
                f"({got})",
                "exactly one of duration.images, duration.flops, duration.steps",
                "Set the others to null.",
            )
        unit, value = next(iter(given.items()))
        check_number(f"duration.{unit}", value, above=0, integer=unit != "flops")

    def in_images(self, batch_size: int) -> int | None:
        """Images at the end; None where only the network's cost on its data tells.

        Raises:
            InputError: they are less than one step's.
        """
        return None if self.flops is not None else self.in_steps(batch_size, math.nan) * batch_size

    def in_steps(self, batch_size: int, train_flops_per_image: float) -> int:
        """The nearest whole number of optimizer steps.

        Raises:
            InputError: it is less than one step.
        """
        if self.steps is not None:
            return self.steps
        images = self.images if self.images is not None else self.flops / train_flops_per_image  # type: ignore[operator]
        steps = round(images / batch_size)
        if steps < 1:
            raise InputError(
                "duration", f"({images:.3g} images)", f"at least one batch of {batch_size} images"
            )
        return steps


@dataclass(frozen=True)
class Settings:
    """The numbers of the training loop.

    Args:
        batch_size: global batch, images per optimizer step.
        seed: of every random stream.
        warmup_images: linear warm-up of the learning rate.
        label_dropout: probability of the null class, for classifier-free guidance.
        grad_clip: largest global gradient norm.
        log_every_images: spacing of ``train`` records.
        checkpoint_every_images: spacing of checkpoints.
        keep_every_images: of those, the ones kept for good; None keeps the newest and the read points alone.
        on_nonfinite: what to do at a loss or gradient that is not finite, which never reaches the weights: ``stop``;
            ``skip`` the step; ``rollback`` to the newest checkpoint and pass over that step from there.
    """

    batch_size: int
    seed: int
    warmup_images: int
    label_dropout: float
    grad_clip: float
    log_every_images: int
    checkpoint_every_images: int
    keep_every_images: int | None = None
    on_nonfinite: str = "stop"

    def __post_init__(self) -> None:
        check_number("batch_size", self.batch_size, low=1, integer=True)
        check_number("seed", self.seed, low=0, integer=True)
        check_number("warmup_images", self.warmup_images, low=0, integer=True)
        check_number("label_dropout", self.label_dropout, low=0, high=1)
        check_number("grad_clip", self.grad_clip, above=0)
        check_number("log_every_images", self.log_every_images, low=1, integer=True)
        check_number("checkpoint_every_images", self.checkpoint_every_images, low=1, integer=True)
        if self.keep_every_images is not None:
            check_number("keep_every_images", self.keep_every_images, low=1, integer=True)
        check_choice("on_nonfinite", self.on_nonfinite, ("stop", "skip", "rollback"))

    def in_steps(self, images: int) -> int:
        """A spacing in optimizer steps, at least one."""
        return max(1, images // self.batch_size)


@dataclass(frozen=True)
class ReadPoint:
    """A clock reading at which a run is measured.

    Attributes:
        step: optimizer step.
        budget_flops: the compute budget that is read here, or None.
    """

    step: int
    budget_flops: float | None


def read_points(
    budgets_flops: list[float], last_step: int, batch_size: int, train_flops_per_image: float
) -> list[ReadPoint]:
    """Where a run is measured: at each budget, and at its end.

    Raises:
        InputError: a budget that no step comes within 1 % of, or that lies behind the end.
    """
    points = {last_step: ReadPoint(last_step, None)}
    for budget in budgets_flops:
        check_number("read_at_flops", budget, above=0)
        step = round(budget / (batch_size * train_flops_per_image))
        actual = step * batch_size * train_flops_per_image
        if step > last_step:
            raise InputError("read_at_flops", budget, f"budgets up to the run's {last_step} steps")
        if abs(actual / budget - 1) > 0.01:
            raise InputError(
                "read_at_flops",
                budget,
                f"budgets within 1 % of a whole number of steps ({batch_size * train_flops_per_image:.3g} FLOPs each)",
                "Use a smaller batch, a larger budget or a smaller network.",
            )
        points[step] = ReadPoint(step, budget)
    return [points[step] for step in sorted(points)]


def seconds(max_time: str | None) -> float | None:
    """Seconds of ``[DD:]HH:MM:SS``; None for None.

    Raises:
        InputError: it is not of that form, or zero.
    """
    if max_time is None:
        return None
    match = re.fullmatch(r"(?:(\d+):)?(\d+):(\d\d):(\d\d)", str(max_time))
    found = 0
    if match:
        days, hours, minutes, rest = (int(part or 0) for part in match.groups())
        found = ((days * 24 + hours) * 60 + minutes) * 60 + rest
    if not found:
        raise InputError("max_time", max_time, 'a time as "HH:MM:SS" or "DD:HH:MM:SS", in quotes', "Or null.")
    return float(found)
