"""How often the intervals of a fit hold the truth, on synthetic surfaces: the table of docs/fits.md, row by row.

    python benchmarks/fit_coverage.py --design grid --surfaces 400 --loss huber
    python benchmarks/fit_coverage.py --design ladder --run-noise .003 --reading-noise .001

Designs: ``grid`` is an isoFLOP grid with one run per point; ``ladder`` has one run per size, read at several budgets;
``curves`` has one run per size, read at 8 checkpoints. Noise is relative; on the grid 0 draws it for each surface,
log-uniformly from .1 % to 1 %.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the surfaces are those of the tests

from dit.fits.points import Points
from tests.fits.coverage import coverage
from tests.fits.surfaces import Truth, curve_points, isoflop_points, ladder_points


def main() -> None:
    """Prints coverage and median width of the 80 and 95 % intervals of a, E and L* at 10 x the largest compute."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--design", choices=("grid", "ladder", "curves"), default="grid")
    parser.add_argument("--surfaces", type=int, default=200)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--loss", default="huber")
    parser.add_argument("--delta", type=float, default=1e-3)
    parser.add_argument("--by", default="auto")
    parser.add_argument("--method", default="auto")
    parser.add_argument("--budgets", type=int, default=6)
    parser.add_argument("--sizes", type=int, default=7)
    parser.add_argument("--span", type=float, default=8.0)
    parser.add_argument("--run-noise", type=float, default=0.0)
    parser.add_argument("--reading-noise", type=float, default=0.0)
    args = parser.parse_args()

    def points(truth: Truth, seed: int) -> Points:
        if args.design == "grid":
            noise = args.reading_noise or 10 ** np.random.default_rng(seed).uniform(-3, -2)
            return isoflop_points(truth, noise, seed, budgets=args.budgets, sizes=args.sizes, span=args.span)
        make = ladder_points if args.design == "ladder" else curve_points
        return make(truth, args.run_noise, args.reading_noise, seed, args.sizes)

    start = time.perf_counter()
    settings = {"by": args.by, "method": args.method}
    found = coverage(points, args.surfaces, args.draws, args.loss, args.delta, **settings)
    for name in ("a", "E", "L*"):
        width = float(np.median(found.width[name]))
        print(f"{name}: 80 % {found.of(name, 0.80):.3f}  95 % {found.of(name):.3f}  median width {width:.4f}")
    total = args.surfaces * args.draws
    took = time.perf_counter() - start
    print(f"{'/'.join(found.methods)}; {found.failed} of {total} draws failed; {took:.0f} s")


if __name__ == "__main__":
    main()
