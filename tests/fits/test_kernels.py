"""Laws beyond the additive one: as printed in their papers, against scipy, finite differences and brute force."""

import json

import numpy as np
import pytest
from scipy.optimize import least_squares, minimize, minimize_scalar

from dit.errors import InputError
from dit.fits.answer import answer
from dit.fits.bootstrap import bootstrap
from dit.fits.choose import fit_law
from dit.fits.fitted import fitted
from dit.fits.profile import profiles
from tests.conftest import dit
from tests.fits.kernel_surfaces import PRINTED


@pytest.mark.parametrize("name", PRINTED)
def test_points_on_a_printed_law_give_back_its_parameters(name):
    printed = PRINTED[name]
    fit = fit_law(printed.points(), name)
    assert fit.objective < 1e-20 and fit.searched.converged > 0
    if name == "broken_power":  # its sign and reference are the power law's: y = E + K x^exponent
        found = (fit.floor, fit.exponent, fit.exponent_after, fit.break_at, fit.sharpness)
        assert found == pytest.approx((0.5, -0.05, -0.35, 1e18, 0.5), rel=1e-4)
        return
    for key, value in printed.true.items():
        assert getattr(fit, key) == pytest.approx(value, rel=1e-2 if name == "farseer" else 1e-4), key


@pytest.mark.parametrize("name", PRINTED)
def test_no_optimum_of_scipy_is_better(name):
    """Levenberg-Marquardt on the printed parameters, in scaled coordinates, from the truth and 30 random starts."""
    printed = PRINTED[name]
    points = printed.points(0.004, 1)
    fit = fit_law(points, name, "mse_log")
    low, high = np.array(printed.ranges).T

    def misses(q):
        with np.errstate(all="ignore"):
            even = low + q * (high - low)
            geometric = np.exp((1 - q) * np.log(np.maximum(low, 1)) + q * np.log(np.maximum(high, 1)))
            value = np.where(high > 1e6, geometric, even)
            found = np.log(printed.formula(printed.columns, *value) / points.loss)
        return np.where(np.isfinite(found), found, 1e3)

    rng = np.random.default_rng(0)
    best = min(least_squares(misses, rng.uniform(0, 1, len(low)), max_nfev=300).cost for _ in range(30))
    assert fit.objective <= best * (1 + 1e-6)


def test_outliers_do_not_hide_the_optimum_of_kaplans_kernel():
    """By Huber's loss with a tenth of the points 20 % too high, against Nelder-Mead from 20 starts."""
    points = PRINTED["kaplan"].points(0.004, 2)
    loss = points.loss.copy()
    loss[::10] *= 1.2
    n, d, y = np.log(points.get("n") / 1e8), np.log(points.get("d") / 1e10), np.log(loss)

    def objective(q):
        with np.errstate(all="ignore"):
            sharp = np.exp(q[3])
            f = sharp * np.logaddexp((q[0] - np.exp(q[1]) * n) / sharp, q[2] / sharp - d)
            r = np.abs(np.where(np.isfinite(f), f, 1e3) - y)
        return float(np.where(r <= 1e-3, r**2 / 2, 1e-3 * (r - 5e-4)).sum())

    rng = np.random.default_rng(0)
    starts = np.array([1, -2.5, 0.5, -2.4]) + rng.uniform(-1, 1, (20, 4)) * 0.7
    options = {"maxiter": 6000, "maxfev": 6000, "xatol": 1e-10, "fatol": 1e-15}
    best = min(minimize(objective, start, method="Nelder-Mead", options=options).fun for start in starts)
    bad = type(points)(loss, n=points.n, d=points.d)
    assert fit_law(bad, "kaplan").objective <= best * (1 + 1e-6)


@pytest.mark.parametrize("name", PRINTED)
def test_slopes_and_curvature_are_those_of_differences(name):
    points = PRINTED[name].points(0.02, 3)
    problem = fit_law(points, name, "mse_log").problem(points.completed())
    theta = problem.starts()[0] + 0.01
    step = 1e-5 * np.eye(len(theta))

    def values(rows):
        return problem.law.value(rows)[0]

    slopes = np.stack([(values(theta[None] + h) - values(theta[None] - h)) / 2e-5 for h in step], 1)
    np.testing.assert_allclose(problem.law.jacobian(theta[None])[0], slopes, rtol=1e-5, atol=1e-6)
    kernel = problem.kernel.slopes(theta[None], problem.x, problem.centre)[0]
    np.testing.assert_allclose(kernel, slopes, rtol=1e-5, atol=1e-6)
    weights = np.random.default_rng(0).normal(size=(1, len(points)))

    def contract(at):
        return problem.law.contract(problem.law.value_and_shares(at)[1], weights, 0 * weights)

    gradients = np.stack(
        [(contract(theta[None] + h)[0][0] - contract(theta[None] - h)[0][0]) / 2e-5 for h in step]
    )
    np.testing.assert_allclose(contract(theta[None])[1][0], gradients, rtol=1e-3, atol=1e-3)


