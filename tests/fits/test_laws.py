"""IsoFLOP parabolas, the envelope and power laws against truth and independent formulas."""

import numpy as np
import pytest
from scipy.optimize import curve_fit

from dit.errors import InputError
from dit.fits.answer import answer
from dit.fits.bootstrap import bootstrap
from dit.fits.envelope import fit_envelope
from dit.fits.fitted import fitted
from dit.fits.isoflop import fit_isoflop
from dit.fits.points import Points
from dit.fits.power import fit_power
from tests.fits.surfaces import Truth, grid, isoflop_points

SYMMETRIC = Truth(alpha=0.35, beta=0.35, a=100.0, b=300.0)


class TestIsoflop:
    def test_minima_are_exact_where_the_exponents_agree(self):
        """The parabola is then symmetric about the optimum, so that approach 2 has no bias."""
        fit = fit_isoflop(isoflop_points(SYMMETRIC))
        assert fit.a == pytest.approx(0.5, abs=1e-6)
        assert [v.n_opt for v in fit.valleys] == pytest.approx(
            [SYMMETRIC.n_opt(v.flops) for v in fit.valleys], rel=1e-6
        )

    def test_each_parabola_is_numpys(self):
        points = isoflop_points(SYMMETRIC, 0.003)
        valley = fit_isoflop(points).valleys[2]
        inside = points.budgets == 2
        x = np.log(points.get("n")[inside])
        c = np.polyfit(x, points.loss[inside], 2)
        assert valley.n_opt == pytest.approx(np.exp(-c[1] / (2 * c[0])), rel=1e-6)
        assert valley.at(3e6) == pytest.approx(np.polyval(c, np.log(3e6)), rel=1e-9)

    def test_a_budget_with_its_best_size_at_the_edge_is_rejected_with_the_reason(self):
        points = isoflop_points(SYMMETRIC)
        points = points[(points.budgets > 0) | (points.get("n") > SYMMETRIC.n_opt(points.budget_flops[0]))]
        points = Points(points.loss, n=points.n, d=points.d, c=points.c, budget=points.budget)
        with pytest.raises(InputError):
            fit_isoflop(points[points.budgets == 0])
        extra = isoflop_points(SYMMETRIC, sizes=9)
        extra = extra[(extra.budgets > 0) | (extra.get("n") > SYMMETRIC.n_opt(extra.budget_flops[0]))]
        fit = fit_isoflop(extra)
        assert [v.rejected for v in fit.valleys] == ["its best size is the smallest trained", *[""] * 5]
        assert np.isnan(fit.minima[0]).all()
        assert np.isnan(bootstrap(extra, fit, 30).law.minima[:, 0]).all()
        assert fit.a == pytest.approx(0.5, abs=1e-6)

    def test_all_optima_at_the_edge_are_refused(self):
        points = isoflop_points(SYMMETRIC)
        best = np.array([SYMMETRIC.n_opt(c) for c in points.get("budget")])
        with pytest.raises(InputError, match=r"smallest trained.*All optima at the edge"):
            fit_isoflop(points[points.get("n") > 0.99 * best])

    def test_one_budget_is_refused(self):
        with pytest.raises(InputError, match=r"one budget only: 6e\+16 FLOPs"):
            fit_isoflop(isoflop_points(SYMMETRIC, budgets=1))

    def test_scattered_compute_is_refused(self):
        n, d, _ = grid(SYMMETRIC)
        d = d * np.exp(np.random.default_rng(0).uniform(-1, 1, len(d)))
        with pytest.raises(InputError, match=r"columns.budget: got .compute is scattered"):
            fit_isoflop(Points(SYMMETRIC.loss(n, d), n=n, d=d))

    def test_the_bootstrap_covers_its_own_noise(self):
        """The sd of the exponent over draws is that over fresh noise, within the accuracy of 60 repeats."""
        fits = [fit_isoflop(isoflop_points(SYMMETRIC, 0.002, seed)).a for seed in range(60)]
        points = isoflop_points(SYMMETRIC, 0.002, 99)
        boot = bootstrap(points, fit_isoflop(points), 500)
        assert (boot.failed, boot.method) == (0, "parametric")
        assert boot.sd(lambda law: law.a) == pytest.approx(np.std(fits), rel=0.5)


