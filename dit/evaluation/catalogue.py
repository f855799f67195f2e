"""The metrics: what each compares, what it needs of the two sets, and how few images it takes."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from dit.errors import InputError, check_choice
from dit.evaluation.metrics import (
    INFINITY_SIZES,
    SCORE_SPLITS,
    frechet_at_infinity,
    frechet_distance,
    inception_score,
    kernel_distance,
)
from dit.evaluation.neighbours import NEIGHBOURHOOD, memorisation, precision_recall

LACKING = {  # of a reference, and what helps
    "features": ("(statistics alone)", "a reference measured from images, with its features kept"),
    "spatial": ("(no spatial statistics)", "a reference with mu_s and sigma_s"),
}


@dataclass(frozen=True)
class Metric:
    """A comparison of a measured sample with a measured reference.

    Attributes:
        function: (sample, reference), both ``Measured`` -> numbers, by the names under which records keep them.
        sample: the part of ``Measured`` that it reads of the sample besides ``stats``; None for none.
        reference: the part that it reads of the reference besides ``stats``.
        fewest: images below which it cannot be computed.
    """

    function: Callable[[Any, Any], Mapping[str, float | int]]
    sample: str | None = None
    reference: str | None = None
    fewest: int = 2


METRICS = {
    "fd": Metric(lambda a, b: {"frechet_distance": frechet_distance(a.stats, b.stats)}),
    "sfid": Metric(
        lambda a, b: {"spatial_frechet_distance": frechet_distance(a.spatial, b.spatial)},
        "spatial",
        "spatial",
    ),
    "is": Metric(lambda a, b: inception_score(a.logits), "logits", fewest=SCORE_SPLITS),
    "fd_infinity": Metric(
        lambda a, b: frechet_at_infinity(a.features, b.stats), "features", fewest=INFINITY_SIZES
    ),
    "kid": Metric(lambda a, b: kernel_distance(a.features, b.features), "features", "features"),
    "precision_recall": Metric(
        lambda a, b: precision_recall(a.features, b.features), "features", "features", NEIGHBOURHOOD + 1
    ),
    "memorisation": Metric(lambda a, b: memorisation(a.features, b.features), "features", "features"),
}


def check_metrics(metrics: Iterable[str]) -> tuple[str, ...]:
    """The names, checked; ``fid`` is another name of ``fd``."""
    if isinstance(metrics, str):
        raise InputError("evaluation.metrics", metrics, "a list", f"Write [{metrics}].")
    names = tuple("fd" if name == "fid" else name for name in metrics)
    for name in names:
        check_choice("evaluation.metrics", name, METRICS)
    return names


def check_count(metrics: Iterable[str], n: int) -> None:
    """Raises InputError where a metric needs more than ``n`` images."""
    for name in metrics:
        if n < (fewest := METRICS[name].fewest):
            refuse(name, f"({n} images)", f"at least {fewest} images, also in each subset")


def that_read(part: str, metrics: Iterable[str], of: str = "sample") -> list[str]:
    """The metrics that read a part (``features`` | ``spatial`` | ``logits``) of the sample or of the reference."""
    return [name for name in metrics if getattr(METRICS[name], of) == part]


def refuse(metric: str, got: str, needs: str) -> NoReturn:
    """Raises the InputError of a metric that cannot be measured."""
    raise InputError(f"evaluation.metrics: {metric}", got, needs)
