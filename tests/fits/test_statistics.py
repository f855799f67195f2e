"""Quantiles and lines against closed forms and published tables: nothing here is computed by the code under test."""

import math

import numpy as np
import pytest

from dit.fits.points import Points
from dit.fits.power import fit_power
from dit.fits.profile import profiles
from dit.report.derived import log_line


@pytest.mark.parametrize(
    ("n", "t_95", "t_80"),
    [  # closed forms at 1 and 2 degrees of freedom; then Abramowitz & Stegun, table 26.10
        (3, math.tan(0.475 * math.pi), math.tan(0.4 * math.pi)),
        (4, 0.95 * math.sqrt(2 / (4 * 0.975 * 0.025)), 0.8 * math.sqrt(2 / (4 * 0.9 * 0.1))),
        (5, 3.182, 1.638),
        (7, 2.571, 1.476),
    ],
)
def test_bars_of_profiles_are_students(n, t_95, t_80):
    c = np.geomspace(1e10, 1e14, n)
    noise = 0.01 * np.resize([1.0, -2.0, 0.5], n)
    points = Points(c**-0.1 * np.exp(noise), c=c)
    fit = fit_power(points, loss="mse_log")
    bars = profiles(points, fit)["exponent"].bars
    assert bars[0.95] ** 0.5 == pytest.approx(t_95, rel=2e-4)
    assert bars[0.80] ** 0.5 == pytest.approx(t_80, rel=4e-4)


def test_interval_of_a_line_through_three_points():
    """Slope 0 through (0, 0), (1, 1), (2, 0) in logarithms: sd of the slope sqrt(1/3), t(1) = 12.706."""
    found = log_line(np.exp([0.0, 1.0, 2.0]), np.exp([0.0, 1.0, 0.0]))
    assert found["exponent"] == pytest.approx(0, abs=1e-12)
    assert found["interval_95"] == pytest.approx([-12.706 * 3**-0.5, 12.706 * 3**-0.5], rel=1e-4)
    assert found["coefficient"] == pytest.approx(math.exp(1 / 3))


def test_a_line_wants_two_places():
    assert log_line(np.array([2.0, 2.0]), np.array([1.0, 3.0])) is None
    assert log_line(np.array([2.0, 4.0]), np.array([1.0, 2.0]))["interval_95"] is None
