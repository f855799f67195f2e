"""Profiles, held-out intervals and parabolas against one-dimensional searches and formulas written out anew."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import huber
from scipy.stats import iqr

from dit.errors import InputError
from dit.fits.additive import fit_additive
from dit.fits.bootstrap import bootstrap
from dit.fits.data_limited import DataLimitedLaw, DataLimitedProblem
from dit.fits.holdout import Holdout, holdout, holdout_minimum
from dit.fits.isoflop import IsoflopProblem, fit_isoflop
from dit.fits.points import Points
from dit.fits.power import fit_power
from dit.fits.profile import profiles
from dit.fits.variance import components
from tests.fits.surfaces import Truth, isoflop_points

GRID = isoflop_points(Truth(), 0.003, budgets=4, sizes=6)
X = np.geomspace(1, 1e4, 15)
LINE = Points(np.exp(0.05 * np.random.default_rng(4).standard_normal(15)) * X**-0.2, c=X)


@pytest.mark.parametrize("name", ["a", "alpha", "E"])
def test_intervals_end_where_the_root_of_the_deviance_crosses_its_bar(name):
    """On a straight line between two values held (of ln E for a floor)."""
    found = profiles(GRID, fit_additive(GRID, "mse_log"), (name,))[name]
    assert len(found.values) == 48 + 33
    x = np.log(found.values) if name == "E" else found.values
    centre = np.log(found.estimate) if name == "E" else found.estimate
    for level, (low, high) in found.intervals.items():
        for end, side in ((low, x < centre), (high, x > centre)):
            outwards = np.argsort(np.abs(x[side] - centre))
            roots, at = np.sqrt(found.deviance[side])[outwards], x[side][outwards]
            first = np.flatnonzero(roots >= found.bars[level] ** 0.5)[0]
            expected = np.interp(
                found.bars[level] ** 0.5, roots[first - 1 : first + 1], at[first - 1 : first + 1]
            )
            assert end == pytest.approx(np.exp(expected) if name == "E" else expected, rel=1e-9)


@pytest.mark.parametrize("delta", [0.005, 0.1])
def test_the_deviance_of_hubers_loss(delta):
    """2 E psi' / E psi^2, psi the slope of the loss; E psi' from residuals within delta, or in Silverman's width."""
    fit, n = fit_power(LINE, loss="huber", delta=delta), 15
    one = profiles(LINE, fit)["exponent"]
    log_x, log_y = np.log(X), np.log(LINE.loss)

    def objective(slope):
        rest = log_y - slope * log_x
        return minimize_scalar(
            lambda h: huber(delta, rest - h).sum(), bracket=(rest.min(), rest.max()), tol=1e-12
        ).fun

    r = log_y - np.log(fit.at(X))
    width = max(delta, 0.9 * min(np.std(r), iqr(r) / 1.349) * n**-0.2)
    mean_slope = np.mean(np.abs(r) < width) / width
    factor = 2 * mean_slope / np.mean(np.clip(r / delta, -1, 1) ** 2) / delta * (n - 2) / n
    rise = np.array([objective(slope) for slope in one.values[20:60]]) - fit.objective
    assert one.deviance[20:60] == pytest.approx(factor * rise, rel=1e-4, abs=1e-6)


def test_the_deviance_of_squares_of_the_loss():
    """psi = d (L' - L)^2 / d ln L' = 2 (L' - L) L', and its slope 2 L' (2 L' - L)."""
    fit, n = fit_power(LINE, loss="mse"), 15
    one = profiles(LINE, fit)["exponent"]
    y, f = LINE.loss, fit.at(X)

    def objective(slope):
        shape = X**slope
        return ((y - (shape @ y) / (shape @ shape) * shape) ** 2).sum()

    factor = 2 * np.mean(2 * f * (2 * f - y)) / np.mean((2 * (f - y) * f) ** 2) * (n - 2) / n
    rise = np.array([objective(slope) for slope in one.values[20:60]]) - fit.objective
    assert one.deviance[20:60] == pytest.approx(factor * rise, rel=1e-6, abs=1e-6)


def test_the_design_effect_is_a_ratio_of_two_variances():
    """Of the exponent as a linear function of noise: with the variances found, and were readings independent."""
    rng = np.random.default_rng(0)
    runs, x = np.repeat(np.arange(15), 2), np.geomspace(1, 1e4, 30)
    noise = 0.05 * rng.standard_normal(15)[runs] + 0.02 * rng.standard_normal(30)
    apart, together = (Points(np.exp(noise) * x**-0.2, c=x, run=run) for run in (None, runs.astype(str)))
    fit = fit_power(apart, loss="mse_log")
    one, two = (profiles(points, fit)["exponent"].deviance for points in (apart, together))
    design = np.stack([np.ones(30), -np.log(x) + np.log(x).mean()], 1)
    found = components(np.log(apart.loss) - np.log(fit.at(x)), design, runs)
    same = runs[:, None] == runs
    weights = np.linalg.pinv(design)[1]
    ratio = (weights @ (found.run * same + found.reading * np.eye(30)) @ weights) / (
        found.run + found.reading
    )
    assert one[30:50] == pytest.approx(two[30:50] * ratio / (weights @ weights), rel=1e-9)


def test_components_of_nothing_and_of_columns_given_twice():
    design, runs = np.stack([np.ones(12), np.arange(12.0), np.arange(12.0)], 1), np.repeat(np.arange(4), 3)
    assert components(np.zeros(12), design, runs).freedom == 10
    residual = np.random.default_rng(0).standard_normal(12)
    one, two = (components(residual, d, runs) for d in (design, design[:, :2]))
    assert (one.reading, one.run, one.freedom) == pytest.approx((two.reading, two.run, two.freedom))


