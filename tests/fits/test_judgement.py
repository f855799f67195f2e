"""What tells how far to trust a fit: profiles, hold-out, sensitivity, choice of law."""

import numpy as np
import pytest

from dit.errors import InputError
from dit.fits.additive import fit_additive
from dit.fits.compare import compare, likelihood
from dit.fits.data_limited import fit_data_limited
from dit.fits.holdout import holdout, holdout_by_budget
from dit.fits.points import Points
from dit.fits.power import fit_power
from dit.fits.profile import profile
from dit.fits.sensitivity import sensitivity
from tests.fits.surfaces import Truth, isoflop_points, ladder_points

TRUTH = Truth()


class TestProfile:
    def test_of_a_straight_line_is_the_textbook_interval(self):
        """Least squares of ln y on ln x: the exponent's interval is +- t se."""
        x = np.geomspace(1, 100, 12)
        y = 3 * x**-0.3 * np.exp(0.02 * np.random.default_rng(0).standard_normal(12))
        points = Points(y, c=x)
        fit = fit_power(points, loss="mse_log")
        found = profile(points, fit, "exponent")
        assert found.intervals[0.95] == pytest.approx(
            (fit.exponent - 2.228 * fit.stderr, fit.exponent + 2.228 * fit.stderr), rel=1e-3
        )
        assert found.identified

    def test_it_is_lowest_at_the_estimate_and_rises(self):
        points = isoflop_points(TRUTH, 0.003)
        fit = fit_additive(points)
        for name in ("a", "alpha", "beta", "E"):
            found = profile(points, fit, name)
            low, high = found.intervals[0.95]
            low80, high80 = found.intervals[0.8]
            assert None not in (low, high, low80, high80)
            assert low < low80 < found.estimate < high80 < high
            assert found.deviance[np.argmin(np.abs(found.values - found.estimate))] < 0.01

    def test_points_on_both_sides_of_the_estimate_are_refits(self):
        """The deviance at a held exponent is that of a free optimiser over the other four parameters."""
        from scipy.optimize import minimize

        points = isoflop_points(TRUTH, 0.005)
        fit = fit_additive(points, "mse_log")
        found = profile(points, fit, "alpha")
        i = int(np.searchsorted(found.values, fit.alpha + 0.03))
        log_n, log_d, y = np.log(points.get("n") / 1e7), np.log(points.get("d") / 1e9), np.log(points.loss)

        def objective(t):
            f = np.logaddexp(np.logaddexp(t[0] - found.values[i] * log_n, t[1] - t[2] * log_d), t[3])
            return 0.5 * np.sum((f - y) ** 2)

        best = minimize(
            objective,
            [-1.5, -1.5, 0.4, 0.0],
            method="Nelder-Mead",
            options={"xatol": 1e-9, "fatol": 1e-15, "maxiter": 9000},
        )
        scale = 2 * fit.objective / (len(points) - 5)
        assert found.deviance[i] == pytest.approx(2 * (best.fun - fit.objective) / scale, rel=1e-3)

    def test_an_unbounded_side_is_not_identified(self):
        """Points that follow a power law exactly enough leave the floor without a lower end."""
        x = np.geomspace(1, 30, 9)
        y = (0.01 + x**-0.3) * np.exp(0.01 * np.random.default_rng(2).standard_normal(9))
        points = Points(y, c=x)
        found = profile(points, fit_power(points, floor=True, loss="mse_log"), "floor")
        assert found.intervals[0.95][0] is None
        assert not found.identified

    def test_repetition_that_was_hardly_tried_is_not_identified(self):
        rng = np.random.default_rng(0)
        n, unique = 10 ** rng.uniform(7, 8, 60), np.full(60, 1e9)
        d = unique * rng.choice([0.25, 0.5, 1.0, 1.2], 60)
        points = Points(TRUTH.loss(n, d) * np.exp(0.01 * rng.standard_normal(60)), n=n, d=d, unique=unique)
        found = profile(points, fit_data_limited(points, "mse_log"), "R_D")
        assert found.intervals[0.95][1] is None

    def test_shared_noise_of_runs_widens_it(self):
        points = ladder_points(TRUTH, 0.003, 0.0005, seed=1)
        alone = Points(points.loss, n=points.n, d=points.d, c=points.c)
        together, apart = (
            profile(p, fit_additive(p, "mse_log"), "a").intervals[0.95] for p in (points, alone)
        )
        assert None not in (*together, *apart)
        assert together[1] - together[0] > apart[1] - apart[0]

    def test_an_unknown_parameter_is_refused(self):
        points = isoflop_points(TRUTH, 0.003)
        with pytest.raises(InputError, match="parameter: got 'gamma'; allowed: one of a, alpha, beta, E"):
            profile(points, fit_additive(points), "gamma")


