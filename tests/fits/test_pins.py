"""Outputs of the fits against computations that share no code with them: brute force, textbook formulas, scipy."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import scipy.stats

from dit.errors import InputError
from dit.fits.additive import AdditiveLaw, fit_additive
from dit.fits.allocation import lines
from dit.fits.answer import answer
from dit.fits.bootstrap import Bootstrap, _repeats, bootstrap, resampled
from dit.fits.compare import compare, likelihood
from dit.fits.data_limited import DataLimitedLaw, DataLimitedProblem
from dit.fits.envelope import fit_envelope
from dit.fits.fitted import fitted
from dit.fits.holdout import holdout, holdout_by_budget, holdout_minimum
from dit.fits.isoflop import fit_isoflop
from dit.fits.points import Points
from dit.fits.power import fit_power
from dit.fits.profile import profiles
from dit.fits.search import Axis
from dit.fits.sensitivity import sensitivity
from dit.fits.variance import Components, components
from tests.fits.surfaces import Truth, isoflop_points

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def grid():
    return isoflop_points(Truth(), 0.003, budgets=4, sizes=6)


def brute(residual, jacobian, runs):
    """Variances and degrees of freedom from n x n matrices.

    E r'Mr = tr(Q M Q V) and var r'r = 2 tr(Q V Q V) for r = Q e, V = run ZZ' + reading I, Q the projector off the fit.
    """
    n = len(residual)
    z = (runs[:, None] == np.arange(runs.max() + 1)).astype(float)
    q = np.eye(n) - jacobian @ np.linalg.pinv(jacobian)
    means = z @ np.linalg.inv(z.T @ z) @ z.T
    expected = [[np.trace(q @ m @ q @ part) for part in (np.eye(n), z @ z.T)] for m in (np.eye(n), means)]
    reading, run = np.linalg.solve(expected, [residual @ residual, residual @ means @ residual])
    v = q @ (run * z @ z.T + reading * np.eye(n))
    return reading, run, np.trace(v) ** 2 / np.trace(v @ v)


def test_components_are_those_of_the_whole_matrices():
    runs = np.repeat(np.arange(12), [2, 5, 3, 4, 2, 6, 3, 3, 4, 5, 2, 3])
    jacobian = np.stack([np.ones(42), RNG.standard_normal(42), RNG.standard_normal(42)], 1)
    q = np.eye(42) - jacobian @ np.linalg.pinv(jacobian)
    residual = q @ (0.7 * RNG.standard_normal(12)[runs] + 0.3 * RNG.standard_normal(42))
    found = components(residual, jacobian, runs)
    assert (found.reading, found.run, found.freedom) == pytest.approx(
        brute(residual, jacobian, runs), rel=1e-9
    )


def test_components_of_balanced_runs_are_those_of_the_analysis_of_variance():
    y = 2.0 * RNG.standard_normal(10)[:, None] + RNG.standard_normal((10, 4))
    within = ((y - y.mean(1, keepdims=True)) ** 2).sum() / 30
    between = 4 * ((y.mean(1) - y.mean()) ** 2).sum() / 9
    found = components((y - y.mean()).ravel(), np.ones((40, 1)), np.repeat(np.arange(10), 4))
    assert (found.reading, found.run) == pytest.approx((within, (between - within) / 4))


@pytest.mark.parametrize("case", ["run", "reading", "single"])
def test_components_that_would_be_negative_are_zero(case):
    """The other then stands alone, and the sum of squares is matched."""
    runs = np.arange(8) if case == "single" else np.repeat(np.arange(4), 2)
    y = {
        "run": np.tile([1.0, -1.0], 4),
        "reading": np.repeat([1.0, -2.0, 3.0, -2.0], 2),
        "single": np.arange(8.0),
    }[case]
    y = y - y.mean()
    found = components(y, np.ones((8, 1)), runs)
    if case == "reading":  # a reading's own noise is zero: E r'r = run tr(Q ZZ') = 6 run
        assert (found.reading, found.run) == pytest.approx((0.0, y @ y / 6), abs=1e-12)
        assert found.freedom == pytest.approx(3.0)
    else:
        assert (found.reading, found.run, found.freedom) == pytest.approx((y @ y / 7, 0.0, 7.0))


def test_drawn_noise_has_the_variances_asked_for():
    """Student's: variance (run + reading) f / (f - 2), correlation within a run run / (run + reading)."""
    drawn = Components(reading=0.04, run=0.25, freedom=30.0).draw(
        np.random.RandomState(1), 40000, np.array([0, 0, 1])
    )
    assert drawn.var(0) == pytest.approx([0.29 * 30 / 28] * 3, rel=0.03)
    assert np.corrcoef(drawn.T)[0, 1] == pytest.approx(0.25 / 0.29, abs=0.01)
    assert np.corrcoef(drawn.T)[0, 2] == pytest.approx(0, abs=0.03)  # one scale for a row, but no shared sign


