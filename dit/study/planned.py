"""What a plan is made of: the grid that is asked for, its runs with their readings, and the plan itself.

Imports no torch.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dit.errors import InputError, check_name, check_number
from dit.fits.points import Points
from dit.network.counting import Counts
from dit.overrides import override
from dit.study.forecast import Expectation
from dit.study.price import Price


@dataclass(frozen=True)
class Grid:
    """What a study asks for.

    Args:
        name: of the study.
        budgets_flops: training compute of each budget, ascending.
        widths: network widths, ascending; empty: chosen around the expected best sizes.
        min_images: a width serves no budget at which it would see fewer images than this.
        max_images: nor one at which it would see more.
        seeds: repetitions of every run.
        sizes: of chosen widths, how many serve each budget.
        span: of chosen widths, the largest over the smallest size of a budget.
        cooldown_share: of a cool-down branch, the share of its images in which the rate falls to 0; None: no branches.
        extra_seeds: of a few cells alone, see ``dit.study.further``.
        cells: (width, budget, seed) of runs beside the grid.
        rates: learning rates of a sweep in place of the grid, before the rule that moves them with the width.
    """

    name: str
    budgets_flops: Sequence[float]
    widths: Sequence[int]
    min_images: int
    max_images: int
    seeds: Sequence[int] = (0,)
    sizes: int = 7
    span: float = 16.0
    cooldown_share: float | None = None
    extra_seeds: Sequence[int] = ()
    cells: Sequence[Sequence[Any]] = ()
    rates: Sequence[float] = ()

    def __post_init__(self) -> None:
        check_name("study.name", self.name)
        for key in ("budgets_flops", "widths", "seeds", "extra_seeds"):
            values = getattr(self, key)
            if not isinstance(values, (list, tuple)) or not (values or key in ("widths", "extra_seeds")):
                raise InputError(f"study.{key}", values, "a list of at least one number")
            for value in values:
                low = {"low": 0} if key.endswith("seeds") else {"above": 0}
                check_number(f"study.{key}", value, integer=key != "budgets_flops", **low)  # type: ignore[arg-type]
            if sorted(set(values)) != list(values):
                raise InputError(f"study.{key}", list(values), "ascending numbers, each once")
        for cell in self.cells:
            if not isinstance(cell, (list, tuple)) or len(cell) != 3:
                raise InputError("study.cells", cell, "a list of [width, budget, seed]")
            check_number("study.cells: width", cell[0], above=0, integer=True)
            check_number("study.cells: budget", cell[1], above=0.0)
            check_number("study.cells: seed", cell[2], low=0, integer=True)
        if len({(width, seed) for width, _, seed in self.cells}) < len(self.cells):
            raise InputError("study.cells", list(self.cells), "each width and seed once")
        check_number("study.min_images", self.min_images, low=1, integer=True)
        check_number("study.max_images", self.max_images, low=self.min_images, integer=True)
        check_number("study.sizes", self.sizes, low=2, integer=True)
        check_number("study.span", self.span, above=1.0)
        if self.cooldown_share is not None:
            check_number("study.cooldown_share", self.cooldown_share, above=0.0, below=1.0)


@dataclass(frozen=True)
class Reading:
    """One cell of the grid: a run read at a budget."""

    budget_flops: float
    steps: int
    images: int
    flops: float


@dataclass(frozen=True)
class PlannedRun:
    """One training run and the budgets that it serves; or a branch of one that cools down from a budget on.

    Args:
        name: of the run.
        width: of the network.
        seed: of the run.
        counts: of the network.
        readings: where it is read; of a branch its end alone.
        branch_of: the run that it begins from.
        branch_images: the clock at which it does.
        rate: the learning rate of a sweep's run; None: the study's.
    """

    name: str
    width: int
    seed: int
    counts: Counts
    readings: tuple[Reading, ...]
    branch_of: str | None = None
    branch_images: int = 0
    rate: float | None = None

    @property
    def budgets_flops(self) -> list[float]:
        """The budgets that it is read at."""
        return [reading.budget_flops for reading in self.readings]

    @property
    def flops(self) -> float:
        """Training compute of the whole run; of a branch from where it begins."""
        return self.readings[-1].flops - self.branch_images * self.counts.train_flops_per_image

    def overrides(self) -> list[str]:
        """The ``dit train`` command line that makes this run, besides the study's own and, of a branch, its start."""
        budgets = [] if self.branch_of else [repr(budget) for budget in self.budgets_flops]
        cooldown = self.readings[-1].images - self.branch_images
        branch = ["schedule=wsd", f"schedule.cooldown_images={cooldown}", "schedule.cooldown_share=null"]
        return [
            override("run_name", self.name),
            f"network.width={self.width}",
            f"seed={self.seed}",
            f"duration.steps={self.readings[-1].steps}",
            "duration.images=null",
            "duration.flops=null",
            f"read_at_flops=[{','.join(budgets)}]",
            *(branch if self.branch_of else ()),
            *(() if self.rate is None else (f"optimizer.lr={self.rate!r}",)),
        ]

    def as_dict(self, price: Price | None, n_train: int | None) -> dict[str, Any]:
        """The run as JSON values."""
        return {
            "name": self.name,
            "width": self.width,
            "seed": self.seed,
            "n_params_total": self.counts.n_params_total,
            "macs_per_image": self.counts.macs_per_image,
            "macs_per_token": self.counts.macs_per_token,
            "train_flops_per_image": self.counts.train_flops_per_image,
            "readings": [vars(reading) for reading in self.readings],
            "flops": self.flops,
            "gpu_hours": price.device_hours(self.flops, self.counts.macs_per_token) if price else None,
            "epochs": self.readings[-1].images / n_train if n_train else None,
            "overrides": self.overrides(),
            "branch_of": self.branch_of,
            "branch_images": self.branch_images,
        }


