"""The values that figures and tables are made from; a drawing, a table, and why one is missing."""

import csv
import functools
from collections import defaultdict
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dit.columns import csv_text
from dit.fits.fitted import Fitted
from dit.report.words import number_text
from dit.study.readings import Points
from dit.study.records import Study
from dit.study.sampled import Samples

LOSS = "validation loss"
COMPUTE = "training compute C (FLOPs)"
SIZE = "network size N (multiply-adds per token)"
IMAGES = "images seen D"
SHOWN_ROWS = 60  # of a table, on the page
DRAWN = {
    "pairs": "resampling whole runs",
    "parametric": "with noise of runs and readings drawn afresh",
    "seeds": "with noise drawn afresh, as repeats under other seeds have it",
}
KIND = {"pairs": "bias-corrected percentiles"}  # percentiles as they are, by the other methods
LAWS = {"additive": "additive law", "data_limited": "law of repeated data"}  # as readers know them
FORMS = {
    "additive": "L = E + A/N^alpha + B/D^beta",
    "data_limited": "L = E + A/N'^alpha + B/D'^beta (2305.16264), N' and D' what N and D are worth",
}
NUMBERS = ("n_exponent", "n_exponent_sd", "d_exponent", "frechet_exponent")


@dataclass(frozen=True)
class Material:
    """A study, measured and fitted.

    Args:
        study: the records.
        points: validation losses at the budgets.
        samples: sample metrics by protocol; empty where none were measured.
        analysis: the fits as they are written to fits.json (see analysis.py for its keys).
        law: the primary law of N and D; None where none could be fitted.
        others: further studies that this one is compared with.
    """

    study: Study
    points: Points
    samples: list[Samples]
    analysis: dict[str, Any]
    law: Fitted | None = None
    others: tuple["Material", ...] = ()

    @property
    def draws(self) -> dict[str, np.ndarray]:
        """Bootstrap draws by parameter name, (R,) each; empty where no bootstrap could be made."""
        boot = self.law and self.law.drawn()
        return {name: getattr(boot.law, name) for name in ("E", "alpha", "beta", "a")} if boot else {}

    @property
    def law_name(self) -> str:
        """The primary law of N and D, in words."""
        return LAWS[self.analysis["additive"]["law"]]

    def predict(self, n: np.ndarray, d: np.ndarray) -> np.ndarray:
        """Losses of the primary law at sizes ``n`` and images seen ``d``; raises Missing where there is none."""
        if self.law is None:
            raise Missing(self.analysis["additive"]["why_not"])
        return self.law.fit.predict(n, d)

    @property
    def primary(self) -> dict[str, Any]:
        """The primary law of N and D as figures show it; raises Missing where none could be fitted."""
        if self.analysis["additive"]["primary"] is None:
            raise Missing(self.analysis["additive"]["why_not"])
        return self.analysis["additive"]["primary"]

    @property
    def least_losses(self) -> np.ndarray:
        """The least loss of each budget, (budgets,)."""
        return np.array([self.points.loss[self.points.budget == c].min() for c in self.points.budgets])

    @property
    def loss_label(self) -> str:
        """Axis label of the loss with the weights it was measured on."""
        return f"{LOSS} ({self.points.weights_name} weights)"


@dataclass(frozen=True)
class Drawn:
    """A finished figure: file name without ending, title, caption (plain text)."""

    name: str
    title: str
    figure: Figure
    caption: str


class Missing(Exception):
    """What the records do not allow to be drawn; the message says why and appears in the page."""


@dataclass(frozen=True)
class Table:
    """A table: file name without ending, title, column names, rows, and what the reader must know."""

    name: str
    title: str
    columns: list[str]
    rows: list[list[Any]]
    note: str = ""

    def csv(self) -> str:
        """All rows, numbers in full."""
        return csv_text([self.columns, *self.rows])

    def shown(self) -> list[list[str]]:
        """The rows as the page shows them, at most SHOWN_ROWS."""
        return [[number_text(cell) for cell in row] for row in self.rows[:SHOWN_ROWS]]


def method_text(m: Material, law: str | None = None, size: str | None = None) -> str:
    """The method behind the intervals of a law, or of each law where they differ.

    Args:
        m: the study.
        law: of this law alone.
        size: of this count of N alone.
    """
    chosen = [f for f in m.analysis["fits"] if law in (None, f["law"]) and size in (None, f["size"])]
    laws: dict[str, list[str]] = defaultdict(list)
    for fit in chosen:
        if fit["method"] is not None:
            laws[fit["method"]].append(fit["law"])
    if not laws:
        return "none were made"
    told = {
        method: f"{KIND.get(method, 'percentiles')} over bootstrap draws, each {DRAWN[method]}"
        for method in laws
    }
    if len(laws) == 1:
        return next(iter(told.values()))
    return "; ".join(f"{told[method]} ({', '.join(dict.fromkeys(names))})" for method, names in laws.items())


@functools.cache
def allocation_anchors() -> tuple[dict[str, Any], ...]:
    """The rows of anchors.csv: numbers as floats, None where the source gives none.

    Exponents are comparable between studies; coefficients are not (parameters against multiply-adds per
    token, text tokens against images) and are left out.
    """
    text = resources.files("dit.report").joinpath("anchors.csv").read_text(encoding="utf-8")
    rows = []
    for row in csv.DictReader(text.splitlines()):
        numbers = {name: float(row[name]) if row[name] else None for name in NUMBERS}
        rows.append({**row, **numbers})
    return tuple(rows)
