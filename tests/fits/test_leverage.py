"""Leverage: a number without a group is that of a fit that never saw it; one bad size is told, clean points are not."""

import numpy as np
import pytest

from dit.fits.choose import fit_law
from dit.fits.fitted import fitted
from dit.fits.leverage import doubt, leverages
from dit.fits.points import Points
from tests.fits.surfaces import Truth, isoflop_points


def without(points: Points, law: str, labels: np.ndarray, group: float) -> float:
    fit = fit_law(points[labels != group], law)
    return fit.exponent if law.startswith("power") else fit.a


@pytest.mark.parametrize("law", ["additive", "isoflop", "power"])
def test_values_are_fits_without_the_group(law):
    """To 5e-3 for the power law: its residuals lie far beyond delta, where Huber's optimum is all but flat."""
    close = 5e-3 if law == "power" else 1e-5
    points = isoflop_points(Truth(), 0.003, budgets=5, sizes=6).completed()
    name = "exponent" if law == "power" else "a"
    of = lambda x: getattr(x, name)  # noqa: E731
    found = {one.by: one for one in leverages(points, fit_law(points, law), of)}
    budgets = found["budget"]
    assert list(budgets.groups) == list(points.budget_flops)
    expected = [without(points, law, points.budgets, i) for i in range(len(points.budget_flops))]
    np.testing.assert_allclose(budgets.values, expected, rtol=close)
    g = len(expected)
    assert budgets.sd == pytest.approx(
        np.sqrt((g - 1) / g * np.sum((expected - np.mean(expected)) ** 2)), rel=10 * close
    )
    place = int(np.argmax(np.abs(np.array(expected) - budgets.estimate)))
    assert budgets.most == pytest.approx((points.budget_flops[place], expected[place]), rel=close)


def test_an_exponent_that_rests_on_one_size_says_so():
    """The smallest of five sizes is 3 % worse than the law: as a network of depth 1 among deeper ones."""
    n, d = (x.ravel() for x in np.meshgrid(np.geomspace(1e6, 1e8, 5), np.geomspace(1e8, 1e10, 5)))
    law = 1.5 + 60 * n**-0.3 + 300 * d**-0.3
    noise = np.exp(0.001 * np.random.default_rng(0).normal(size=25))
    clean = fitted(Points(law * noise, n=n, d=d), draws=200)
    assert clean.estimate("a")["doubt"] is None
    odd = fitted(Points(law * noise * np.where(n == n.min(), 1.03, 1.0), n=n, d=d), draws=200)
    told = odd.estimate("a")["doubt"]
    sizes = next(one for one in odd.leverages if one.by == "size")
    assert sizes.most == (n.min(), pytest.approx(0.5, abs=0.05))
    assert f"without N = 1e+06: jackknife sd {sizes.sd:.2g} over sizes" in told
    assert sizes.sd > 2 * odd.estimate("a")["sd"]
    assert odd.estimate("b")["doubt"] is None  # said once


def test_groups_of_one_point_or_two_groups_say_nothing():
    points = isoflop_points(Truth(), 0.003, budgets=2, sizes=6).completed()
    fit = fit_law(points, "additive")
    found = leverages(points, fit, lambda law: law.a)
    assert "budget" not in {one.by for one in found}
    assert all(3 <= len(one.groups) < len(points) for one in found)
    assert doubt(found, np.inf) is None and doubt([], 0.0) is None
