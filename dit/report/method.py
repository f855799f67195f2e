"""The method of the intervals in words, for captions, notes and definitions."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from dit.report.material import Material

DRAWN = {
    "pairs": "resampling whole runs",
    "parametric": "with noise of runs and readings drawn afresh",
    "seeds": "with noise drawn afresh, as repeats under other seeds have it",
}
KIND = {"pairs": "bias-corrected percentiles"}  # percentiles as they are, by the other methods
NONE = "none were made"


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
        return NONE
    told = {
        method: f"{KIND.get(method, 'percentiles')} over bootstrap draws, each {DRAWN[method]}"
        for method in laws
    }
    if len(laws) == 1:
        return next(iter(told.values()))
    return "; ".join(f"{told[method]} ({_listed(names)})" for method, names in laws.items())


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(map(str, names)))
