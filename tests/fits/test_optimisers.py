"""The optimisers step by step, against loops over single rows made of scipy and of textbook formulas."""

from itertools import product

import numpy as np
import pytest
from scipy.optimize import linprog, nnls

from dit.fits import lad as lad_module
from dit.fits import optimum, starts
from dit.fits.additive import AdditiveProblem
from dit.fits.data_limited import DataLimitedLaw, DataLimitedProblem
from dit.fits.lad import _distinct, _limit, approach, lad
from dit.fits.laws import power, power_floor
from dit.fits.losses import huber, smooth_loss
from dit.fits.newton import newton
from dit.fits.optimum import minimise
from dit.fits.points import Points
from dit.fits.power import PowerProblem, fit_power
from dit.fits.search import Axis
from dit.fits.starts import Separable, additive_starts, power_floor_starts
from tests.fits.surfaces import Truth, isoflop_points


def additive_problem(loss="huber", delta=1e-3, noise=0.01):
    return AdditiveProblem(isoflop_points(Truth(), noise, budgets=4, sizes=5), loss, delta)


def newton_by_hand(law, loss, y, theta, steps):
    """One row of Levenberg's damped Newton: theta after each step, and whether it has converged.

    The Hessian's negative curvatures are turned round. Damping is a share of the largest curvature (or of the
    gradient's absolute parts where these are more): a thousandth at first, ten times as much after a step that is no
    better, a tenth after one that gains more than three quarters of what it promised, a half above one quarter, and
    twice as much otherwise.
    """

    def at(theta):
        f, shares = law.value_and_shares(theta[None])
        rho, first, second = loss.derivatives(f, y[None])
        gradient, hessian = law.contract(shares, first, second)
        return rho.sum(), gradient[0], hessian[0], np.abs(first).sum()

    damping, now, path = 1e-3, at(theta), []
    for _ in range(steps):
        value, gradient, hessian, size = now
        curvature, axes = np.linalg.eigh(hessian)
        curvature = np.abs(curvature)
        top = max(curvature.max(), size)
        curved = np.maximum(curvature, 1e-14 * top)
        along = axes.T @ gradient
        promised = (along**2 / curved).sum() / 2
        if np.abs(gradient).max() <= 1e-9 * size or promised <= 1e-15 * value + 1e-28:
            path.append((theta, True))
            break
        step = -axes @ (along / (curved + damping * top))
        inside = axes.T @ step
        expected = -gradient @ step - (curvature * inside**2).sum() / 2
        new = at(theta + step)
        gain = (value - new[0]) / expected
        if value > new[0]:
            theta, now = theta + step, new
        damping *= 10 if not gain > 0 else 0.1 if gain > 0.75 else 0.5 if gain > 0.25 else 2
        damping = max(damping, 1e-15)
        path.append((theta, False))
    return path


@pytest.mark.parametrize("name", ["huber", "mse_log", "mse"])
@pytest.mark.parametrize("seed", range(3))
def test_newton_goes_the_way_of_one_row(name, seed):
    problem, loss = additive_problem(), smooth_loss(name, 1e-3)
    rng = np.random.default_rng(seed)
    theta = np.array([-1.0, 0.4, -1.0, 0.4, -0.1]) + rng.normal(0, [1, 0.3, 1, 0.3, 1], (3, 5))
    paths = [newton_by_hand(problem.law, loss, problem.y, row, 40) for row in theta]
    y, w = np.tile(problem.y, (3, 1)), np.ones((3, 20))
    for steps in (1, 2, 3, 5, 8, 12, 20, 40):
        found = newton(problem.law, loss, y, w, theta, steps)
        for row, path in enumerate(paths):
            expected, done = path[min(steps, len(path)) - 1]
            assert found.theta[row] == pytest.approx(expected, rel=1e-5, abs=1e-6)
            assert found.converged[row] == done
    assert found.iterations == min(40, max(map(len, paths)))