def test_kaplans_allocation_is_its_closed_form():
    """d/dN = 0 along C = 6 N D: N* = (r N_c^r C / (6 D_c))^(1/(1 + r)), r = alpha_N/alpha_D."""
    points = PRINTED["kaplan"].points(0.003)
    fit = fit_law(points, "kaplan")
    r = fit.alpha_N / fit.alpha_D
    for c in (1e18, 1e22):
        assert fit.n_opt(c) == pytest.approx((r * fit.N_c**r * c / (6 * fit.D_c)) ** (1 / (1 + r)), rel=1e-6)
        assert 6 * fit.n_opt(c) * fit.d_opt(c) == pytest.approx(c)
    assert (fit.a, fit.b) == (pytest.approx(1 / (1 + r), rel=1e-6), pytest.approx(r / (1 + r), rel=1e-6))


@pytest.mark.parametrize("name", ["farseer", "width_depth", "width_depth_size"])
def test_allocation_is_that_of_brute_force(name):
    points = PRINTED[name].points(0.001)
    fit = fit_law(points, name)
    lines = {
        key: np.polyfit(np.log(points.get("n")), np.log(points.get(key)), 1)
        for key in ("width", "depth")
        if "width" in name
    }
    k, values = points.completed().k, [getattr(fit, key) for key in fit.kernel.parameters]

    def loss(log_n, c):
        x = {key: np.exp(np.polyval(line, log_n)) for key, line in lines.items()}
        return PRINTED[name].formula({"n": np.exp(log_n), "d": c / k / np.exp(log_n), **x}, *values)

    c = 1e20
    found = minimize_scalar(
        lambda u: loss(u, c),
        bounds=(np.log(fit.n_opt(c)) - 2, np.log(fit.n_opt(c)) + 2),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert np.log(fit.n_opt(c)) == pytest.approx(found.x, abs=1e-4)
    assert fit.loss_opt(c) == pytest.approx(found.fun)
    assert fit.predict(fit.n_opt(c), fit.d_opt(c)) == pytest.approx(found.fun)


def test_draws_of_a_kernel_spread_as_fresh_noise_does():
    printed = PRINTED["kaplan"]
    points = printed.points(0.003, 99).completed()
    boot = bootstrap(points, fit_law(points, "kaplan", "mse_log"), 300, method="parametric")
    again = [fit_law(printed.points(0.003, seed), "kaplan", "mse_log") for seed in range(40)]
    for of in (lambda law: law.a, lambda law: np.log(law.n_opt(1e21)), lambda law: law.loss_opt(1e21)):
        assert boot.sd(of) == pytest.approx(np.std([of(one) for one in again]), rel=0.4)
    assert boot.failed == 0


@pytest.mark.parametrize("name", ["kaplan", "broken_power", "width_depth"])
def test_a_kernel_is_answered_as_any_law(name):
    printed = PRINTED[name]
    points = printed.points(0.003)
    found = fitted(points[::2] if name == "broken_power" else points, name, draws=40)
    told = answer(found)
    assert {one["law"] for one in told["models"]} >= {name, "power" if name == "broken_power" else "additive"}
    assert all("interval_95" in told["parameters"][key] for key in found.fit.kernel.parameters)
    assert told["holdout"]["rms"] < 0.05 and told["sensitivity"]["variants"] and told["residuals"]
    assert set(told["profiles"]) == set(found.fit.problem(found.points).axes(found.fit))
    if name != "broken_power":
        assert all(
            row["n_opt"]["interval_95"] and row["loss_ratio_at_twice_n"] > 1 for row in told["allocation"]
        )


def test_profiles_hold_the_truth():
    found = profiles(
        *((points := PRINTED["kaplan"].points(0.003).completed()), fit_law(points, "kaplan", "mse_log"))
    )
    for key, true in (("alpha_N", 0.076), ("alpha_D", 0.095), ("a", 0.095 / 0.171)):
        low, high = found[key].intervals[0.95]
        assert low is not None and high is not None and low < true < high


def test_shapes_are_read_from_a_table(tmp_path):
    points = PRINTED["width_depth"].points(0.001)[:30]
    columns = [points.get(key) for key in ("n", "d", "width", "depth", "loss")]
    rows = "".join(",".join(map(str, row)) + "\n" for row in zip(*columns))
    (tmp_path / "shapes.csv").write_text("N,D,w,layers,loss\n" + rows)
    words = ["data=shapes.csv", "columns.n=N", "columns.d=D", "columns.width=w", "columns.depth=layers"]
    words.append("law=width_depth")
    told = json.loads(dit("fit", *words, "bootstrap=0", "format=json", cwd=tmp_path, check=0).stdout)
    assert told["parameters"]["alpha_w"]["value"] == pytest.approx(0.6, abs=0.2)
    refused = dit("fit", *words[:3], "law=width_depth", cwd=tmp_path, check=2).stderr
    assert "columns.width: nothing was given; allowed: the name of a column. This law needs it." in refused


def test_too_few_points_are_refused():
    points = PRINTED["farseer"].points()
    with pytest.raises(InputError, match="9 points"):
        fit_law(points[:9], "farseer")
    with pytest.raises(InputError, match="6 parameters of broken_power"):
        fit_law(PRINTED["broken_power"].points()[:6], "broken_power")
