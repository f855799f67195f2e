"""How often intervals of a, N* and L* hold the truth on surfaces that the additive law does not describe.

``python -m tests.fits.kernel_coverage kaplan kaplan --surfaces 200`` prints a row of docs/fits.md.
"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

from dit.fits.fitted import fitted
from dit.fits.points import Points
from dit.fits.stacking import MEMBERS
from tests.fits.kernel_surfaces import Surface, kaplan_surface, moving_surface
from tests.fits.surfaces import grid

SURFACES = {"kaplan": kaplan_surface, "moving": moving_surface}


def points_on(surface: Surface, seed: int) -> Points:
    """Six budgets of seven sizes, noise log-uniform from .1 % to 1 %."""
    rng = np.random.default_rng(seed)
    n, d, budget = grid(surface)  # type: ignore[arg-type]
    noise = 10 ** rng.uniform(-3, -2) * rng.standard_normal(len(n))
    return Points(surface.loss(n, d) * np.exp(noise), n=n, d=d, c=budget, budget=budget)


def covered(
    make: Callable[[np.random.Generator], Surface],
    law: str,
    surfaces: int,
    draws: int,
    first: int = 0,
    loss: str = "huber",
    **settings: Any,
) -> dict[str, list[bool | None]]:
    """Whether each interval held the truth, by quantity; None where there was none."""
    found: dict[str, list[bool | None]] = {"a": [], "N*": [], "L*": []}
    for seed in range(first, first + surfaces):
        surface = make(np.random.default_rng(20_000 + seed))
        points = points_on(surface, seed).completed()
        top = float(points.get("c").max())
        fit = fitted(points, law, loss, draws=draws, seed=seed, **settings)
        wanted = {
            "a": (lambda one: one.a, surface.slope(top)),
            "N*": (lambda one, c=10 * top: one.n_opt(c), surface.n_opt(10 * top)),
            "L*": (lambda one, c=10 * top: one.loss_opt(c), surface.loss_opt(10 * top)),
        }
        for name, (of, true) in wanted.items():
            ends = fit.interval(of)
            found[name].append(None if ends is None else bool(ends[0] <= true <= ends[1]))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("surface", choices=SURFACES)
    parser.add_argument("law")
    parser.add_argument("--surfaces", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--loss", default="huber")
    parser.add_argument("--method", default="auto")
    parser.add_argument("--laws", default=",".join(MEMBERS), help="of stacked")
    args = parser.parse_args()
    rows = covered(SURFACES[args.surface], args.law, args.surfaces, args.draws, args.first, args.loss,
                   method=args.method, laws=tuple(args.laws.split(",")))  # fmt: skip
    for name, held in rows.items():
        print(args.surface, args.law, args.loss, name, f"{np.mean([one is True for one in held]):.3f}",
              f"({sum(one is None for one in held)} without an interval of {len(held)})", flush=True)  # fmt: skip
