"""Parabolas through the sizes near the lowest loss: against numpy's, on rows as wide as published ones, and judged."""

import numpy as np
import pytest
from scipy import stats

from dit.errors import InputError
from dit.fits.answer import answer
from dit.fits.approaches import apart
from dit.fits.bootstrap import bootstrap
from dit.fits.fitted import fitted
from dit.fits.isoflop import fit_isoflop
from dit.fits.points import Points
from dit.fits.remarks import remarks
from tests.fits.surfaces import Truth, isoflop_points

SKEWED = Truth(alpha=0.5, beta=0.25, a=500.0, b=25.0)  # a valley steeper on the side of small networks


def wide(noise: float = 0.0, seed: int = 0, truth: Truth = SKEWED, off: float = 2.0) -> Points:
    """Rows of 21 sizes over a factor of 1,000 that do not lie about the minimum: the same sizes at every budget."""
    sizes = truth.n_opt(6e16) * np.geomspace(1000**-0.5, 1000**0.5, 21) * off
    n, c = (x.ravel() for x in np.meshgrid(sizes, 6e16 * 10 ** (0.5 * (np.arange(6) - 2.5))))
    loss = truth.loss(n, c / (6 * n)) * np.exp(noise * np.random.default_rng(seed).standard_normal(len(n)))
    return Points(loss, n=n, c=c, budget=c)


def test_rows_as_wide_as_a_thousand_agree_with_points_near_the_minimum():
    """Issue 13: within .015 of the exponent by points within e^1.1 of the minimum, as Porian et al. 2406.19146 have it.

    Whole rows miss it, which is why the window is the default.
    """
    points = wide()
    minima = []
    for c in points.budget_flops:
        here = np.isclose(points.get("c"), c)
        x, y = np.log(points.get("n")[here]), points.loss[here]
        near = np.abs(x - np.log(SKEWED.n_opt(c))) < 1.1
        two, one, _ = np.polyfit(x[near], y[near], 2)
        minima.append(-one / (2 * two))
    by_hand = np.polyfit(np.log(points.budget_flops), minima, 1)[0]
    assert fit_isoflop(points).a == pytest.approx(by_hand, abs=0.005)
    assert fit_isoflop(points).a == pytest.approx(SKEWED.exponent(), abs=0.005)
    assert abs(fit_isoflop(points, np.inf).a - by_hand) > 0.015


def test_the_parabola_in_a_window_is_numpys_and_draws_choose_their_own_window():
    points = wide(0.003)
    fit = fit_isoflop(points)
    for valley in fit.valleys:
        here = np.isclose(points.get("c"), valley.flops)
        x, y = np.log(points.get("n")[here]), points.loss[here]
        near = np.abs(x - x[np.argmin(y)]) < 1.1
        two, one, zero = np.polyfit(x[near], y[near], 2)
        assert (valley.n_opt, valley.loss_opt) == pytest.approx(
            (np.exp(-one / 2 / two), zero - one**2 / 4 / two)
        )
        assert (valley.used, valley.n_points, valley.widened) == (near.sum(), 21, False)
        misses = y[near] / np.polyval((two, one, zero), x[near]) - 1
        assert valley.rms == pytest.approx(np.sqrt(misses @ misses / (near.sum() - 3)), rel=1e-6)
    boot = bootstrap(points, fit, 300)
    again = [fit_isoflop(wide(0.003, seed)).a for seed in range(60)]
    assert boot.sd(lambda law: law.a) == pytest.approx(np.std(again), rel=0.35)


def test_sparse_rows_use_their_five_nearest_sizes_and_say_so():
    truth = Truth()
    points = isoflop_points(truth, sizes=7, span=1000.0)
    fit = fit_isoflop(points)
    assert {(valley.used, valley.widened) for valley in fit.valleys} == {(5, True)}
    told = remarks(points, fit, None, "huber", 1e-3)
    assert told[0].startswith(
        "too few sizes near the best for the window, the nearest are used: budget 3.37e+15, 1.07e+16"
    )
    assert not any(valley.widened for valley in fit_isoflop(isoflop_points(truth)).valleys)


def test_a_parabola_that_noise_does_not_explain_is_named():
    """By F against repeats; against the other budgets where there are none."""
    points = isoflop_points(Truth(), 0.001, budgets=4, sizes=7)
    loss = points.loss.copy()
    loss[9] *= 1.02  # one bad run at the second budget
    bad = Points(loss, n=points.n, d=points.d, c=points.c, budget=points.budget)
    fit = fit_isoflop(bad)
    assert fit.valleys[1].p_value < 0.01 < min(fit.valleys[i].p_value for i in (0, 2, 3))
    assert any("more than noise explains" in one for one in remarks(bad, fit, None, "huber", 1e-3))
    alike = fit_isoflop(points)
    assert not any("noise explains" in one for one in remarks(points, alike, None, "huber", 1e-3))
    sums = [one.rms**2 * (one.used - 3) for one in alike.valleys]
    free = [one.used - 3 for one in alike.valleys]
    ratio = alike.valleys[0].rms ** 2 / (sum(sums[1:]) / sum(free[1:]))
    assert alike.valleys[0].p_value == pytest.approx(stats.f.sf(ratio, free[0], sum(free[1:])))


def test_repeats_are_the_yardstick_where_there_are_any():
    once = isoflop_points(Truth(), budgets=4, sizes=7)
    n, c = np.repeat(once.get("n"), 2), np.repeat(once.get("c"), 2)
    loss = np.repeat(once.loss, 2) * np.exp(0.001 * np.random.default_rng(0).standard_normal(len(n)))
    loss *= 1 + 0.01 * np.cos(
        7 * np.log(n)
    )  # no parabola at any budget: nothing stands out but against repeats
    fit = fit_isoflop(Points(loss, n=n, c=c, budget=c))
    assert max(valley.p_value for valley in fit.valleys) < 1e-3


def test_whole_rows_are_a_choice_and_the_answer_tells_what_it_moves():
    points = wide(0.001)
    told = answer(fitted(points, "isoflop", draws=0))
    row = next(one for one in told["sensitivity"]["variants"] if one["choice"] == "window")
    assert row["exponent"] == pytest.approx(fit_isoflop(points, np.inf).a)
    assert (told["window"], answer(fitted(points, "isoflop", draws=0, window=np.inf))["window"]) == (
        pytest.approx(np.exp(1.1)), None,
    )  # fmt: skip
    with pytest.raises(InputError, match=r"window: got 0\.5"):
        fit_isoflop(points, 0.5)


def test_approaches_that_disagree_say_so():
    """Parabolas through whole wide rows are biased by more than their intervals; those in a window are not."""
    points = wide(0.0003)
    by_rows = answer(fitted(points, "isoflop", draws=100, window=np.inf))["warnings"]
    assert sum("disagree by more than their intervals" in one for one in by_rows) == 1
    for law in ("isoflop", "additive"):
        assert not any("disagree" in one for one in answer(fitted(points, law, draws=100))["warnings"])
    one, other = {"value": 0.5, "interval_95": (0.4, 0.53)}, {"value": 0.56, "interval_95": (0.52, 0.7)}
    assert (
        "C^0.500 (0.400 to 0.530)" in (apart(one, other) or "")
        and apart(one, other | {"value": 0.53}) is None
    )
    assert apart(one, {"value": None}) is None