@dataclass(frozen=True)
class Drawn:
    a: Any


@pytest.mark.parametrize("estimate", [-0.5, 0.0, 0.8, 5.0])
def test_bias_corrected_percentiles_are_efrons(estimate):
    """Percentiles at Phi(2 z0 -+ z), z0 the normal quantile of the share of draws below the estimate (Efron 1987)."""
    values = np.concatenate([RNG.standard_normal(999), [0.0]])
    boot = Bootstrap(Drawn(estimate), Drawn(values), 1000, 0, 0, "run", "pairs")
    z0 = scipy.stats.norm.ppf(
        np.clip(np.mean(values < estimate) + 0.5 * np.mean(values == estimate), 1e-3, 1 - 1e-3)
    )
    for level in (0.8, 0.95):
        z = scipy.stats.norm.ppf((1 + level) / 2)
        expected = np.quantile(values, scipy.stats.norm.cdf([2 * z0 - z, 2 * z0 + z]))
        assert boot.interval(lambda law: law.a, level) == pytest.approx(expected, rel=1e-9)
    plain = Bootstrap(Drawn(estimate), Drawn(values), 1000, 0, 0, "run", "parametric")
    assert plain.interval(lambda law: law.a, 0.9) == pytest.approx(np.quantile(values, [0.05, 0.95]))
    assert plain.sd(lambda law: law.a) == pytest.approx(values.std(ddof=1))
    low, high = plain.band(lambda law, x: x * law.a, np.array([1.0, 2.0]))
    assert high / low == pytest.approx([high[0] / low[0]] * 2) and high[1] == pytest.approx(2 * high[0])


def test_multiplicities_of_runs():
    """All together a row sums to the readings drawn; within budgets m - 1 of m runs, weighted m/(m - 1)."""
    n = np.repeat(np.geomspace(1e6, 1e8, 5), 3)
    c = np.tile([1e15, 1e16, 1e17], 5)
    shared = Points(np.ones(15) + np.arange(15), n=n, c=c, run=np.repeat(list("abcde"), 3)).completed()
    weights = resampled(shared, "run", 50, np.random.RandomState(0))
    assert (weights.sum(1) == 15).all() and (weights[:, ::3] == weights[:, 2::3]).all()
    own = Points(shared.loss, n=n, c=c, run=np.arange(15).astype(str)).completed()
    weights = resampled(own, "run", 50, np.random.RandomState(0))
    for i in range(3):
        part = weights[:, own.budgets == i]
        assert part.sum(1) == pytest.approx(np.full(50, 5.0))
        assert (np.isclose(part % 1.25, 0) | np.isclose(part % 1.25, 1.25)).all()
    assert resampled(own, "point", 3, np.random.RandomState(0)).sum(1) == pytest.approx([15] * 3)


def test_repeats_are_the_noise_about_their_means():
    """Two seeds at each of 20 places: half the mean squared difference of ln L is the variance."""
    log = 0.1 * RNG.standard_normal((20, 2))
    n, d = np.repeat(np.geomspace(1, 20, 20), 2), np.repeat(np.geomspace(1, 50, 20), 2)
    found = _repeats(Points(np.exp(log).ravel(), n=n, d=d, run=np.arange(40).astype(str)))
    assert found.reading == pytest.approx(np.mean((log[:, 0] - log[:, 1]) ** 2) / 2)
    assert found.freedom == pytest.approx(20)


