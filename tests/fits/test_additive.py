"""The additive law against truth, independent optimisers and its own symmetries."""

import numpy as np
import pytest
from scipy.optimize import linprog, minimize, nnls

from dit.errors import InputError
from dit.fits.additive import AdditiveProblem, fit_additive
from dit.fits.losses import NAMES, smooth_loss
from dit.fits.points import Points
from dit.fits.power import fit_power
from dit.fits.remarks import other_loss
from tests.fits.surfaces import Truth, isoflop_points, random_truth

TRUTH = Truth()


@pytest.mark.parametrize("loss", NAMES)
def test_points_without_noise_give_the_truth_back(loss):
    fit = fit_additive(isoflop_points(TRUTH), loss)
    assert (fit.E, fit.alpha, fit.beta) == pytest.approx((TRUTH.e, TRUTH.alpha, TRUTH.beta), rel=1e-4)
    assert fit.a == pytest.approx(TRUTH.exponent(), rel=1e-4)
    assert fit.n_opt(1e20) == pytest.approx(TRUTH.n_opt(1e20), rel=1e-3)
    assert fit.loss_opt(1e20) == pytest.approx(TRUTH.loss_opt(1e20), rel=1e-5)


def test_allocation_is_the_minimum_over_sizes_at_fixed_compute():
    fit = fit_additive(isoflop_points(TRUTH, 0.003))
    c = 1e21
    n = fit.n_opt(c) * np.exp(np.linspace(-0.02, 0.02, 401))
    lowest = n[np.argmin(fit.predict(n, c / (fit.k * n)))]
    assert lowest == pytest.approx(fit.n_opt(c), rel=1e-4)
    assert fit.k * fit.n_opt(c) * fit.d_opt(c) == pytest.approx(c)
    assert fit.a + fit.b == pytest.approx(1.0)


@pytest.mark.parametrize("loss", ["huber", "mse_log", "mse"])
def test_gradient_and_hessian_are_the_differences_of_the_objective(loss):
    points = isoflop_points(TRUTH, 0.01, budgets=3, sizes=5)
    problem = AdditiveProblem(points, loss, 0.02)
    derivatives = smooth_loss(loss, 0.02).derivatives

    def value(theta):
        return derivatives(problem.law.value(theta[None]), problem.y)[0].sum()

    def gradient(theta):
        f, shares = problem.law.value_and_shares(theta[None])
        _, first, second = derivatives(f, problem.y)
        return problem.law.contract(shares, first, second)

    theta, h = np.array([-1.2, 0.3, -1.0, 0.4, 0.1]), 1e-6
    steps = h * np.eye(5)
    slope = [(value(theta + s) - value(theta - s)) / (2 * h) for s in steps]
    curve = [(gradient(theta + s)[0][0] - gradient(theta - s)[0][0]) / (2 * h) for s in steps]
    assert gradient(theta)[0][0] == pytest.approx(np.array(slope), rel=1e-5, abs=1e-6)
    assert gradient(theta)[1][0] == pytest.approx(np.array(curve), rel=1e-5, abs=1e-4)


