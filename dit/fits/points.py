"""The points of a fit: what was trained (N, D, C), what came out (loss), and its run and budget."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dit.errors import InputError, check_choice, check_number
from dit.fits.table import read_table, refuse_mixture

Array = np.ndarray
NUMBERS = ("n", "d", "c", "loss", "budget", "unique", "width", "depth")
DEFAULT_K = 6.0  # C = 6 N D, N parameters and D tokens: the convention of the language-model tables
SAME_BUDGET = 1e-3  # budgets given as numbers that differ by less are one, written with other digits
BUDGET_GAP = 0.10  # points whose compute differs by less than 10 % from the next belong to one budget
LARGEST = 1e100  # squares of anything between it and its inverse are numbers
SCATTER = 1.5  # a chain of such points wider than this factor is no budget; half-decade bins stand in
PROTOCOLS = {"protocol", "protocol_hash"}  # columns that are one wherever a file has them


@dataclass(frozen=True)
class Points:
    """Measured points of a scaling study, one entry per reading of a run.

    Args:
        loss: (n,) the measured quantity, positive (a loss, or a Fréchet distance).
        n: (n,) size N: parameters, or multiply-adds per token.
        d: (n,) data D: tokens or images seen.
        c: (n,) training compute C in FLOPs.
        run: (n,) names of runs; readings of one run are resampled together.
        budget: (n,) the compute budget a point was read at, FLOPs; near-equal C make one where it is absent.
        unique: (n,) unique tokens or images in the training data, for the law of repeated data.
        width: (n,) width of the network; depth: (n,) its layers: for laws of its shape.

    Raises:
        InputError: unequal lengths, values that are not positive and finite, the same reading twice.
    """

    loss: Array
    n: Array | None = None
    d: Array | None = None
    c: Array | None = None
    run: Array | None = None
    budget: Array | None = None
    unique: Array | None = None
    width: Array | None = None
    depth: Array | None = None

    def __post_init__(self) -> None:
        for name in NUMBERS:
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _positive(f"columns.{name}", getattr(self, name)))
        if self.run is not None:
            object.__setattr__(self, "run", np.asarray(self.run).astype(str))
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None and value.shape != self.loss.shape:
                raise InputError(
                    f"columns.{item.name}", value.shape, f"as many values as losses {self.loss.shape}"
                )
        _refuse_duplicates(self)

    @cached_property
    def _content(self) -> tuple[Any, ...]:
        values = (getattr(self, item.name) for item in fields(self))
        return tuple(None if value is None else (value.dtype.str, value.tobytes()) for value in values)

    def __eq__(self, other: object) -> bool:
        """Whether every value is the same."""
        return isinstance(other, Points) and self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)

    def __len__(self) -> int:
        return len(self.loss)

    def __getitem__(self, index: Any) -> "Points":
        """The points at ``index`` (a mask or positions)."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        taken: dict[str, Any] = {name: None if v is None else v[index] for name, v in values.items()}
        return Points(**taken)

    def get(self, name: str) -> Array:
        """The column of that name.

        Raises:
            InputError: it was not given and cannot be derived.
        """
        value = getattr(self, name)
        if value is None:
            raise InputError(f"columns.{name}", None, "the name of a column", "This law needs it.")
        return value

    def completed(self, k: float | None = None) -> "Points":
        """The same points with the missing one of N, D, C filled in from C = k N D (k = 6 unless given)."""
        if k is not None:
            check_number("flops_per_nd", k, above=0.0)
        k = k or DEFAULT_K
        if self.n is not None and self.d is not None and self.c is None:
            return replace(self, c=k * self.n * self.d)
        if self.n is not None and self.c is not None and self.d is None:
            return replace(self, d=self.c / (k * self.n))
        if self.d is not None and self.c is not None and self.n is None:
            return replace(self, n=self.c / (k * self.d))
        return self

    @cached_property
    def k(self) -> float:
        """FLOPs per unit of N times D: the geometric mean of C/(N D)."""
        return float(np.exp(np.mean(np.log(self.get("c") / (self.get("n") * self.get("d"))))))

    @cached_property
    def k_spread(self) -> float:
        """Largest |ln| by which a point's C/(N D) is off ``k``: 0 where C = k N D holds exactly."""
        ratio = self.get("c") / (self.get("n") * self.get("d"))
        return float(np.max(np.abs(np.log(ratio / self.k))))

    @cached_property
    def budget_kind(self) -> str:
        """Where budgets come from: given; grouped (runs of near-equal C); or binned, where C is scattered."""
        if self.budget is not None:
            return "given"
        log_c, index = np.log(self.get("c")), _groups(self.get("c"), BUDGET_GAP)
        spread = [np.ptp(log_c[index == i]) for i in range(index.max() + 1)]
        return "grouped" if max(spread) <= np.log(SCATTER) else "binned"

    @cached_property
    def budgets(self) -> Array:
        """(n,) index of each point's budget, in order of compute."""
        if self.budget is not None:
            return _groups(self.budget, SAME_BUDGET)
        if self.budget_kind == "grouped":
            return _groups(self.get("c"), BUDGET_GAP)
        return np.unique(np.round(2 * np.log10(self.get("c"))), return_inverse=True)[1]

    @cached_property
    def budget_flops(self) -> Array:
        """(budgets,) compute of each budget, FLOPs: the given one, or the geometric mean of its points."""
        if self.budget is not None:
            return self.budget[np.unique(self.budgets, return_index=True)[1]]
        log_c, index = np.log(self.get("c")), self.budgets
        return np.exp(np.bincount(index, log_c) / np.bincount(index))

    @cached_property
    def runs(self) -> Array:
        """(n,) index of each point's run; every point is a run of its own where no run column is given."""
        if self.run is None:
            return np.arange(len(self))
        return np.unique(self.run, return_inverse=True)[1]

    @cached_property
    def elapsed(self) -> Array:
        """(n,) ln D of each reading since its run's first (ln C where D is not known); 0 where neither is."""
        along = self.d if self.d is not None else self.c
        if along is None:
            return np.zeros(len(self))
        first = np.full(self.runs.max() + 1, np.inf)
        np.minimum.at(first, self.runs, np.log(along))
        return np.log(along) - first[self.runs]