@dataclass(frozen=True)
class Plan:
    """The runs of a study, their price, what they will tell, and what is questionable about them.

    Args:
        grid: what was asked for, with its widths.
        runs: the runs whose readings are points of the laws.
        n_train: training images; None where unknown.
        price: None where no rate is known.
        expected: the law that the plan is judged by; None without an outlook.
        forecast: see ``dit.study.forecast``.
        warnings: in words.
        branches: cool-down branches of the runs.
        n_held_out: images that the loss is measured on; None where unknown.
        overhead: FLOPs of what is computed beside training, see ``dit.study.overhead``.
    """

    grid: Grid
    runs: tuple[PlannedRun, ...]
    n_train: int | None
    price: Price | None = None
    expected: Expectation | None = None
    forecast: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    branches: tuple[PlannedRun, ...] = ()
    n_held_out: int | None = None
    overhead: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def all_runs(self) -> tuple[PlannedRun, ...]:
        """The runs, and the branches behind them."""
        return (*self.runs, *self.branches)

    @property
    def flops(self) -> float:
        """Training compute of all runs and branches."""
        return sum(run.flops for run in self.all_runs)

    @property
    def device_hours(self) -> float | None:
        """Hours of one device for the training of all runs and branches; None without a price."""
        if self.price is None:
            return None
        return sum(self.price.device_hours(run.flops, run.counts.macs_per_token) for run in self.all_runs)

    @property
    def tokens(self) -> int:
        """Tokens of one image."""
        return self.runs[0].counts.tokens

    @property
    def budgets_flops(self) -> list[float]:
        """The budgets of the grid and of the cells beside it, rising."""
        return sorted({*self.grid.budgets_flops, *(budget for _, budget, _ in self.grid.cells)})

    def sizes(self, budget: float) -> list[float]:
        """Sizes that are read at a budget, in multiply-adds per token, rising."""
        return sorted({run.counts.macs_per_token for run in self.runs if budget in run.budgets_flops})

    def best_size(self, budget: float) -> float:
        """The expected best size at a budget, or the middle of its sizes where nothing is expected."""
        if self.expected is not None:
            return float(self.expected.law.n_opt(budget))
        return math.exp(float(np.mean(np.log(self.sizes(budget)))))

    def points(self) -> Points:
        """The readings as points of a fit; their losses are 1."""
        rows = [(run, reading) for run in self.runs for reading in run.readings]
        columns = {
            "n": [run.counts.macs_per_token for run, _ in rows],
            "d": [reading.images for _, reading in rows],
            "c": [reading.flops for _, reading in rows],
            "budget": [reading.budget_flops for _, reading in rows],
        }
        arrays = {name: np.array(values, float) for name, values in columns.items()}
        return Points(np.ones(len(rows)), run=np.array([run.name for run, _ in rows]), **arrays)

    def cost(self) -> dict[str, Any] | None:
        """What training costs, what is computed beside it at the same rate, and all of it; None without a price."""
        hours = self.device_hours
        if self.price is None or hours is None:
            return None
        beside = sum(flops for flops in self.overhead.values() if flops is not None)
        return {
            **self.price.of(self.flops, hours),
            "beside": {
                name: {"flops": flops, "gpu_hours": None if flops is None else hours * flops / self.flops}
                for name, flops in self.overhead.items()
            },
            "whole": self.price.of(self.flops + beside, hours * (1 + beside / self.flops)),
        }

    def as_dict(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return {
            "study": self.grid.name,
            "budgets_flops": self.budgets_flops,
            "runs": [run.as_dict(self.price, self.n_train) for run in self.all_runs],
            "total_flops": self.flops,
            "cost": self.cost(),
            "forecast": self.forecast,
            "warnings": list(self.warnings),
        }