@pytest.mark.parametrize("method", ["pairs", "parametric"])
def test_the_spread_of_a_straight_line_is_the_textbooks(method):
    """sd of a slope: sigma / sqrt(sum (x - mean)^2), sigma^2 of n - 2 degrees of freedom."""
    x = np.geomspace(1e10, 1e16, 60)
    points = Points(np.exp(0.02 * RNG.standard_normal(60)) * x**-0.1, c=x)
    boot = bootstrap(points, fit_power(points, loss="mse_log"), 2000, 0, "point", method)
    assert boot.method == method and boot.failed == 0
    assert boot.sd(lambda law: law.exponent) == pytest.approx(
        scipy.stats.linregress(np.log(x), np.log(points.loss)).stderr, rel=0.12
    )


@pytest.mark.parametrize("seed", range(3))
def test_least_absolute_deviations_end_on_their_points(seed):
    """A line by least absolute deviations passes through two points exactly, not within a narrow Huber loss."""
    rng = np.random.default_rng(seed)
    points = Points(
        np.exp(0.1 * rng.standard_normal(12)) * np.geomspace(1, 10, 12), c=np.geomspace(1, 1e4, 12)
    )
    fit = fit_power(points, loss="lad")
    residual = np.sort(np.abs(np.log(points.loss / fit.at(points.c))))
    assert residual[1] < 1e-13 < 1e-4 < residual[2]
    x, y = np.log(points.c), np.log(points.loss)
    pairs = [
        (i, j) for i in range(12) for j in range(i)
    ]  # an optimum lies among the lines through two points
    slopes = [(y[i] - y[j]) / (x[i] - x[j]) for i, j in pairs]
    best = min(np.abs(y - y[j] - s * (x - x[j])).sum() for (_, j), s in zip(pairs, slopes))
    assert fit.objective == pytest.approx(best, rel=1e-12)


def test_profiles_of_a_straight_line_are_students():
    """Ends of the exponent's interval: slope -+ t(n - 2) stderr; the deviance there is t^2."""
    x = np.geomspace(1, 1e4, 14)
    points = Points(np.exp(0.05 * RNG.standard_normal(14)) * x**-0.2, c=x)
    one = profiles(points, fit_power(points, loss="mse_log"))["exponent"]
    line = scipy.stats.linregress(np.log(x), np.log(points.loss))
    for level in (0.8, 0.95):
        t = scipy.stats.t.ppf((1 + level) / 2, 12)
        assert one.bars[level] == pytest.approx(t**2)
        expected = line.slope - t * line.stderr, line.slope + t * line.stderr
        assert one.intervals[level] == pytest.approx(expected, rel=1e-6)
    assert one.estimate == pytest.approx(line.slope)
    assert one.deviance == pytest.approx(((one.values - line.slope) / line.stderr) ** 2, rel=1e-6, abs=1e-9)
    assert (np.diff(one.values) > 0).all() and one.identified


def test_shared_noise_widens_profiles_by_its_design_effect():
    """Every reading given twice under one run is one reading: the interval is that of single ones, within 5 %."""
    x = np.geomspace(1, 1e4, 14)
    loss = np.exp(0.05 * RNG.standard_normal(14)) * x**-0.2
    twice = Points(
        np.tile(loss, 2), c=np.concatenate([x, x * (1 + 1e-9)]), run=np.tile(np.arange(14).astype(str), 2)
    )
    single = Points(loss, c=x)
    ends = [profiles(p, fit_power(p, loss="mse_log"))["exponent"].intervals[0.95] for p in (twice, single)]
    twice, single = (high - low for low, high in ends)
    assert 0.95 < twice / single < 1.01


def repeated(n=5, d=6):
    size, data = (g.ravel() for g in np.meshgrid(np.geomspace(1e6, 1e9, n), np.geomspace(1e8, 1e11, d)))
    return Points(np.ones(n * d) + np.arange(n * d), n=size, d=data, unique=np.full(n * d, 3e9))


