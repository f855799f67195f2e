"""What figures and tables are made from, and the two things they return: something drawn, or why it is
missing.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dit.fits.fitted import Fitted
from dit.study.readings import Points, Samples
from dit.study.records import Study

LOSS = "validation loss"
COMPUTE = "training compute C (FLOPs)"
SIZE = "network size N (multiply-adds per token)"
IMAGES = "images seen D"


@dataclass(frozen=True)
class Material:
    """A study, measured and fitted.

    Args:
        study: the records.
        points: validation losses at the budgets.
        samples: sample metrics by protocol; empty where none were measured.
        analysis: the fits as they are written to fits.json (see analysis.py for its keys).
        law: the primary additive law; None where none could be fitted.
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