def test_least_squares_equals_variable_projection_by_another_route():
    """min over (alpha, beta) of scipy's non-negative least squares in (A, B, E), from several starts."""
    points = isoflop_points(TRUTH, 0.005, seed=3)
    n, d, loss = points.get("n"), points.get("d"), points.loss

    def rss(exponents):
        design = np.stack([(n / 1e7) ** -exponents[0], (d / 1e9) ** -exponents[1], np.ones_like(n)], 1)
        return nnls(design, loss)[1] ** 2

    options = {"xatol": 1e-10, "fatol": 1e-16, "maxiter": 4000}
    found = [
        minimize(rss, start, method="Nelder-Mead", options=options) for start in ([0.3, 0.3], [0.6, 0.2])
    ]
    best = min(found, key=lambda one: one.fun)
    fit = fit_additive(points, "mse")
    assert fit.objective == pytest.approx(best.fun, rel=1e-9)
    assert (fit.alpha, fit.beta) == pytest.approx(tuple(best.x), rel=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_no_other_optimiser_finds_a_lower_objective(seed):
    """scipy's L-BFGS from 40 random starts, on surfaces with noise, outliers and few sizes."""
    rng = np.random.default_rng(seed)
    truth = random_truth(rng)
    points = isoflop_points(truth, noise=0.02, seed=seed, budgets=4, sizes=5)
    loss = np.where(rng.random(len(points)) < 0.1, points.loss * 1.3, points.loss)
    points = Points(loss, n=points.n, d=points.d)
    fit = fit_additive(points, "huber", 1e-3)
    log_n, log_d = np.log(points.get("n") / 1e7), np.log(points.get("d") / 1e9)

    def objective(theta):
        f = np.logaddexp(np.logaddexp(theta[0] - theta[1] * log_n, theta[2] - theta[3] * log_d), theta[4])
        r = np.abs(f - np.log(loss))
        return np.sum(np.where(r <= 1e-3, 0.5 * r * r, 1e-3 * (r - 5e-4))) / 1e-3

    best = min(minimize(objective, rng.normal([-1, 0.5, -1, 0.5, 0], 1.0)).fun for _ in range(40))
    assert fit.objective / 1e-3 <= best * (1 + 1e-9)


@pytest.mark.parametrize("seed", [124, 136])
def test_squares_of_outliers_leave_no_lower_objective(seed):
    """Noise with Student's 1.5: what a fit of misses relative to L is drawn to is not what squares of ln L want."""
    rng = np.random.default_rng(seed)
    n, d = 10 ** rng.uniform(7, 10, 25), 10 ** rng.uniform(8, 12, 25)
    loss = (1.7 + 400 * n**-0.34 + 400 * d**-0.28) * np.exp(0.03 * rng.standard_t(1.5, 25))
    log_n, log_d = np.log(n / 3e8), np.log(d / 1e10)

    def objective(theta):
        f = np.logaddexp(np.logaddexp(theta[0] - theta[1] * log_n, theta[2] - theta[3] * log_d), theta[4])
        return 0.5 * np.sum((f - np.log(loss)) ** 2)

    starts = np.column_stack([rng.normal(0, 2, 40), rng.lognormal(-1, 1, 40), rng.normal(0, 2, 40),
                              rng.lognormal(-1, 1, 40), rng.normal(0, 1, 40)])  # fmt: skip
    best = min(minimize(objective, start).fun for start in starts)
    assert fit_additive(Points(loss, n=n, d=d), "mse_log").objective <= best * (1 + 1e-9)


def test_least_absolute_deviations_are_optimal_to_first_order():
    """No direction lowers the sum of |r|: the linear programme around the optimum gains nothing."""
    points = isoflop_points(TRUTH, 0.01, seed=1)
    fit = fit_additive(points, "lad")
    problem = fit.problem(points)
    residual, slopes = problem.fitted(fit) - problem.y, problem.jacobian(fit)
    m, p = slopes.shape
    cost = np.concatenate([np.zeros(p), np.ones(m)])
    above, below = np.hstack([slopes, -np.eye(m)]), np.hstack([-slopes, -np.eye(m)])
    found = linprog(
        cost,
        np.vstack([above, below]),
        np.concatenate([-residual, residual]),
        bounds=[(-1e-3, 1e-3)] * p + [(0, None)] * m,
    )
    assert found.fun == pytest.approx(fit.objective, rel=1e-6)
    assert fit.objective == pytest.approx(np.abs(residual).sum(), rel=1e-12)


def test_units_of_size_and_data_do_not_matter():
    points = isoflop_points(TRUTH, 0.005)
    one = fit_additive(points)
    other = fit_additive(Points(points.loss, n=points.get("n") * 1e-6, d=points.get("d") * 1e4))
    assert (other.a, other.E, other.objective) == pytest.approx((one.a, one.E, one.objective), rel=1e-8)
    assert pytest.approx(one.A * 1e-6**one.alpha, rel=1e-6) == other.A


def test_wide_huber_is_least_squares_of_the_logarithm():
    points = isoflop_points(TRUTH, 0.005)
    wide, square = fit_additive(points, "huber", 10.0), fit_additive(points, "mse_log")
    assert wide.objective == pytest.approx(square.objective, rel=1e-9)
    assert wide.a == pytest.approx(square.a, abs=1e-6)


def test_a_floor_of_zero_is_found_and_said_so():
    truth = Truth(e=1e-12)
    points = isoflop_points(truth, 0.01, seed=2)
    points = Points(points.loss * np.exp(-0.02 * np.log(points.get("n")) ** 2 / 50), n=points.n, d=points.d)
    fit = fit_additive(points, "mse_log")
    assert fit.searched.absent == ("E",)
    assert pytest.approx(0, abs=1e-6) == fit.E


@pytest.mark.parametrize("loss", ["huber", "mse_log", "mse"])
def test_without_a_floor_the_objective_is_that_of_the_law_without_one(loss):
    """scipy on ln(A n^-alpha + B d^-beta): at a boundary the slope in ln E fades before E is gone."""
    rng = np.random.default_rng(0)
    n, d = 10 ** rng.uniform(7, 10, 40), 10 ** rng.uniform(8, 12, 40)
    points = Points((40 * n**-0.25 + 40 * d**-0.3 - 0.05) * np.exp(0.01 * rng.standard_normal(40)), n=n, d=d)
    fit = fit_additive(points, loss)
    log_n, log_d, y = np.log(n / 1e8), np.log(d / 1e10), np.log(points.loss)
    shape = smooth_loss(loss, 1e-3)

    def objective(theta):
        f = np.logaddexp(theta[0] - theta[1] * log_n, theta[2] - theta[3] * log_d)
        return shape.unit * shape.derivatives(f, y)[0].sum()

    best = np.array([-0.9, 0.25, -3.2, 0.3])
    options = {"xatol": 1e-12, "fatol": 1e-18, "maxiter": 20000, "maxfev": 20000}
    for _ in range(3):
        best = minimize(objective, best, method="Nelder-Mead", options=options).x
    assert fit.searched.absent == ("E",)
    assert fit.objective <= objective(best) * (1 + 1e-11)


@pytest.mark.parametrize("loss", NAMES)
def test_a_floor_lost_on_the_way_is_found_again(loss, monkeypatch):
    """From starts where the floor has all but vanished, and with it its slope, to the optimum that has one."""
    points = isoflop_points(TRUTH, 0.005)
    expected = fit_additive(points, loss)
    start = AdditiveProblem(points, loss, 1e-3).to_theta(expected) - np.array([0, 0, 0, 0, 40.0])
    monkeypatch.setattr(AdditiveProblem, "starts", lambda self: start[None])
    found = fit_additive(points, loss)
    assert found.objective == pytest.approx(expected.objective, rel=1e-9)
    assert pytest.approx(expected.E, rel=1e-6) == found.E


@pytest.mark.parametrize("noise", [0.0, 1e-7, 0.03])
@pytest.mark.parametrize("delta", [1e-4, 1e-6, 1e-8])
def test_a_narrow_huber_loss_converges(noise, delta):
    """From every start, to where nothing near is lower."""
    points = isoflop_points(TRUTH, noise, budgets=4, sizes=6)
    fit = fit_additive(points, "huber", delta)
    assert fit.searched.converged == fit.searched.starts
    if noise > 0:  # at its optimum nothing is lower, and lad is no further than half a delta per point
        lad = fit_additive(points, "lad").objective
        assert lad - 0.5 * delta * len(points) <= fit.objective / delta <= lad
    theta, problem = fit.problem(points).to_theta(fit), fit.problem(points)
    rng = np.random.default_rng(0)
    near = theta + 1e-6 * rng.standard_normal((50, 5))
    assert all(problem.objective(row) >= fit.objective * (1 - 1e-9) for row in near)


@pytest.mark.parametrize(
    ("delta", "other"), [(1e-9, "lad"), (1e-12, "lad"), (1e5, "mse_log"), (1e200, "mse_log")]
)
def test_a_huber_loss_at_its_limits_is_another_and_says_so(delta, other):
    points = isoflop_points(TRUTH, 0.03, budgets=4, sizes=6)
    fit, expected = fit_additive(points, "huber", delta), fit_additive(points, other)
    assert fit.searched.loss == other
    assert (fit.a, fit.objective) == (expected.a, expected.objective)
    (told,) = other_loss(fit, "huber", delta)
    assert other in told
    assert not other_loss(fit_additive(points), "huber", 1e-3)


@pytest.mark.parametrize("floor", [False, True])
def test_points_given_twice_cost_twice(floor):
    """Least absolute deviations pass through a point and its copy at once."""
    points = isoflop_points(TRUTH, 0.01, seed=1)
    twice = Points(np.tile(points.loss, 2), c=np.tile(points.get("c"), 2))
    one, two = fit_power(Points(points.loss, c=points.c), floor, "lad"), fit_power(twice, floor, "lad")
    assert two.objective == pytest.approx(2 * one.objective, rel=1e-12)
    assert two.searched is not None
    assert two.searched.agreed == two.searched.starts


def test_one_budget_is_refused():
    points = isoflop_points(TRUTH, budgets=1, sizes=9)
    with pytest.raises(InputError, match="one budget only"):
        fit_additive(points)


def test_too_few_points_are_refused():
    with pytest.raises(InputError, match=r"\(5 points\).*more points than the 5 parameters"):
        fit_additive(isoflop_points(TRUTH)[:5])


def test_an_unknown_loss_is_refused():
    with pytest.raises(InputError, match="loss: got 'l2'; allowed: one of huber, lad, mse_log, mse"):
        fit_additive(isoflop_points(TRUTH), "l2")