class TestEnvelope:
    def test_it_runs_along_the_points_that_no_cheaper_one_beats(self):
        c = np.array([1.0, 2.0, 3.0, 4.0, 5.0]) * 1e18
        points = Points(np.array([5.0, 4.0, 4.5, 3.5, 3.6]), c=c, n=np.array([1.0, 2.0, 3.0, 4.0, 5.0]) * 1e6)
        assert fit_envelope(points).frontier.tolist() == [0, 1, 3]

    def test_it_recovers_a_law_without_noise(self):
        fit = fit_envelope(isoflop_points(SYMMETRIC, sizes=9))
        assert fit.a == pytest.approx(0.5, abs=1e-6)
        assert fit.n_opt(1e18) == pytest.approx(SYMMETRIC.n_opt(1e18), rel=1e-6)

    def test_two_points_on_it_are_too_few(self):
        with pytest.raises(InputError, match=r"\(1 points that no cheaper one beats\)"):
            fit_envelope(Points(np.array([1.0, 2.0, 3.0]), n=np.ones(3), c=np.array([1.0, 2.0, 3.0])))


class TestPower:
    def test_without_noise(self):
        c = np.geomspace(1e17, 6e18, 8)
        fit = fit_power(Points(2.3943 * c**-0.0273, c=c))
        assert (fit.coefficient, fit.exponent) == pytest.approx((2.3943, -0.0273), rel=1e-8)

    def test_with_a_floor_it_agrees_with_scipys_curve_fit(self):
        x = np.geomspace(1, 1e3, 12)
        y = (0.5 + 2 * x**-0.4) * np.exp(0.01 * np.random.default_rng(0).standard_normal(12))
        fit = fit_power(Points(y, d=x), floor=True, loss="mse")
        best, _ = curve_fit(
            lambda x, e, k, p: e + k * x**-p, x, y, p0=(0.4, 1.5, 0.3), xtol=1e-14, ftol=1e-14
        )
        assert (fit.floor, fit.coefficient, -fit.exponent) == pytest.approx(tuple(best), rel=1e-5)
        assert fit.x == "d"

    def test_a_floor_that_the_points_do_not_want_is_absent(self):
        x = np.geomspace(1, 100, 10)
        fit = fit_power(Points(3 * x**-0.3 * np.exp(-0.02 * np.log(x) ** 2), c=x), floor=True)
        assert fit.searched is not None
        assert fit.searched.absent == ("E",)
        floor = answer(
            fitted(Points(3 * x**-0.3 * np.exp(-0.02 * np.log(x) ** 2), c=x), "power_floor", draws=30)
        )
        assert floor["parameters"]["floor"]["value"] == 0
        assert floor["parameters"]["floor"]["interval_95"][0] == 0
        assert floor["profiles"]["floor"]["estimate"] == 0

    def test_rising_laws_are_found(self):
        x = np.geomspace(1, 100, 6)
        assert fit_power(Points(2 * x**0.7, c=x), loss="lad").exponent == pytest.approx(0.7, abs=1e-8)

    def test_it_needs_a_regressor_and_points(self):
        with pytest.raises(InputError, match=r"columns.c: nothing was given"):
            fit_power(Points(np.ones(5), n=np.ones(5), d=np.ones(5)))
        with pytest.raises(InputError, match=r"\(3 points, 3 different values\); allowed: more than the 3"):
            fit_power(Points(np.array([3.0, 2.0, 1.5]), c=np.array([1.0, 2.0, 3.0])), floor=True)
