"""Intervals cover at their level on surfaces that are known, and the naive ones are seen not to.

200 surfaces tell a coverage of .95 to +- .015 (one sd); docs/fits.md has the table over more settings.
"""

import numpy as np
import pytest

from tests.fits.coverage import coverage
from tests.fits.surfaces import curve_points, isoflop_points, ladder_points

pytestmark = pytest.mark.slow


def noisy_grid(truth, seed):
    """6 budgets of 7 sizes, one run per point, noise log-uniform from .1 % to 1 %."""
    return isoflop_points(truth, 10 ** np.random.default_rng(seed).uniform(-3, -2), seed)


@pytest.mark.parametrize("loss", ["huber", "mse"])
def test_isoflop_grids_of_independent_runs(loss):
    found = coverage(noisy_grid, 200, 500, loss)
    assert found.methods == {"pairs"}
    assert found.failed < 0.001 * 200 * 500
    for name in ("a", "E", "L*"):
        assert 0.92 <= found.of(name) <= 0.98
        assert 0.74 <= found.of(name, 0.80) <= 0.86


def test_seven_runs_read_at_four_budgets():
    """The digits study: 18 points of 7 runs whose readings share their run's noise."""
    found = coverage(lambda truth, seed: ladder_points(truth, 0.003, 0.001, seed), 200, 200, "mse")
    assert found.methods == {"parametric"}
    for name in ("a", "E", "L*"):
        assert 0.92 <= found.of(name) <= 0.98


def test_correlated_checkpoints_need_resampling_by_run():
    def checkpoints(truth, seed):
        return curve_points(truth, 0.005, 0.001, seed)

    by_run = coverage(checkpoints, 200, 200, "mse")
    naive = coverage(checkpoints, 200, 200, "mse", by="point")
    for name in ("a", "E", "L*"):
        assert 0.92 <= by_run.of(name) <= 0.98
        assert naive.of(name) < 0.85
