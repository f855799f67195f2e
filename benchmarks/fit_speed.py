"""Speed of the fits on one core: a point fit, and 4,000 bootstrap draws of 240 points, with every draw accounted for.

    OMP_NUM_THREADS=1 python benchmarks/fit_speed.py [--data points.csv --n params --c flops --loss-column loss]

Without a file, 240 points on a known surface with 1 % noise. Times are CPU seconds, the best of three.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the surfaces are those of the tests

from dit.fits.additive import fit_additive
from dit.fits.bootstrap import bootstrap
from dit.fits.points import Points, read_points
from dit.fits.profile import profile
from tests.fits.surfaces import Truth


def main() -> None:
    """Prints one line per task."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data")
    parser.add_argument("--n", default="params")
    parser.add_argument("--c", default="flops")
    parser.add_argument("--loss-column", default="loss")
    parser.add_argument("--drop-highest", type=int, default=0)
    args = parser.parse_args()
    if args.data:
        columns = {"n": args.n, "c": args.c, "loss": args.loss_column}
        points = read_points(args.data, columns, drop_highest=args.drop_highest)
    else:
        points = synthetic()
    for loss in ("huber", "lad", "mse_log", "mse"):
        took, fit = timed(lambda loss=loss: fit_additive(points, loss))
        print(
            f"{loss:8s} point fit {took:6.3f} s ({fit.searched.agreed} of {fit.searched.starts} starts agree)",
            end="",
        )
        took, boot = timed(lambda fit=fit: bootstrap(points, fit, 4000, 42))
        print(
            f"; 4,000 draws {took:6.2f} s ({boot.failed} failed, {boot.improved} improved by a second start)",
            end="",
        )
        took, _ = timed(lambda fit=fit: profile(points, fit, "a"))
        print(f"; profile of a {took:6.3f} s")


def synthetic() -> Points:
    """240 points scattered over three decades of compute."""
    rng = np.random.default_rng(0)
    truth = Truth()
    n, d = 10 ** rng.uniform(7, 10, 240), 10 ** rng.uniform(9, 11.5, 240)
    return Points(truth.loss(n, d) * np.exp(0.01 * rng.standard_normal(240)), n=n, d=d)


def timed(task: Callable[[], Any]) -> tuple[float, Any]:
    """The best of three CPU times, and the task's result."""
    best, result = float("inf"), None
    for _ in range(3):
        start = time.process_time()
        result = task()
        best = min(best, time.process_time() - start)
    return best, result


if __name__ == "__main__":
    main()