class TestHoldout:
    def test_the_right_law_predicts_the_largest_budget(self):
        points = isoflop_points(TRUTH, 0.002)
        found = holdout(points, "additive", draws=200)
        assert found.n == 7
        assert abs(found.bias) < 0.004
        assert found.covered is not None
        assert found.covered >= 6
        assert found.measured == pytest.approx(points.loss[-7:])

    def test_a_law_that_is_wrong_misses_it(self):
        """A power law without a floor, where there is one, predicts too low a loss further out."""
        c = np.repeat(np.geomspace(1e16, 1e21, 11), 2)
        loss = TRUTH.loss_opt(c) * np.exp(1e-3 * np.random.default_rng(0).standard_normal(22))
        points = Points(loss, c=c, budget=c)
        plain, floor = holdout(points, "power", draws=100), holdout(points, "power_floor", draws=100)
        assert plain.bias < -0.03
        assert abs(floor.bias) < 0.003

    def test_every_budget_is_held_out_in_turn(self):
        points = isoflop_points(TRUTH, 0.002)
        found = holdout_by_budget(points, "additive")
        assert [one.budget for one in found] == pytest.approx(points.budget_flops)
        assert all(one.rms < 0.01 and one.covered is None for one in found)

    def test_one_budget_cannot_be_held_out(self):
        with pytest.raises(InputError, match="one budget only"):
            holdout(isoflop_points(TRUTH, budgets=1), "additive")


class TestChoice:
    def test_the_law_with_the_floor_wins_where_there_is_one(self):
        c = np.geomspace(1e16, 1e21, 11)
        points = Points(TRUTH.loss_opt(c) * np.exp(1e-3 * np.random.default_rng(0).standard_normal(11)), c=c)
        found = compare(points, ("power", "power_floor"))
        assert [one.law for one in found] == ["power_floor", "power"]
        assert found[0].aic < found[1].aic
        assert found[0].holdout_rms < found[1].holdout_rms

    def test_the_likelihood_of_least_squares_is_gauss(self):
        from scipy.stats import norm

        points = isoflop_points(TRUTH, 0.01)
        fit = fit_additive(points, "mse")
        residual = points.loss - fit.predict_points(points)
        parameters, value = likelihood(points, fit)
        assert parameters == 6
        assert value == pytest.approx(norm.logpdf(residual, 0, np.sqrt(np.mean(residual**2))).sum(), rel=1e-9)


class TestSensitivity:
    def test_each_choice_moves_the_exponent_from_the_reported_one(self):
        points = isoflop_points(TRUTH, 0.005)
        fit = fit_additive(points)
        other = Points(points.loss, n=points.get("n") ** 1.1, d=points.d, c=points.c)
        found = sensitivity(points, fit, "additive", others={"size": {"n^1.1": other}})
        assert {one.choice for one in found} == {"loss", "delta", "outliers", "budgets", "size"}
        assert all(one.shift == pytest.approx(one.exponent - fit.a) for one in found)
        by_value = {one.value: one for one in found}
        assert by_value["lad"].exponent == pytest.approx(fit_additive(points, "lad").a)
        assert by_value["n^1.1"].n == len(points)

    def test_an_impossible_refit_says_why(self):
        points = isoflop_points(TRUTH, 0.005, budgets=3, sizes=3)[:7]
        found = sensitivity(points, fit_additive(points), "additive")
        assert any(
            "more points than the 5 parameters" in one.reason for one in found if np.isnan(one.exponent)
        )