def test_newton_in_some_directions_is_newton_of_their_law():
    """A floor that may not move: the law without it, of losses from which it was taken; and weights count points."""
    x = np.linspace(-2, 2, 12)
    y = np.log(0.5 + np.exp(0.3 - 0.4 * x) + 0.01 * np.random.default_rng(0).standard_normal(12))
    w = np.random.default_rng(1).integers(0, 3, (1, 12)).astype(float)
    start, basis = np.array([[0.1, 0.2, np.log(0.5)]]), np.eye(3)[None, :, :2]
    found = newton(power_floor(x), smooth_loss("mse", 1), y[None], w, start, 100, basis)
    again = np.repeat(np.arange(12), w[0].astype(int))
    from scipy.optimize import curve_fit

    best, _ = curve_fit(
        lambda x, k, p: 0.5 + np.exp(k - p * x), x[again], np.exp(y[again]), xtol=1e-14, ftol=1e-14
    )
    assert found.theta[0] == pytest.approx([*best, np.log(0.5)], rel=1e-6)
    residual = np.exp(power_floor(x).value(found.theta))[0] - np.exp(y)
    assert found.objective[0] == pytest.approx((w[0] * residual**2).sum()) and found.converged[0]


@pytest.mark.parametrize(("slope", "flat"), [(0.95e-9, True), (1.05e-9, False)])
def test_a_row_is_flat_where_its_gradient_is_a_billionth_of_its_parts(slope, flat):
    """Two points on either side of a level, beyond delta: weights differ by the slope, and there is no curvature."""
    y, w = np.array([[0.1, -0.1]]), np.array([[1.0, 1 + 2 * slope]])
    assert newton(power(np.zeros(2)), huber(1e-3), y, w, np.zeros((1, 2)), 1).converged[0] == flat