def by_hand(n, d, unique):
    """2305.16264, equations 5 and 6, one point at a time."""
    e, a, alpha, b, beta, r_d, r_n = 1.5, 400.0, 0.34, 500.0, 0.3, 15.0, 5.0
    u = min(unique, d)
    g = (alpha * a / (beta * b)) ** (1 / (alpha + beta))
    supported = min(n, (u * g) ** (beta / alpha) * g)  # of equation 7: U_N for U_D at the best allocation
    d_eff = u + u * r_d * (1 - np.exp(-(d / u - 1) / r_d))
    n_eff = supported + supported * r_n * (1 - np.exp(-(n / supported - 1) / r_n))
    return a / n_eff**alpha, b / d_eff**beta, e


def test_terms_of_the_law_of_repeated_data_are_the_papers():
    points = repeated()
    law = DataLimitedLaw(1.5, 400.0, 0.34, 500.0, 0.3, 15.0, 5.0, 6.0)
    terms = np.array([by_hand(*row) for row in zip(points.n, points.d, points.unique)])
    assert law.predict_points(points) == pytest.approx(terms.sum(1), rel=1e-9)
    problem = DataLimitedProblem(
        Points(law.predict_points(points), n=points.n, d=points.d, unique=points.unique), "mse", 1
    )
    theta = problem.to_theta(law)[None]
    shares = np.stack([share[0] for share in problem.law.shares(theta)], 1)
    assert shares == pytest.approx(terms / terms.sum(1, keepdims=True), rel=1e-9)
    assert problem.law.value(theta)[0] == pytest.approx(np.log(terms.sum(1)), rel=1e-9)
    slopes, step = problem.law.jacobian(theta)[0], 1e-6
    for j in range(7):
        moved = theta + step * np.eye(7)[j]
        assert slopes[:, j] == pytest.approx(
            (problem.law.value(moved) - problem.law.value(theta))[0] / step, abs=2e-5
        )


def test_lines_are_numpys(grid):
    log_c, log_y = np.arange(6.0), RNG.standard_normal((4, 6))
    use = np.ones((4, 6), bool)
    use[1, ::2], use[3, 1:] = False, False
    coefficient, exponent = lines(log_c, log_y, use)
    for i in range(3):
        slope, height = np.polyfit(log_c[use[i]], log_y[i][use[i]], 1)
        assert (np.log(coefficient[i]), exponent[i]) == pytest.approx((height, slope))
    assert np.isnan(exponent[3])


def test_minima_of_parabolas_are_numpys(grid):
    fit = fit_isoflop(grid, np.inf)
    for i, valley in enumerate(fit.valleys):
        here = grid.budgets == i
        minimum = []
        for x in (np.log(grid.n[here]), np.log(grid.d[here])):
            two, one, zero = np.polyfit(x, grid.loss[here], 2)
            minimum.append(np.exp(-one / (2 * two)))
        least = zero - one**2 / (4 * two)
        assert (valley.n_opt, valley.d_opt, valley.loss_opt) == pytest.approx((*minimum, least), rel=1e-6)
        assert valley.at(valley.n_opt) == pytest.approx(valley.loss_opt)
        assert (valley.sizes, valley.n_points, valley.flops) == (6, 6, pytest.approx(grid.budget_flops[i]))
    slope, height = np.polyfit(np.log(grid.budget_flops), np.log([v.n_opt for v in fit.valleys]), 1)
    assert (fit.a, np.log(fit.n_coefficient)) == pytest.approx((slope, height))
    held = holdout_minimum(grid, np.inf)
    slope, height = np.polyfit(
        np.log(grid.budget_flops[:-1]), np.log([v.loss_opt for v in fit.valleys[:-1]]), 1
    )
    assert held.predicted[2] == pytest.approx(np.exp(height) * held.budget**slope)
    assert held.measured == pytest.approx(
        (fit.valleys[-1].n_opt, fit.valleys[-1].d_opt, fit.valleys[-1].loss_opt)
    )


