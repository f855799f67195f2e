"""The law of repeated data against the paper's formulas, differences, and optimisers and minimisers of scipy."""

import numpy as np
import pytest
from scipy.optimize import minimize

from dit.errors import InputError
from dit.fits.bootstrap import bootstrap
from dit.fits.data_limited import DataLimitedLaw, DataLimitedProblem, fit_data_limited
from dit.fits.losses import smooth_loss
from dit.fits.points import Points
from dit.fits.profile import profiles
from tests.fits.surfaces import Truth, isoflop_points

REPEATED = DataLimitedLaw(1.87, 521.0, 0.353, 1488.0, 0.353, 15.4, 5.3, 6.0)


def repeated_points(noise: float, seed: int = 0, epochs=(0.5, 1, 2, 4, 8, 16, 40, 80)) -> Points:
    rng = np.random.default_rng(seed)
    n, unique = 10 ** rng.uniform(7, 9.7, 120), 10 ** rng.choice([8, 8.5, 9, 9.5, 10], 120)
    d = unique * rng.choice(epochs, 120)
    loss = REPEATED.predict(n, d, unique) * np.exp(noise * rng.standard_normal(120))
    return Points(loss, n=n, d=d, unique=unique)


def repeated_grid(law: DataLimitedLaw, noise: float, seed: int) -> Points:
    """6 budgets half a decade apart, 7 sizes over x8 around the best without repetition; up to 100 epochs."""
    flops = 6e19 * 10 ** (0.5 * np.arange(6))
    a, g = (
        law.beta / (law.alpha + law.beta),
        (law.alpha * law.A / (law.beta * law.B)) ** (1 / (law.alpha + law.beta)),
    )
    budget = np.repeat(flops, 7)
    n = g * (budget / 6) ** a * np.tile(np.geomspace(8**-0.5, 8**0.5, 7), 6)
    d = budget / (6 * n)
    unique = np.full(42, d.max() / 100)
    loss = law.predict(n, d, unique) * np.exp(noise * np.random.default_rng(seed).standard_normal(42))
    return Points(loss, n=n, d=d, c=budget, budget=budget, unique=unique)


def test_the_law_is_the_papers():
    """Muennighoff et al. 2305.16264, equations 5 and 6, with U_N from Hoffmann's allocation of U_D tokens."""
    e, a, alpha, b, beta = 1.87, 521.0, 0.353, 1488.0, 0.353
    n, d, unique = 5e9, 3e10, 1e9
    g = (alpha * a / (beta * b)) ** (1 / (alpha + beta))
    c = 6 * (unique * g) ** ((alpha + beta) / alpha)  # the compute whose best data is U_D
    u_n = min(n, g * (c / 6) ** (beta / (alpha + beta)))
    n_eff = u_n + u_n * 5.3 * (1 - np.exp(-(n / u_n - 1) / 5.3))
    d_eff = unique + unique * 15.4 * (1 - np.exp(-(d / unique - 1) / 15.4))
    assert REPEATED.predict(n, d, unique) == pytest.approx(
        e + a * n_eff**-alpha + b * d_eff**-beta, rel=1e-12
    )


def test_without_repetition_data_counts_in_full():
    assert REPEATED.predict(1e7, 1e9, 1e10) == pytest.approx(1.87 + 521 * 1e7**-0.353 + 1488 * 1e9**-0.353)


def test_slopes_are_the_differences_of_the_value():
    problem = DataLimitedProblem(repeated_points(0.01), "huber", 1e-3)
    theta, h = problem.starts()[5:6] + 0.01, 1e-6
    steps = h * np.eye(7)
    slopes = [(problem.law.value(theta + s) - problem.law.value(theta - s))[0] / (2 * h) for s in steps]
    assert problem.law.jacobian(theta)[0] == pytest.approx(np.stack(slopes, 1), abs=1e-7)


@pytest.mark.parametrize(("log_rd", "log_rn"), [(2.7, 1.7), (0.2, -1.0), (9.0, 20.0)])
def test_gradient_and_hessian_are_the_differences_of_the_objective(log_rd, log_rn):
    problem = DataLimitedProblem(repeated_points(0.01), "mse", 1e-3)
    derivatives = smooth_loss("mse", 1e-3).derivatives
    theta, h = np.array([-1.2, 0.35, -1.1, 0.4, 0.6, log_rd, log_rn]), 1e-6

    def value(theta):
        return derivatives(problem.law.value(theta[None]), problem.y)[0].sum()

    def sums(theta):
        f, state = problem.law.value_and_shares(theta[None])
        return problem.law.contract(state, *derivatives(f, problem.y)[1:])

    steps = h * np.eye(7)
    slope = [(value(theta + s) - value(theta - s)) / (2 * h) for s in steps]
    curve = [(sums(theta + s)[0][0] - sums(theta - s)[0][0]) / (2 * h) for s in steps]
    assert sums(theta)[0][0] == pytest.approx(np.array(slope), rel=1e-5, abs=1e-6)
    assert sums(theta)[1][0] == pytest.approx(np.array(curve), rel=1e-5, abs=1e-5)


