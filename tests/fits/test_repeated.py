"""The best allocation of repeated data against scipy's minimisation and differences, and which law is primary."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from dit.fits.answer import answer
from dit.fits.choose import epochs, primary_law
from dit.fits.data_limited import DataLimitedLaw
from dit.fits.fitted import fitted
from dit.fits.points import Points
from tests.fits.test_data_limited import REPEATED, repeated_grid

LAWS = [replace(REPEATED, unique=1e9), replace(REPEATED, unique=1e11, R_D=500.0, alpha=0.3, beta=0.42)]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("c", [1e15, 1e18, 1e20, 1e22, 1e24])
def test_no_size_is_better_by_scipy(law, c):
    """Fminbound resolves a minimum to the root of rounding; the loss there to rounding."""
    best = np.log(law.n_opt(c))
    found = minimize_scalar(
        lambda x: law.predict(np.exp(x), c / (6 * np.exp(x))),
        bounds=(best - 3, best + 4), method="bounded", options={"xatol": 1e-9},
    )  # fmt: skip
    assert law.loss_opt(c) <= found.fun * (1 + 1e-15)
    if abs(found.x - best) > 1e-5:  # as good as level there, to rounding
        assert law.predict(np.exp(found.x), c / (6 * np.exp(found.x))) == pytest.approx(
            law.loss_opt(c), rel=1e-14
        )
    assert law.k * law.n_opt(c) * law.d_opt(c) == pytest.approx(c, rel=1e-14)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("c", [1e19, 1e20])
def test_both_slopes_are_equal_at_the_best_size(law, c):
    """dL/d ln N along constant compute is zero."""
    h, n = 1e-6, law.n_opt(c)

    def lean(x):
        up, down = (law.predict(np.exp(x + s), c / (6 * np.exp(x + s))) for s in (h, -h))
        return (up - down) / (2 * h)

    curvature = (lean(np.log(n) + 0.01) - lean(np.log(n) - 0.01)) / 0.02
    assert abs(lean(np.log(n))) < 5e-6 * abs(curvature)


def test_without_repetition_it_is_the_additive_allocation():
    law, c = replace(REPEATED, unique=1e30), np.array([1e15, 1e20])
    a = law.beta / (law.alpha + law.beta)
    g = (law.alpha * law.A / (law.beta * law.B)) ** (1 / (law.alpha + law.beta))
    assert law.n_opt(c) == pytest.approx(g * (c / 6) ** a, rel=1e-12)
    assert replace(law, flops=1e20).a == pytest.approx(a, rel=1e-12)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("c", [1e17, 1e20, 1e23])
def test_the_exponent_is_the_slope_of_n_opt(law, c):
    slope = (np.log(law.n_opt(c * 1.001)) - np.log(law.n_opt(c / 1.001))) / (2 * np.log(1.001))
    assert replace(law, flops=c).a == pytest.approx(slope, abs=1e-7)
    assert replace(law, flops=c).b == pytest.approx(1 - slope, abs=1e-7)


@pytest.mark.parametrize("law", LAWS)
def test_at_the_turning_compute_unique_data_and_a_larger_network_gain_the_same(law):
    c, h = law.turning_flops, 1e-4
    n, d, u = law.n_opt(c), law.d_opt(c), law.unique
    by_unique = (law.predict(n, d, u * (1 - h)) - law.predict(n, d, u * (1 + h))) / (2 * h)
    by_size = (law.predict(n * (1 - h), d) - law.predict(n * (1 + h), d)) / (2 * h)
    by_compute = (law.loss_opt(c * (1 - h)) - law.loss_opt(c * (1 + h))) / (2 * h)
    assert by_unique == pytest.approx(by_size, rel=1e-6)
    assert by_compute == pytest.approx(by_size, rel=1e-6)


def test_draws_side_by_side_are_the_laws_one_by_one():
    rng = np.random.default_rng(0)
    names = ("E", "A", "alpha", "B", "beta", "R_D", "R_N")
    columns = {name: getattr(REPEATED, name) * rng.uniform(0.8, 1.25, 5) for name in names}
    many = DataLimitedLaw(**columns, k=6.0, unique=1e9, flops=1e21)
    for i in range(5):
        one = DataLimitedLaw(
            **{name: float(value[i]) for name, value in columns.items()}, k=6.0, unique=1e9, flops=1e21
        )
        for of in (
            lambda x: x.n_opt(1e21),
            lambda x: x.loss_opt(1e21),
            lambda x: x.a,
            lambda x: x.turning_flops,
        ):
            assert of(many)[i] == pytest.approx(of(one), rel=1e-9)


@pytest.mark.parametrize(("seen", "named"), [(3.9, "additive"), (4.1, "data_limited")])
def test_the_primary_law_is_that_of_repeated_data_above_four_epochs(seen, named):
    """Muennighoff et al. 2305.16264, abstract: up to 4 epochs repeated data are all but as good as new."""
    n, d = np.array([1e6, 2e6, 4e6]), np.array([1e8, 5e7, 2e8])
    points = Points(np.array([3.0, 2.0, 1.0]), n=n, d=d, unique=np.full(3, 2e8 / seen))
    assert epochs(points) == pytest.approx(seen)
    assert primary_law(points) == named
    assert primary_law(replace(points, unique=None)) == "additive"


def test_an_answer_has_the_allocation_and_names_the_primary_law():
    points = repeated_grid(REPEATED, 0.003, 0)
    told = answer(fitted(points, "data_limited", draws=100), [6e21])
    row = told["allocation"][0]
    assert told["unique"] == points.get("unique")[0]
    truth = replace(REPEATED, unique=told["unique"], flops=6e21)
    assert row["loss_opt"]["value"] == pytest.approx(truth.loss_opt(6e21), rel=0.02)
    assert row["n_opt"]["interval_95"][0] < row["n_opt"]["value"] < row["n_opt"]["interval_95"][1]
    assert told["turning_flops"]["value"] == pytest.approx(truth.turning_flops, rel=0.5)
    assert not any("primary law" in one for one in told["warnings"])
    plainly = answer(fitted(points, "additive", draws=0))
    assert any("law=data_limited is the primary law" in one for one in plainly["warnings"])