def test_the_envelope_is_that_of_a_loop(grid):
    fit, best, kept = fit_envelope(grid), np.inf, []
    for i in np.lexsort((grid.loss, grid.c)):
        if grid.loss[i] < best:
            kept, best = [*kept, i], grid.loss[i]
    assert list(fit.frontier) == kept
    slope, height = np.polyfit(np.log(grid.c[kept]), np.log(grid.loss[kept]), 1)
    assert (fit.loss_exponent, np.log(fit.loss_coefficient)) == pytest.approx((slope, height))


def test_the_allocation_of_the_additive_law_is_the_least_along_its_budget():
    law, c = AdditiveLaw(1.7, 400.0, 0.34, 410.0, 0.28, 6.0), 1e21
    n = np.geomspace(1e7, 1e12, 200001)
    losses = law.predict(n, c / (6 * n))
    assert law.n_opt(c) == pytest.approx(n[losses.argmin()], rel=1e-3)
    assert law.d_opt(c) == pytest.approx(c / (6 * law.n_opt(c)))
    assert law.loss_opt(c) == pytest.approx(losses.min())
    assert law.n_opt(10 * c) / law.n_opt(c) == pytest.approx(10**law.a) and law.a + law.b == pytest.approx(1)


def test_likelihoods_are_those_of_scipys_densities(grid):
    """Laplace's with the scale mean |r|, Gauss's with the rms: at their maximum."""
    for loss, density in (("lad", scipy.stats.laplace), ("mse_log", scipy.stats.norm)):
        fit = fit_additive(grid, loss)
        residual = np.log(grid.loss / fit.predict_points(grid))
        scale = np.abs(residual).mean() if loss == "lad" else np.sqrt((residual**2).mean())
        assert likelihood(grid, fit) == (6, pytest.approx(density.logpdf(residual, scale=scale).sum()))
    fit = fit_additive(grid, "mse")
    residual = grid.loss - fit.predict_points(grid)
    expected = scipy.stats.norm.logpdf(residual, scale=np.sqrt((residual**2).mean())).sum()
    assert likelihood(grid, fit)[1] == pytest.approx(expected)
    (one,) = compare(grid, ("additive",), "mse")
    assert one.aic == pytest.approx(12 - 2 * expected) and one.bic == pytest.approx(
        6 * np.log(24) - 2 * expected
    )


def test_hold_outs_are_fits_to_the_rest(grid):
    for i, one in enumerate(holdout_by_budget(grid, "additive", "mse_log")):
        out = grid.budgets == i
        miss = np.log(fit_additive(grid[~out], "mse_log").predict(grid.n[out], grid.d[out]) / grid.loss[out])
        assert (one.n, one.budget) == (6, pytest.approx(grid.budget_flops[i]))
        assert (one.bias, one.rms) == pytest.approx((miss.mean(), np.sqrt((miss**2).mean())))
    last = holdout(grid, "additive", "mse_log", draws=100)
    assert last.predicted == pytest.approx(one.predicted)
    assert (last.low < last.predicted).all() and (last.predicted < last.high).all()
    width = np.log(last.high / last.low) / 3.92  # of law and noise together: more than a reading's own .003
    assert (width > 0.0025).all() and (width < 0.05).all()
    assert last.covered == np.sum((last.low <= last.measured) & (last.measured <= last.high))


def test_sensitivity_is_what_refits_give(grid):
    fit = fit_additive(grid)
    found = {(one.choice, one.value): one for one in sensitivity(grid, fit, "additive")}
    expected = {
        ("loss", "mse"): fit_additive(grid, "mse"), ("delta", "0.01"): fit_additive(grid, delta=0.01),
        ("delta", "0.0001"): fit_additive(grid, delta=1e-4),
        ("budgets", f"C >= {grid.budget_flops[1]:.3g}"): fit_additive(grid[grid.budgets > 0]),
        ("budgets", f"C <= {grid.budget_flops[2]:.3g}"): fit_additive(grid[grid.budgets < 3]),
        ("outliers", "2 highest losses dropped"): fit_additive(grid[np.sort(np.argsort(grid.loss)[:22])]),
        ("outliers", "1 largest residuals dropped"): fit_additive(
            grid[np.sort(np.argsort(np.abs(np.log(grid.loss / fit.predict_points(grid))))[:23])]
        ),
    }  # fmt: skip
    for key, refit in expected.items():
        assert found[key].exponent == pytest.approx(refit.a, abs=1e-9), key
        assert found[key].shift == pytest.approx(refit.a - fit.a, abs=1e-9)
        assert found[key].n == refit.searched.n