def read_points(
    path: str | Path,
    columns: Mapping[str, str | None],
    where: Iterable[str] = (),
    drop_highest: int = 0,
    k: float | None = None,
) -> Points:
    """Points of a CSV file.

    Args:
        path: the file, with a header line.
        columns: name in Points -> name of the column; null ones are left out. ``protocol`` names a column that
            must be the same in every kept row, as a column of that name must in any case.
        where: conditions ``column < value`` (also <= > >= = !=) that kept rows meet.
        drop_highest: how many of the highest losses to drop as outliers, after ``where``.
        k: FLOPs per N D, to fill in whichever of N, D and C has no column; 6 unless given.

    Raises:
        InputError: no such file or column, a value that is no number, nothing left.
    """
    table = read_table(path).where(where)
    _refuse_shared(columns)
    values: dict[str, Any] = {}
    for name, column in columns.items():
        if column is None:
            continue
        check_choice("columns", name, [f.name for f in fields(Points)] + ["protocol"])
        if name == "run":
            values[name] = table.column("columns.run", column)
        elif name != "protocol":
            values[name] = table.numbers(f"columns.{name}", column)
    protocols = [head for head in table.header if head.strip().casefold() in PROTOCOLS]
    named = columns.get("protocol")
    for column in protocols if named is None else [*protocols, named]:
        refuse_mixture(table, "columns.protocol", column)
    if "loss" not in values:
        raise InputError("columns.loss", None, "a column of the file: " + ", ".join(table.header))
    return drop_outliers(Points(**values).completed(k), drop_highest)


def _refuse_shared(columns: Mapping[str, str | None]) -> None:
    """Raises InputError where two of N, D, C and the loss are one column, most likely by a slip."""
    seen: dict[str, str] = {}
    for name in ("n", "d", "c", "loss"):
        column = columns.get(name)
        if column is not None and seen.setdefault(column, name) != name:
            raise InputError(f"columns.{name}", column, f"another column than that of columns.{seen[column]}")


def drop_outliers(points: Points, highest: int) -> Points:
    """The points without the ``highest`` highest losses."""
    check_number("drop_highest", highest, low=0, high=len(points) - 1, integer=True)
    keep = np.sort(np.argsort(points.loss, kind="stable")[: len(points) - highest])
    return points[keep] if highest else points


def _groups(values: Array, gap: float) -> Array:
    """(n,) index of the group of each value, in rising order; a relative step above ``gap`` starts the next group."""
    order = np.argsort(values, kind="stable")
    index = np.empty(len(values), int)
    index[order] = np.concatenate([[0], np.cumsum(np.diff(np.log(values[order])) > np.log1p(gap))])
    return index


def _positive(key: str, values: Any) -> Array:
    array = np.array(values, float)
    wrong = np.flatnonzero(~((array > 1 / LARGEST) & (array < LARGEST)))
    if array.ndim != 1 or len(wrong):
        got = (
            f"({array.flat[wrong[0]]:g} at point {wrong[0] + 1}, {len(wrong)} such)"
            if len(wrong)
            else array.shape
        )
        allowed = f"positive finite numbers, from {1 / LARGEST:g} to {LARGEST:g}"
        raise InputError(key, got, allowed, "Laws are fitted to logarithms.")
    array.flags.writeable = False
    return array


def _refuse_duplicates(points: Points) -> None:
    if points.run is None:
        return
    seen: dict[Any, int] = {}
    columns = [value for value in (points.d, points.c) if value is not None]
    for i, name in enumerate(points.run):
        key = (name, *(column[i] for column in columns))
        if key in seen:
            got = f"(run {str(name)!r} is read twice at the same point, rows {seen[key] + 1} and {i + 1})"
            raise InputError("columns.run", got, "each reading of a run once", "Remove the copy.")
        seen[key] = i
