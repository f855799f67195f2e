"""Noise of runs, of readings and along runs; runs that are off; lack of fit: against dense matrices and scipy."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from dit.fits.additive import fit_additive
from dit.fits.bootstrap import bootstrap
from dit.fits.lack import lack_of_law, short_runs
from dit.fits.noise import noise_of, off
from dit.fits.points import Points
from dit.fits.remarks import independent, misfits
from dit.fits.variance import Components, walking
from tests.fits.surfaces import Truth, curve_points, isoflop_points, short_runs_high, walk

TRUTH = Truth()
RUNS = np.repeat(np.arange(5), [1, 2, 3, 4, 5])
ELAPSED = np.concatenate([np.sqrt(np.arange(m)) for m in (1, 2, 3, 4, 5)])


def covariance(noise, runs, elapsed):
    """Dense: a walk's readings covary by the shorter of the ways they came."""
    same = runs[:, None] == runs
    shape = np.minimum(elapsed[:, None], elapsed)
    return noise.reading * np.eye(len(runs)) + same * (noise.run + noise.walk * shape)


def test_drawn_walks_covary_as_they_should():
    noise = Components(0.5, 0.7, 1e9, walk=2.0)
    drawn = noise.draw(np.random.RandomState(0), 100_000, RUNS, ELAPSED)
    assert np.cov(drawn.T) == pytest.approx(covariance(noise, RUNS, ELAPSED), abs=0.12)
    weights = np.random.default_rng(0).standard_normal(15)
    whole = weights @ covariance(noise, RUNS, ELAPSED) @ weights
    assert noise.of_sum(weights, RUNS, ELAPSED) == pytest.approx(whole)
    assert noise.of_sum(weights[::-1], RUNS[::-1], ELAPSED[::-1]) == pytest.approx(whole)


def test_the_three_variances_are_the_likeliest():
    """The dense restricted likelihood is no higher at 300 other triples, and what was put in is found."""
    rng = np.random.default_rng(1)
    runs, d = np.repeat(np.arange(150), 5), np.tile(np.geomspace(1, 30, 5), 150)
    order = rng.permutation(750)
    runs, d = runs[order], d[order]
    design = np.stack([np.ones(750), np.log(d)], 1)
    y = 2.0 * rng.standard_normal(150)[runs] + rng.standard_normal(750) + walk(rng, runs, d, 1.5)
    residual = y - design @ np.linalg.lstsq(design, y)[0]
    found = walking(residual, design, runs, np.log(d))
    assert found.run == pytest.approx(4.0, rel=0.35)
    assert found.reading == pytest.approx(1.0, rel=0.25)
    assert found.walk == pytest.approx(2.25, rel=0.25)

    few = np.flatnonzero(runs < 12)
    design, residual, runs, elapsed = design[few], y[few], runs[few], np.log(d[few])
    residual = residual - design @ np.linalg.lstsq(design, residual)[0]
    basis = scipy.linalg.null_space(design.T)  # of contrasts that the fit does not touch
    best = walking(residual, design, runs, elapsed)

    def likelihood(noise):
        spread = basis.T @ covariance(noise, runs, elapsed) @ basis
        return scipy.stats.multivariate_normal(cov=spread).logpdf(basis.T @ residual)

    others = np.exp(rng.uniform(-1, 1, (300, 3))) * (best.reading, best.run + 0.01, best.walk + 0.01)
    highest = max(likelihood(Components(r, run, 1.0, along)) for r, run, along in others)
    assert likelihood(best) > highest - 0.02  # the ratios are searched to 7 %


def test_a_walk_widens_intervals():
    points = curve_points(TRUTH, 0.002, 0.001, 0, walk_noise=0.004)
    fit = fit_additive(points)
    boot = bootstrap(points, fit, 100)
    assert boot.noise is not None
    assert boot.noise.walk**0.5 == pytest.approx(0.004, rel=0.35)
    twice = replace(points, run=np.array([f"{run}{i % 4}" for i, run in enumerate(points.run)]))
    assert noise_of(fit.problem(twice), fit, twice).walk == 0.0  # two readings a run tell no walk


def test_one_run_that_is_off_does_not_blow_up_intervals():
    points = isoflop_points(TRUTH, 0.003, 3, budgets=4, sizes=5)
    bad = replace(points, loss=points.loss * np.where(np.arange(20) == 7, 1.05, 1.0))
    widths = []
    for one in (points, bad):
        fit = fit_additive(one)
        low, high = bootstrap(one, fit, 200).interval(lambda law: law.a)
        widths.append(high - low)
    assert widths[1] < 1.6 * widths[0]  # 3.2 times by the plain variance
    assert list(np.flatnonzero(off(fit.problem(bad), fit, bad.runs))) == [
        list(np.unique(bad.run)).index("r7")
    ]
    assert "run r7 lies +5" in misfits(bad, fit)[0] or "run r7 lies +4" in misfits(bad, fit)[0]
    squares = fit_additive(bad, "mse_log")
    assert not off(squares.problem(bad), squares, bad.runs).any()  # the law itself follows it there


def repeated(noise, seeds=3, bend=0.0):
    base = isoflop_points(TRUTH, budgets=4, sizes=5)
    rng = np.random.default_rng(2)
    n, d = (np.tile(x, seeds) for x in (base.n, base.d))
    loss = TRUTH.loss(n, d) * np.exp(
        noise * rng.standard_normal(len(n)) + bend * np.tile(np.sin(np.arange(20)), seeds)
    )
    return Points(loss, n=n, d=d, run=np.arange(len(n)).astype(str))


@pytest.mark.parametrize("bend", [0.0, 0.006])
def test_lack_of_fit_is_the_f_test_with_pure_error(bend):
    points = repeated(0.003, bend=bend)
    fit = fit_additive(points, "mse_log")
    found = lack_of_law(points, fit)
    y = np.log(points.loss)
    pure = ((y.reshape(3, 20) - y.reshape(3, 20).mean(0)) ** 2).sum()
    whole = ((y - np.log(fit.predict_points(points))) ** 2).sum()
    assert found is not None and (found.lack, found.pure) == (15, 40)
    assert found.f == pytest.approx((whole - pure) / 15 / (pure / 40), rel=1e-4)
    assert found.p_value == pytest.approx(scipy.stats.f.sf(found.f, 15, 40), rel=1e-3)
    assert (found.p_value < 0.01) == bool(bend)
    assert any("lack of fit" in line for line in misfits(points, fit)) == bool(bend)
    assert lack_of_law(isoflop_points(TRUTH, 0.003), fit) is None


def test_short_runs_that_are_high_are_said_so():
    points = isoflop_points(TRUTH, 0.003, 1)
    high = short_runs_high(points)
    for one, warned in ((points, False), (high, True)):
        fit = fit_additive(one)
        found = short_runs(one, fit)
        assert (found.p_value < 0.01) == warned
        assert any("readings of least D" in line for line in misfits(one, fit)) == warned
    assert found.by == pytest.approx(0.02, abs=0.006)


def test_the_column_of_runs_is_asked_for():
    points = curve_points(TRUTH, 0.003, 0.001)
    alone = Points(points.loss, n=points.n, d=points.d)
    (told,) = independent(alone, ("params", "tokens", "loss"), "params")
    assert "columns.run=COLUMN, or columns.run=params" in told
    (told,) = independent(alone, ("params", "run", "loss"), "params")
    assert "add columns.run=run" in told and "columns.run=params" not in told
