"""The Fréchet distance of 2,048-wide features: time against scipy's matrix root, memory of accumulation.

    python benchmarks/frechet_speed.py             # about a minute on one core

Expected (docs/evaluation.md): at most a quarter of the time of ``scipy.linalg.sqrtm``; at most 200 MB for
50,000 rows.
"""

import argparse
import os
import resource
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import scipy.linalg

from dit.evaluation.metrics import frechet_distance
from dit.evaluation.statistics import Statistics


def features(rows: int, dim: int, seed: int) -> np.ndarray:
    """Features (rows, dim) float32 with a decaying spectrum, as Inception's have."""
    scales = np.logspace(0, -2, dim, dtype=np.float32)
    return np.random.default_rng(seed).standard_normal((rows, dim), dtype=np.float32) * scales


def timed(function: Callable[[], float], repeats: int) -> tuple[float, float]:
    """The least processor time of several calls, in seconds, and the result."""
    times, result = [], 0.0
    for _ in range(repeats):
        start = time.process_time()
        result = function()
        times.append(time.process_time() - start)
    return min(times), result


def by_square_root(a: Statistics, b: Statistics) -> float:
    """The distance as most tools compute it."""
    root = scipy.linalg.sqrtm(a.cov @ b.cov)
    difference = a.mean - b.mean
    return float(difference @ difference + np.trace(a.cov + b.cov - 2 * root.real))


def resident() -> float:
    """The most memory held so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measures and prints both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    dim = arguments.dim

    batch = features(250, dim, seed=9)
    before, start = resident(), time.process_time()
    stats = Statistics(dim)
    for _ in range(arguments.rows // len(batch)):
        stats.update(batch)
    _ = stats.cov
    seconds, megabytes = time.process_time() - start, resident() - before
    print(f"accumulation of {stats.n} x {dim}: {seconds:.1f} s, {megabytes:.0f} MB")

    mixing = np.random.default_rng(5).standard_normal((dim, dim), dtype=np.float32) / np.sqrt(dim)
    a, b = (Statistics(dim).update(features(2 * dim + 100, dim, seed) @ mixing) for seed in (0, 1))
    ours, distance = timed(lambda: frechet_distance(a, b), arguments.repeats)
    theirs, expected = timed(lambda: by_square_root(a, b), arguments.repeats)
    print(f"frechet_distance {ours:.2f} s, with scipy.linalg.sqrtm {theirs:.2f} s: ratio {ours / theirs:.3f}")
    print(
        f"distances {distance:.9g} and {expected:.9g}: relative difference {abs(distance / expected - 1):.1e}"
    )


if __name__ == "__main__":
    main()