def test_held_out_intervals_are_percentiles_of_law_and_noise_together():
    seen, out = GRID[GRID.budgets < 3], GRID[GRID.budgets == 3]
    fit = fit_additive(seen, "mse_log")
    problem, boot = fit.problem(seen), bootstrap(seen, fit, 60, 5)
    noise = components(problem.residual(fit), problem.jacobian(fit), seen.runs)
    rows = boot.law.predict_points(out) * np.exp(noise.draw(np.random.RandomState(6), 60, out.runs))
    found = holdout(GRID, "additive", "mse_log", draws=60, seed=5)
    assert found.low == pytest.approx(np.percentile(rows, 2.5, axis=0))
    assert found.high == pytest.approx(np.percentile(rows, 97.5, axis=0))
    one, up = np.arange(1.0, 6.0), np.array([1.0, 2.5, 3.0, 4.0, 5.0])
    assert Holdout(1.0, 5, one, one, one, one).covered == 5 and Holdout(1.0, 5, one, one, up, up).covered == 4
    assert Holdout(1.0, 5, one, one, one).covered is None
    assert Holdout(1.0, 4, one[:4], one[:4], one[:4], one[:4]).covered is None  # four say nothing


def budgets(*losses):
    """Budgets of 4 e^i sizes and more, each a row of losses over sizes a factor 2 apart."""
    rows = [
        (1e6 * 2.0**i * 2**j, 1e15 * 10.0**i, loss)
        for i, row in enumerate(losses)
        for j, loss in enumerate(row)
    ]
    n, c, loss = np.array(rows).T
    return Points(loss, n=n, c=c)


VALLEY, FEW = (1.3, 1.1, 1.05, 1.08, 1.2), (1.3, 1.1, 1.2)


def test_parabolas_want_four_sizes_at_half_of_the_budgets():
    fit = fit_isoflop(budgets(VALLEY, FEW, VALLEY[:4], FEW))
    assert [valley.rejected for valley in fit.valleys] == ["", "fewer than 4 sizes", "", "fewer than 4 sizes"]
    assert np.isnan(fit.valleys[1].n_opt) and np.isnan(fit.valleys[1].coefficients).all()
    with pytest.raises(InputError, match="budgets of 5 sizes"):
        fit_isoflop(budgets(VALLEY, FEW, VALLEY, FEW, FEW))
    with pytest.raises(InputError, match="compute is scattered"):
        fit_isoflop(budgets(VALLEY, (1.0,), VALLEY, FEW, FEW))
    given = budgets(VALLEY, FEW, VALLEY, FEW, FEW)
    named = Points(given.loss, n=given.n, c=given.c, budget=given.c)
    assert sum(not valley.rejected for valley in fit_isoflop(named).valleys) == 2


def test_curves_without_a_minimum_inside_have_none():
    arch = (1.0, 0.9, 1.5, 1.4, 1.0)
    fit = fit_isoflop(budgets(VALLEY, arch, VALLEY))
    reasons = [valley.rejected for valley in fit.valleys]
    assert reasons == ["", "its parabola has no minimum inside the sizes trained", ""]
    edges = fit_isoflop(budgets(VALLEY, (1.0, 1.1, 1.2, 1.4), (1.4, 1.2, 1.1, 1.0), VALLEY))
    ends = [f"its best size is the {which} trained" for which in ("smallest", "largest")]
    assert [valley.rejected for valley in edges.valleys] == ["", *ends, ""]
    with pytest.raises(InputError, match="two or more budgets with a minimum"):
        fit_isoflop(budgets(VALLEY, arch))
    with pytest.raises(InputError, match="no minimum inside"):
        holdout_minimum(budgets(VALLEY, VALLEY, arch))


def test_residuals_and_noise_of_parabolas_are_relative():
    points = isoflop_points(Truth(), 0.02, budgets=3, sizes=5)
    problem, fit = IsoflopProblem(points), fit_isoflop(points)
    curves = np.empty(15)
    for i in range(3):
        here = points.budgets == i
        x = np.log(points.n[here])
        curves[here] = np.polyval(np.polyfit(x, points.loss[here], 2), x)
    assert problem.residual(fit) == pytest.approx(points.loss / curves - 1, abs=1e-9)
    noise = 0.1 * np.ones((2, 15))
    assert problem.noisy(fit, noise) == pytest.approx(np.tile(1.1 * curves, (2, 1)))
    slopes = problem.jacobian(fit)
    assert slopes.shape == (15, 9)
    assert (
        slopes[5:10, 3:6].sum(0)[0] == pytest.approx((1 / curves[5:10]).sum()) and (slopes[:5, 3:] == 0).all()
    )


def test_starts_of_the_law_of_repeated_data_see_its_effective_data():
    """With small models N' = N; the starts whose R_D is right are all but the law."""
    rng = np.random.default_rng(0)
    n, d, unique = 10 ** rng.uniform(6, 7, 60), 10 ** rng.uniform(9, 11, 60), np.full(60, 2e9)
    loss = DataLimitedLaw(1.87, 521.0, 0.353, 1488.0, 0.353, 25.0, 5.3, 6.0).predict(n, d, unique)
    problem = DataLimitedProblem(Points(loss, n=n, d=d, unique=unique), "mse_log", 1)
    starts = problem.starts()
    miss = np.abs(problem.law.value(starts) - problem.y).max(1)
    assert miss[np.isclose(starts[:, 5], np.log(25.0))].min() < 1e-3
    assert miss[~np.isclose(starts[:, 5], np.log(25.0))].min() > 1e-3
