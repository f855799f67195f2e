"""How often intervals hold the truth: fits and bootstraps of many known surfaces."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from dit.fits.additive import fit_additive
from dit.fits.bootstrap import bootstrap
from dit.fits.points import Points
from tests.fits.surfaces import Truth, random_truth


@dataclass
class Coverage:
    """Which intervals held the truth, by quantity (a, E; N* and L* at ten times the largest compute) and level."""

    inside: dict[tuple[str, float], list[bool]] = field(default_factory=dict)
    width: dict[str, list[float]] = field(default_factory=dict)
    failed: int = 0
    methods: set[str] = field(default_factory=set)

    def of(self, name: str, level: float = 0.95) -> float:
        return float(np.mean(self.inside[name, level]))


def coverage(
    make: Callable[[Truth, int], Points],
    surfaces: int,
    draws: int,
    loss: str = "huber",
    delta: float = 1e-3,
    **settings,
) -> Coverage:
    """The coverage over random surfaces; ``make`` turns a truth and a seed into points."""
    found = Coverage()
    for seed in range(surfaces):
        truth = random_truth(np.random.default_rng(10_000 + seed))
        points = make(truth, seed).completed()
        target = 10 * float(points.get("c").max())
        fit = fit_additive(points, loss, delta)
        boot = bootstrap(points, fit, draws, seed, **settings)
        found.failed += boot.failed
        found.methods.add(boot.method)
        wanted = {
            "a": (lambda law: law.a, truth.exponent()),
            "E": (lambda law: law.E, truth.e),
            "N*": (lambda law, c=target: law.n_opt(c), truth.n_opt(target)),
            "L*": (lambda law, c=target: law.loss_opt(c), truth.loss_opt(target)),
        }
        for name, (of, true) in wanted.items():
            for level in (0.80, 0.95):
                low, high = boot.interval(of, level)
                found.inside.setdefault((name, level), []).append(low <= true <= high)
            found.width.setdefault(name, []).append(high - low)
    return found