def test_a_wide_huber_loss_has_the_profile_of_least_squares():
    x = np.geomspace(1, 1e4, 14)
    points = Points(np.exp(0.05 * RNG.standard_normal(14)) * x**-0.2, c=x)
    wide, squares = (
        profiles(points, fit_power(points, loss=name, delta=1.0))["exponent"] for name in ("huber", "mse_log")
    )
    assert wide.intervals[0.95] == pytest.approx(squares.intervals[0.95], rel=1e-6)


def test_the_deviance_of_least_absolute_deviations():
    """A slope held, the height is a median; 4 f(0) per unit of the objective, f(0) the residuals' density at zero."""
    x, n = np.geomspace(1, 1e4, 15), 15
    points = Points(np.exp(0.05 * RNG.standard_normal(n)) * x**-0.2, c=x)
    fit = fit_power(points, loss="lad")
    one = profiles(points, fit)["exponent"]
    log_x, log_y = np.log(x), np.log(points.loss)

    def objective(slope):
        rest = log_y - slope * log_x
        return np.abs(rest - np.median(rest)).sum()

    rest = log_y - fit.exponent * log_x - np.log(fit.coefficient)
    width = 0.9 * min(np.std(rest), scipy.stats.iqr(rest) / 1.349) * n**-0.2  # Silverman's rule
    density = np.mean(np.abs(rest) < width) / (2 * width)
    rise = np.array([objective(slope) for slope in one.values]) - fit.objective
    assert one.deviance == pytest.approx((n - 2) / n * 4 * density * rise, rel=1e-6, abs=1e-6)


def test_the_cost_of_half_and_twice_the_best_size(grid):
    fit = fit_additive(grid)
    row = answer(fitted(grid, draws=0), [1e18])["allocation"][0]
    n, d = fit.n_opt(1e18), fit.d_opt(1e18)
    least = fit.E + fit.A * n**-fit.alpha + fit.B * d**-fit.beta
    for key, factor in (("loss_ratio_at_twice_n", 2.0), ("loss_ratio_at_half_n", 0.5)):
        off = fit.E + fit.A * (factor * n) ** -fit.alpha + fit.B * (d / factor) ** -fit.beta
        assert row[key] == pytest.approx(off / least, rel=1e-9)


def test_directions_of_a_held_ratio_keep_it():
    axis, theta = Axis(3, 0.01, 0.99, other=1), np.array([1.0, 0.3, 2.0, 0.4, 0.5])
    start, basis = axis.hold(theta, np.array([0.2, 0.7]))
    for moved in (start, start + 0.05 * basis.sum(2), start - 0.02 * basis[:, :, 0]):
        assert axis.position(moved) == pytest.approx([0.2, 0.7])
    assert [np.linalg.matrix_rank(one) for one in basis] == [4, 4]


def test_profiles_are_dense_around_the_estimate():
    """33 values within four standard deviations, however little of the whole range these are."""
    x = np.geomspace(1, 1e4, 14)
    points = Points(np.exp(1e-4 * RNG.standard_normal(14)) * x**-0.2, c=x)
    fit = fit_power(points, loss="mse_log")
    one = profiles(points, fit)["exponent"]
    assert (np.abs(one.values - fit.exponent) < 4.01 * fit.stderr).sum() >= 33


@pytest.mark.parametrize("loss", [1.05e100, 1e100, 1 / 1e100, 0.95e-100, 0.0, np.inf])
def test_numbers_whose_squares_are_none_are_refused(loss):
    with pytest.raises(InputError, match="positive finite"):
        Points(np.array([1.0, loss]))
