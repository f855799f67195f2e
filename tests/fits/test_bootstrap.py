"""Resampling: what is drawn, and that refits of weighted points are refits of repeated points."""

import numpy as np
import pytest

from dit.errors import InputError
from dit.fits.additive import fit_additive
from dit.fits.bootstrap import bootstrap, refit, resampled
from dit.fits.points import Points
from dit.fits.variance import Components, components
from tests.fits.surfaces import Truth, isoflop_points, ladder_points

TRUTH = Truth()


def of_a(law):
    return law.a


@pytest.mark.parametrize("loss", ["huber", "mse", "lad"])
def test_a_weighted_refit_is_the_fit_of_the_repeated_points(loss):
    points = isoflop_points(TRUTH, 0.01, budgets=4, sizes=6)
    weights = np.random.default_rng(0).multinomial(len(points), np.full(len(points), 1 / len(points)), 3)
    boot = refit(points, fit_additive(points, loss), weights.astype(float))
    for row in range(3):
        index = np.repeat(np.arange(len(points)), weights[row])
        repeated = Points(points.loss[index], n=points.get("n")[index], d=points.get("d")[index])
        assert boot.law.a[row] == pytest.approx(fit_additive(repeated, loss).a, rel=1e-5)


def test_runs_are_drawn_whole():
    points = ladder_points(TRUTH, 0.003, 0.001)
    weights = resampled(points, "run", 50, np.random.RandomState(0))
    for run in np.unique(points.runs):
        assert (np.ptp(weights[:, points.runs == run], axis=1) == 0).all()
    assert set(np.unique(weights)) > {0.0, 1.0, 2.0}


def test_draws_within_budgets_keep_every_budget_and_rescale():
    points = isoflop_points(TRUTH, 0.01, budgets=3, sizes=5)
    weights = resampled(points, "run", 200, np.random.RandomState(0))
    for budget in range(3):
        inside = weights[:, points.budgets == budget]
        assert inside.sum(1) == pytest.approx(5)  # 4 draws of weight 5/4
    # Rao & Wu: the variance of a stratum's mean over draws is the unbiased s^2/m
    one = points.loss[points.budgets == 0]
    many = resampled(points, "run", 20000, np.random.RandomState(1))[:, points.budgets == 0] @ one / 5
    assert many.var() == pytest.approx(one.var(ddof=1) / 5, rel=0.05)


def test_points_are_drawn_by_the_published_protocol():
    points = isoflop_points(TRUTH, 0.01)
    np.random.seed(42)
    first = np.bincount(np.random.choice(np.arange(len(points)), len(points), True), minlength=len(points))
    assert np.array_equal(resampled(points, "point", 1, np.random.RandomState(42))[0], first)


def test_few_runs_are_drawn_parametrically_and_many_by_pairs():
    few, many = ladder_points(TRUTH, 0.003, 0.001), isoflop_points(TRUTH, 0.003)
    assert bootstrap(few, fit_additive(few), 50).method == "parametric"
    assert bootstrap(many, fit_additive(many), 50).method == "pairs"


def test_the_same_seed_gives_the_same_draws():
    points = isoflop_points(TRUTH, 0.003)
    fit = fit_additive(points)
    one, two, other = (bootstrap(points, fit, 60, seed).law.a for seed in (3, 3, 4))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_variances_of_runs_and_readings_are_recovered():
    """Many balanced runs: both variances within a few per cent, as analysis of variance would have them."""
    rng = np.random.default_rng(0)
    runs = np.repeat(np.arange(400), 4)
    residual = 0.03 * rng.standard_normal(400)[runs] + 0.01 * rng.standard_normal(1600)
    found = components(residual - residual.mean(), np.ones((1600, 1)), runs)
    means = residual.reshape(400, 4).mean(1)
    within = residual.reshape(400, 4).var(1, ddof=1).mean()
    assert found.reading == pytest.approx(within, rel=1e-9)
    assert found.run == pytest.approx(means.var(ddof=1) - within / 4, rel=1e-6)


def test_noise_on_few_degrees_of_freedom_has_students_tails():
    drawn = Components(1.0, 0.0, 4.0).draw(np.random.RandomState(0), 200_000, np.zeros(1, int))[:, 0]
    assert np.quantile(drawn, 0.975) == pytest.approx(2.776, rel=0.02)  # t with 4 degrees of freedom


def test_seed_noise_comes_from_repeats():
    base = isoflop_points(TRUTH, 0.0)
    rng = np.random.default_rng(1)
    twice = [np.concatenate([value, value]) for value in (base.get("n"), base.get("d"), base.get("c"))]
    loss = np.concatenate([base.loss, base.loss]) * np.exp(0.004 * rng.standard_normal(2 * len(base)))
    run = np.array([f"r{i}" for i in range(2 * len(base))])
    points = Points(loss, n=twice[0], d=twice[1], c=twice[2], run=run)
    boot = bootstrap(points, fit_additive(points), 200, method="seeds")
    assert boot.noise is not None
    assert boot.noise.reading**0.5 == pytest.approx(0.004, rel=0.2)
    assert boot.noise.freedom == pytest.approx(len(base))
    with pytest.raises(InputError, match="method: got 'seeds'; allowed: points with the same N and D"):
        bootstrap(base, fit_additive(base), 50, method="seeds")


def test_intervals_are_nested_and_hold_the_estimate():
    points = isoflop_points(TRUTH, 0.003)
    fit = fit_additive(points)
    boot = bootstrap(points, fit, 400)
    (low80, high80), (low95, high95) = boot.interval(of_a, 0.8), boot.interval(of_a, 0.95)
    assert low95 < low80 < fit.a < high80 < high95
    low, high = boot.band(lambda law, c: law.loss_opt(c), np.array([1e17, 1e20]))
    assert (low < fit.loss_opt(np.array([1e17, 1e20]))).all()
    assert (high - low)[1] > (high - low)[0]  # wider where it extrapolates


@pytest.mark.parametrize(
    ("key", "value"), [("by", "budget"), ("method", "jackknife"), ("draws", 3), ("seed", -1)]
)
def test_wrong_settings_are_refused(key, value):
    points = isoflop_points(TRUTH, 0.003)
    with pytest.raises(InputError):
        bootstrap(points, fit_additive(points), **{key: value})
