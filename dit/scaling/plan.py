"""From budgets to a grid of runs at exact compute.

A study trains one run per network width. Constant learning rate and averaged weights let one run be read at every
budget below its last, so a width costs its largest budget once. Which budgets a width serves follows from the window of
images: too few, and the warm-up and the step size show; too many, and the run repeats its data too often.
Imports no torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dit.errors import InputError, check_number
from dit.network.counting import Counts

LARGEST_MISS = 0.01  # |C_actual / C - 1| of any planned reading
WARMUP_SHARE = 20  # no budget is read before this many times the warm-up
FEWEST_SIZES = 5  # per budget, for a parabola whose minimum means something
MOST_EPOCHS = 10  # beyond it, repeated data begins to matter


@dataclass(frozen=True)
class Grid:
    """What a study asks for.

    Args:
        name: of the study.
        budgets_flops: training compute of each budget, ascending.
        widths: network widths, ascending.
        min_images: a width serves no budget at which it would see fewer images than this.
        max_images: nor one at which it would see more.
        seeds: repetitions of every run.
        flops_per_second: assumed rate of one job, for the price.
    """

    name: str
    budgets_flops: Sequence[float]
    widths: Sequence[int]
    min_images: int
    max_images: int
    seeds: Sequence[int] = (0,)
    flops_per_second: float = 4e10

    def __post_init__(self) -> None:
        for key in ("budgets_flops", "widths", "seeds"):
            values = getattr(self, key)
            if not isinstance(values, (list, tuple)) or not values:
                raise InputError(f"study.{key}", values, "a list of at least one number")
            for value in values:
                low = {"low": 0} if key == "seeds" else {"above": 0}
                check_number(f"study.{key}", value, integer=key != "budgets_flops", **low)  # type: ignore[arg-type]
            if sorted(set(values)) != list(values):
                raise InputError(f"study.{key}", list(values), "ascending numbers, each once")
        check_number("study.min_images", self.min_images, low=1, integer=True)
        check_number("study.max_images", self.max_images, low=self.min_images, integer=True)
        check_number("study.flops_per_second", self.flops_per_second, above=0)


@dataclass(frozen=True)
class Reading:
    """One cell of the grid: a run read at a budget."""

    budget_flops: float
    steps: int
    images: int
    flops: float


@dataclass(frozen=True)
class PlannedRun:
    """One training run and the budgets that it serves."""

    name: str
    width: int
    seed: int
    counts: Counts
    readings: tuple[Reading, ...]

    @property
    def flops(self) -> float:
        """Training compute of the whole run."""
        return self.readings[-1].flops

    def overrides(self) -> list[str]:
        """The ``dit train`` command line that makes this run, besides the study's own."""
        budgets = ",".join(repr(reading.budget_flops) for reading in self.readings)
        return [
            f"run_name={self.name}",
            f"network.width={self.width}",
            f"seed={self.seed}",
            f"duration.steps={self.readings[-1].steps}",
            "duration.images=null",
            "duration.flops=null",
            f"read_at_flops=[{budgets}]",
        ]


@dataclass(frozen=True)
class Plan:
    """The runs of a study, and what is questionable about them."""

    grid: Grid
    runs: tuple[PlannedRun, ...]
    warnings: tuple[str, ...]
    n_train: int | None

    @property
    def flops(self) -> float:
        """Training compute of all runs."""
        return sum(run.flops for run in self.runs)

    def as_dict(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return {
            "study": self.grid.name,
            "budgets_flops": list(self.grid.budgets_flops),
            "runs": [_run_dict(run, self) for run in self.runs],
            "total_flops": self.flops,
            "total_hours": self.flops / self.grid.flops_per_second / 3600,
            "assumed_flops_per_second": self.grid.flops_per_second,
            "warnings": list(self.warnings),
        }


def make_plan(
    grid: Grid, count: Callable[[int], Counts], batch_size: int, warmup_images: int, n_train: int | None
) -> Plan:
    """The runs that a grid asks for.

    Args:
        grid: budgets, widths and the window of images.
        count: width -> parameters and multiply-adds of that network on the study's data.
        batch_size: images per step; a reading is a whole number of steps.
        warmup_images: of the learning rate.
        n_train: training images, for the number of epochs; None where unknown.

    Raises:
        InputError: no width serves any budget, or the window lets budgets be read inside the warm-up.
    """
    if grid.min_images < WARMUP_SHARE * warmup_images:
        raise InputError(
            "study.min_images",
            grid.min_images,
            f"at least {WARMUP_SHARE} x warmup_images = {WARMUP_SHARE * warmup_images}",
            "Shorten warmup_images or raise study.min_images.",
        )
    runs, warnings = [], []
    for width in grid.widths:
        counts = count(width)
        readings = _readings(grid, counts.train_flops_per_image, batch_size, width, warnings)
        for seed in grid.seeds if readings else ():
            name = f"w{width:04d}" + (f"-s{seed}" if len(grid.seeds) > 1 else "")
            runs.append(PlannedRun(name, width, seed, counts, readings))
        if not readings:
            warnings.append(f"width {width} serves no budget within the window of images and is left out")
    if not runs:
        raise InputError(
            "study.budgets_flops",
            list(grid.budgets_flops),
            f"budgets that some width reaches with {grid.min_images} to {grid.max_images} images",
            "Widen study.min_images..study.max_images or change study.widths.",
        )
    warnings += _grid_warnings(grid, runs, n_train)
    return Plan(grid, tuple(runs), tuple(warnings), n_train)


def _readings(
    grid: Grid, flops_per_image: float, batch_size: int, width: int, warnings: list[str]
) -> tuple[Reading, ...]:
    readings = []
    for budget in grid.budgets_flops:
        steps = round(budget / (flops_per_image * batch_size))
        images = steps * batch_size
        if not grid.min_images <= images <= grid.max_images:
            continue
        flops = images * flops_per_image
        if abs(flops / budget - 1) > LARGEST_MISS:
            warnings.append(
                f"width {width} misses {budget:.3g} FLOPs by over 1 % at batch {batch_size}: not read there"
            )
            continue
        readings.append(Reading(budget, steps, images, flops))
    return tuple(readings)


def _grid_warnings(grid: Grid, runs: Sequence[PlannedRun], n_train: int | None) -> list[str]:
    warnings = []
    for budget in grid.budgets_flops:
        served = [run for run in runs if any(reading.budget_flops == budget for reading in run.readings)]
        sizes = sorted({run.width for run in served})
        if len(sizes) < FEWEST_SIZES:
            warnings.append(
                f"budget {budget:.3g}: {len(sizes)} sizes ({', '.join(map(str, sizes)) or 'none'}); "
                f"{FEWEST_SIZES} or more make a trustworthy minimum"
            )
    if n_train:
        epochs = max(run.readings[-1].images for run in runs) / n_train
        if epochs > MOST_EPOCHS:
            warnings.append(
                f"up to {epochs:.0f} epochs over {n_train} images: the fits hold for this data set repeated, "
                "not for fresh data"
            )
    return warnings


def _run_dict(run: PlannedRun, plan: Plan) -> dict[str, Any]:
    return {
        "name": run.name,
        "width": run.width,
        "seed": run.seed,
        "n_params_total": run.counts.n_params_total,
        "macs_per_image": run.counts.macs_per_image,
        "train_flops_per_image": run.counts.train_flops_per_image,
        "readings": [vars(reading) for reading in run.readings],
        "flops": run.flops,
        "hours": run.flops / plan.grid.flops_per_second / 3600,
        "epochs": run.readings[-1].images / plan.n_train if plan.n_train else None,
        "overrides": run.overrides(),
    }