def test_a_step_along_the_valley_keeps_the_sum_of_the_terms():
    """To first order as asked, to second order where E gives way; a fixed parameter stays where it is."""
    law = DataLimitedProblem(repeated_points(0.01), "mse", 1e-3).law
    theta = np.array([[-1.2, 0.35, -1.1, 0.4, 0.6, 2.0, 2.0]])
    tangent = np.array([[0.3, 0.0, 0.0, 0.0, -0.3 * np.exp(-1.2 - 0.6), 0.0, 0.0]])
    for size in (1.0, 1e-4):
        moved = law.moved(theta, size * tangent)
        assert np.exp(moved[0, [0, 2, 4]]).sum() == pytest.approx(
            np.exp(theta[0, [0, 2, 4]]).sum(), rel=1e-12
        )
        assert moved[0, :4] == pytest.approx((theta + size * tangent)[0, :4])
    assert (moved - theta)[0] / 1e-4 == pytest.approx(tangent[0], abs=1e-4)


@pytest.mark.parametrize("loss", ["huber", "mse_log", "mse"])
def test_points_without_noise_give_the_truth_back(loss):
    fit = fit_data_limited(repeated_points(0.0), loss)
    found = (fit.E, fit.alpha, fit.beta, fit.R_D, fit.R_N)
    assert found == pytest.approx((1.87, 0.353, 0.353, 15.4, 5.3), rel=1e-3)


@pytest.mark.parametrize("seed", [0, 1])
def test_no_start_of_scipys_finds_a_better_optimum(seed):
    """L-BFGS-B on the paper's law in plain logarithms, from 12 random starts, on 42 points of grids."""
    points = repeated_grid(REPEATED, 0.005, seed)
    fit = fit_data_limited(points, "mse_log")
    y, columns = np.log(points.loss), (points.n, points.d, points.unique)

    def half_squares(q):
        e, a, alpha, b, beta, r_d, r_n = np.exp(q[[4, 0, 1, 2, 3, 5, 6]])
        law = DataLimitedLaw(e, a, alpha, b, beta, r_d, r_n, 6.0)
        return 0.5 * ((np.log(law.predict(*columns)) - y) ** 2).sum()

    rng = np.random.default_rng(seed)
    bounds = [(-5, 15), (-3, 0.5), (-5, 15), (-3, 0.5), (-3, 1.5), (-1, 9), (-1, 9)]
    middle = np.log([521, 0.353, 1488, 0.353, 1.87, 15.4, 5.3])
    starts = middle + rng.uniform(-1, 1, (12, 7)) * [2, 0.4, 2, 0.4, 0.5, 2, 2]
    best = min(minimize(half_squares, start, method="L-BFGS-B", bounds=bounds).fun for start in starts)
    assert fit.objective <= best * (1 + 1e-6)


def test_every_draw_of_a_grid_converges():
    points = repeated_grid(REPEATED, 0.005, 1)
    boot = bootstrap(points, fit_data_limited(points), 200)
    assert boot.failed <= 2


def test_intervals_hold_the_truth():
    points = repeated_points(0.003)
    fit = fit_data_limited(points)
    boot = bootstrap(points, fit, 200)
    low, high = boot.interval(lambda law: law.R_D)
    assert low < 15.4 < high
    assert fit.searched.agreed >= fit.searched.starts // 2


@pytest.mark.parametrize("seed", range(3))
def test_trials_outside_of_the_law_end_no_fit(seed):
    """Hardly any repetition: least absolute deviations try negative exponents on the way."""
    points = isoflop_points(Truth(), 0.003, seed=seed, budgets=5, sizes=7)
    d = points.get("d")
    fit = fit_data_limited(Points(points.loss, n=points.n, d=d, unique=np.minimum(d, 0.7 * d.max())), "lad")
    assert np.isfinite(fit.objective)


def test_profiles_hold_exponents_so_low_that_the_supported_size_overflows():
    points = repeated_points(0.003)[:40]
    found = profiles(points, fit_data_limited(points, "mse_log"), ("alpha", "R_D"))
    low, high = found["alpha"].intervals[0.95]
    assert low is not None and high is not None
    assert low < 0.353 < high


def test_unrepeated_data_are_refused():
    with pytest.raises(InputError, match=r"columns.unique: got \(0 points with D above it\)"):
        fit_data_limited(repeated_points(0.01, epochs=(0.5, 1.0)))