def separable_by_hand(x, loss, kind, rounds):
    """Exponents and coefficients by variable projection, a row at a time: scipy's nnls inside, lstsq for the slopes."""
    q, scale, parts = len(x), 1 / loss if kind != "mse" else np.ones_like(loss), {1: 24, 2: 5}[len(x)]
    robust, grid, span = kind in ("huber", "lad"), np.geomspace(0.05, 30, 24), np.ptp(x, axis=1)

    def solved(log_p, w):
        terms = np.vstack([np.exp(-np.exp(log_p)[:, None] * x), np.ones_like(loss)]).T * scale[:, None]
        coefficient = nnls(terms * w[:, None], loss * scale * w)[0]
        return coefficient, loss * scale - terms @ coefficient, terms

    def cost(misses):
        return np.abs(misses).sum() if robust else misses @ misses

    one, best = np.ones_like(loss), {}
    for cell in product(range(24), repeat=q):
        log_p = np.log(grid[list(cell)] / span)
        value, part = cost(solved(log_p, one)[1]), tuple(i * parts // 24 for i in cell)
        if part not in best or value < best[part][0]:
            best[part] = value, log_p
    rows = [[log_p, 1e-2, one, *solved(log_p, one)] for _, log_p in best.values()]
    for _ in range(rounds):
        quiet = []
        for row in rows:
            log_p, damping, w, coefficient, misses, terms = row
            slopes = -np.exp(log_p) * x.T * coefficient[:q] * terms[:, :q] * w[:, None]
            kept = (terms * w[:, None])[:, coefficient > 0]
            slopes -= kept @ np.linalg.lstsq(kept, slopes, rcond=None)[0]
            normal = slopes.T @ slopes
            lift = damping * np.diag(normal) + 1e-12 * np.diag(normal).max() + 1e-300
            step = np.linalg.solve(normal + np.diag(lift), slopes.T @ (w * misses))
            low, high = np.log(0.1 * 0.05 / span), np.log(60 / span)
            trial = np.clip(log_p + np.clip(step, -1.5, 1.5), low, high)
            found = solved(trial, w)
            if ((w * found[1]) ** 2).sum() < ((w * misses) ** 2).sum():
                row[0], row[1], row[3:] = trial, damping * 0.2, found
                size = np.abs(found[1])
                row[2] = np.maximum(size, 0.1 * np.median(size)) ** -0.5 if robust else one
            else:
                row[1] = damping * 8
            quiet.append(np.abs(step).max() < 1e-3 or row[1] > 1e4)
        if all(quiet):
            break
    rows.sort(key=lambda row: cost(row[4]))
    level = [1e-3 * np.mean(loss * scale) / row[5].mean(0) for row in rows]
    return np.array(
        [[*np.exp(row[0]), *np.log(np.maximum(row[3], least))] for row, least in zip(rows, level)]
    )


@pytest.mark.parametrize("rounds", [1, 3, 6, 20])
@pytest.mark.parametrize("kind", ["huber", "mse"])
def test_starts_of_one_regressor_are_those_of_variable_projection(kind, rounds, monkeypatch):
    monkeypatch.setattr(starts, "ROUNDS", rounds) if rounds < 20 else None
    x = np.linspace(-3, 3, 15)
    loss = (0.4 + np.exp(-0.3 * x)) * np.exp(0.03 * np.random.default_rng(1).standard_normal(15))
    found = power_floor_starts(x, loss, kind)
    expected = separable_by_hand(x[None], loss, kind, rounds)[:, [1, 0, 2]]
    assert found.shape == (24, 3)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_starts_of_two_regressors_are_those_of_variable_projection(monkeypatch):
    monkeypatch.setattr(starts, "ROUNDS", 4)
    problem = additive_problem()
    loss = np.exp(problem.y)
    found = additive_starts(problem.n, problem.d, loss, "huber")
    expected = separable_by_hand(np.stack([problem.n, problem.d]), loss, "huber", 4)[:, [2, 0, 3, 1, 4]]
    assert found.shape == (25, 5)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_starts_of_least_squares_in_logarithms_have_their_cells_as_well():
    x = np.linspace(-3, 3, 15)
    loss = 0.4 + np.exp(-0.3 * x)
    polished = power_floor_starts(x, loss, "mse_log")
    assert polished.shape == (48, 3)
    cells = np.sort(polished[24:, 1] * 6)
    assert cells == pytest.approx(np.geomspace(0.05, 30, 24))
    problem = additive_problem("mse_log")
    assert additive_starts(problem.n, problem.d, np.exp(problem.y), "mse_log").shape == (50, 5)


@pytest.mark.parametrize(("points", "used"), [(500, 500), (501, 500)])
def test_starts_are_made_of_500_points(points, used, monkeypatch):
    seen = []
    monkeypatch.setattr(
        Separable, "starts", lambda self, cells_too: seen.append(self) or (np.ones((1, 1)), np.ones((1, 2)))
    )
    power_floor_starts(np.arange(float(points)), np.arange(1.0, points + 1), "mse")
    assert len(seen[0].loss) == used and np.array_equal(seen[0].x[0] + 1, seen[0].loss)


def line_by_least_deviations(x, y, w):
    """Height and slope by scipy's linear programme: min w (above + below), y = height + slope x + above - below."""
    n = len(x)
    design = np.hstack([np.ones((n, 1)), -x[:, None], np.eye(n), -np.eye(n)])
    found = linprog(
        np.concatenate([[0, 0], w, w]), A_eq=design, b_eq=y, bounds=[(None, None)] * 2 + [(0, None)] * 2 * n
    )
    return found.x[:2], found.fun


def noisy_line(seed, n=15):
    rng = np.random.default_rng(seed)
    x = np.sort(rng.normal(size=n))
    return x - x.mean(), 0.5 - 0.3 * x + 0.1 * rng.standard_normal(n), rng.integers(0, 4, n).astype(float)


@pytest.mark.parametrize("seed", range(6))
def test_least_deviations_are_the_linear_programmes(seed):
    x, y, w = noisy_line(seed)
    best, objective = line_by_least_deviations(x, y, w)
    found = lad(power(x), y[None], w[None], np.array([[0.4, 0.2]]), 300)
    assert found.objective[0] == pytest.approx(objective, rel=1e-9)
    assert found.theta[0] == pytest.approx(best, abs=1e-8) and found.converged[0]


def test_deltas_shrink_by_four_thirteen_times():
    """What is not certified goes on to 1e-8 of the residuals' spread: here because its directions are given."""
    x, y, w = noisy_line(1)
    law, start, basis = power(x), np.array([[0.4, 0.2]]), np.eye(2)[None]
    spread = float(np.median(np.abs(law.value(start) - y))) + 1e-12
    theta, iterations = start, 0
    for k in range(14):
        stage = newton(law, huber(spread * 0.25**k), y[None], w[None], theta, 300, basis)
        theta, iterations = stage.theta, iterations + stage.iterations
    found = lad(law, y[None], w[None], start, 300, basis)
    assert np.array_equal(found.theta, theta) and found.iterations == iterations
    assert found.objective[0] == pytest.approx((w * np.abs(law.value(theta)[0] - y)).sum(), rel=1e-14)


def test_a_vertex_is_tried_from_the_second_stage_on(monkeypatch):
    x, y, w = noisy_line(2)
    law, start, tried = power(x), np.array([[0.4, 0.2]]), []
    monkeypatch.setattr(lad_module, "_limit", lambda *args: tried.append(args[4]) or _limit(*args))
    lad(law, y[None], w[None], start, 300)
    spread = float(np.median(np.abs(law.value(start) - y))) + 1e-12
    assert tried[0] == pytest.approx(spread / 16, rel=1e-12)


def test_a_vertex_is_certified_and_no_other():
    """Of all lines through two points only the best one is, its points no longer within delta but on it."""
    x, y, w = noisy_line(3)
    w[:] = 1.0
    best, _ = line_by_least_deviations(x, y, w)
    law, certified = power(x), []
    for i in range(15):
        for j in range(i):
            slope = -(y[i] - y[j]) / (x[i] - x[j])
            theta = np.array([[y[i] + slope * x[i] + 1e-8, slope]])
            limit, fine = _limit(law, y[None], w[None], theta, 1e-4)
            if fine[0]:
                certified.append(limit[0])
    assert len(certified) == 1 and certified[0] == pytest.approx(best, abs=1e-10)


def test_residuals_within_delta_are_counted_once():
    slope = np.array(
        [[0.5, 0.5, -0.2, 3.0], [0.1, 0.2, 0.3, -0.9], [1.0, -1.0, 2.0, 5.0], [0.5, 0.5, 0.5, 0.5]]
    )
    assert _distinct(slope).tolist() == [2, 4, 0, 1]


def test_narrow_deltas_are_approached_from_wider_ones():
    x, y, w = noisy_line(4)
    law, theta = power(x), np.array([[0.4, 0.2]])
    wide = float(np.median(np.abs(law.value(theta) - y))) + 1e-12
    assert np.array_equal(approach(law, wide, y[None], w[None], theta, 300, None), theta)
    found, delta = approach(law, 1e-5, y[None], w[None], theta, 300, None), wide
    while delta > 1e-5:
        theta, delta = newton(law, huber(delta), y[None], w[None], theta, 300).theta, delta / 10
    assert np.allclose(found, theta, rtol=1e-9, atol=0)


@pytest.mark.parametrize(("delta", "approached"), [(1e-4, False), (0.95e-4, True)])
def test_deltas_below_a_ten_thousandth_are_narrow(delta, approached, monkeypatch):
    seen = []
    monkeypatch.setattr(optimum, "approach", lambda *args: seen.append(args[1]) or args[4])
    x, y, _ = noisy_line(5)
    minimise(power(x), "huber", delta, y, np.ones((1, 15)), np.array([[0.4, 0.2]]))
    assert bool(seen) == approached
    minimise(power(x), "mse_log", delta, y, np.ones((1, 15)), np.array([[0.4, 0.2]]))
    assert len(seen) == approached


@pytest.mark.parametrize("loss", ["huber", "lad", "mse"])
def test_rows_in_blocks_are_the_same_rows(loss, monkeypatch):
    x, y, _ = noisy_line(6)
    weights = np.random.default_rng(0).integers(0, 3, (7, 15)) + 0.5
    start = np.tile([0.4, 0.2], (7, 1))
    basis = None if loss == "lad" else np.tile(np.eye(2), (7, 1, 1))
    whole = minimise(power(x), loss, 1e-2, y, weights, start, basis)
    monkeypatch.setattr(optimum, "BLOCK", 45)
    parts = minimise(power(x), loss, 1e-2, y, weights, start, basis)
    assert parts.theta == pytest.approx(whole.theta, rel=1e-6) and parts.converged.all()
    assert parts.iterations > 0 and parts.objective == pytest.approx(whole.objective)


def test_curvature_of_the_law_of_repeated_data_is_the_differences_of_its_gradient():
    rng = np.random.default_rng(0)
    n, d = 10 ** rng.uniform(7, 9, 30), 10 ** rng.uniform(8, 11, 30)
    points = Points(1 + rng.uniform(0, 1, 30), n=n, d=d, unique=np.full(30, 1e9))
    problem = DataLimitedProblem(points, "mse_log", 1)
    theta = problem.to_theta(DataLimitedLaw(1.87, 521.0, 0.353, 1488.0, 0.3, 15.4, 5.3, 6.0))

    def gradient(theta):
        f, shares = problem.law.value_and_shares(theta[None])
        return problem.law.contract(shares, f - problem.y, np.ones_like(f))

    step = 1e-5 * np.eye(7)
    slopes = [(gradient(theta + s)[0][0] - gradient(theta - s)[0][0]) / 2e-5 for s in step]
    assert gradient(theta)[1][0] == pytest.approx(np.array(slopes), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(("points", "twice"), [(500, True), (501, False)])
def test_refits_are_started_twice_up_to_500_points(points, twice, monkeypatch):
    import dit.fits.search as search

    x = np.geomspace(1, 100, points)
    given = Points(x**-0.1 * np.exp(0.01 * np.random.default_rng(0).standard_normal(points)), c=x)
    fit, seen = fit_power(given, loss="mse_log"), []
    monkeypatch.setattr(
        search, "minimise", lambda *args, **named: seen.append(args[5]) or minimise(*args, **named)
    )
    weights = np.random.default_rng(1).integers(0, 3, (4, points)).astype(float)
    found = fit.problem(given).refit(fit, weights, np.log(given.loss)[None])
    assert len(seen) == 1 + twice and found.improved == 0 and found.converged.all()
    if twice:  # each row from the optimum of the one half of them away
        assert seen[1] == pytest.approx(
            np.stack([np.log(found.law.coefficient), -found.law.exponent], 1)[[2, 3, 0, 1]]
            + [[1, 0]] * np.outer(found.law.exponent[[2, 3, 0, 1]], [np.log(x).mean(), 0]),
            abs=1e-9,
        )


def test_absent_terms_are_raised_to_a_thousandth():
    problem = PowerProblem(Points(np.geomspace(2, 1, 9), c=np.geomspace(1, 100, 9)), True, "mse_log", 1)
    for floor, off in ((-50.0, 2e-3), (-np.inf, 0.2)):
        lifted = problem.lifted(np.array([0.1, 0.1, floor]))
        assert problem.law.shares(lifted[None])[1].mean() == pytest.approx(1e-3, rel=off)
    assert np.array_equal(problem.lifted(np.array([0.1, 0.1, -1.0])), [0.1, 0.1, -1.0])


@pytest.mark.parametrize("kind", ["additive", "power", "power_floor", "data_limited"])
def test_intercepts_are_the_logarithms_of_coefficients(kind):
    """The slope of ln L in the logarithm of a term's coefficient is that term's share of L (small models: N' = N)."""
    points = isoflop_points(Truth(), 0.01, budgets=4, sizes=5)
    small = Points(points.loss, n=points.n / 1e3, d=points.d, unique=0.5 * points.d)
    line = Points(points.loss, c=points.c * np.linspace(1, 2, 20))
    problem, theta = {
        "additive": lambda: (AdditiveProblem(points, "mse", 1), [-1.2, 0.3, -1.0, 0.4, 0.1]),
        "power": lambda: (PowerProblem(line, False, "mse", 1), [0.1, 0.2]),
        "power_floor": lambda: (PowerProblem(line, True, "mse", 1), [0.1, 0.2, -1.0]),
        "data_limited": lambda: (DataLimitedProblem(small, "mse", 1), [8.0, 0.3, -1.0, 0.4, 0.1, 2.0, 2.0]),
    }[kind]()
    row = np.array([theta])
    shares = problem.law.shares(row)
    assert len(problem.terms) == len(problem.intercepts) == len(shares)
    for index, share in zip(problem.intercepts, shares):
        assert problem.law.jacobian(row)[0, :, index] == pytest.approx(share[0], rel=1e-9)


def test_slopes_of_axes_are_differences():
    theta, step = np.array([1.0, 0.3, 2.0, 0.4, 0.5]), 1e-7
    for axis in (Axis(3, 0, 1, other=1), Axis(4, 0, 1, log=True), Axis(1, 0, 1, falling=True)):
        moved = [
            (axis.position((theta + step * row)[None]) - axis.position(theta[None]))[0] / step
            for row in np.eye(5)
        ]
        assert axis.slope(theta) == pytest.approx(np.array(moved), abs=1e-6)
    assert (
        Axis(4, 0, 1, log=True).shown(np.log(3.0)) == pytest.approx(3)
        and Axis(1, 0, 1, falling=True).shown(2) == -2
    )
