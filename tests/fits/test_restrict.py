"""Laws with fixed and tied parameters: against scipy, the published forms, and finite differences."""

import numpy as np
import pytest
from scipy.optimize import minimize

from dit.errors import InputError
from dit.fits.choose import fit_law
from dit.fits.compare import likelihood
from dit.fits.fitted import fitted
from dit.fits.points import Points
from dit.fits.profile import profiles


def grid(noise: float = 0.0, law=lambda n, d: 1.7 + 400 * n**-0.34 + 410 * d**-0.28) -> Points:
    n, c = (x.ravel() for x in np.meshgrid(np.geomspace(1e7, 1e9, 6), np.geomspace(1e18, 1e21, 5)))
    d = c / 6 / n
    keep = (d / n > 0.5) & (d / n < 3000)
    losses = law(n[keep], d[keep]) * np.exp(noise * np.random.default_rng(0).normal(size=keep.sum()))
    return Points(losses, n=n[keep], d=d[keep])


def huber(residual: np.ndarray, delta: float = 1e-3) -> float:
    size = np.abs(residual)
    return float(np.where(size <= delta, size**2 / 2, delta * (size - delta / 2)).sum())


RESTRICTIONS = {
    "alpha": ((("alpha", 0.3),), lambda q: (q[0], 0.3, q[1], q[2], q[3])),
    "E": ((("E", 1.6),), lambda q: (q[0], q[1], q[2], q[3], np.log(1.6))),
    "A": ((("A", 300.0),), lambda q: (np.log(300.0) - q[0] * np.log(1e8), q[0], q[1], q[2], q[3])),
    "A and alpha": (
        (("A", 300.0), ("alpha", 0.33)), lambda q: (np.log(300.0) - 0.33 * np.log(1e8), 0.33, q[0], q[1], q[2])
    ),
    "tied": ((("beta", "alpha"),), lambda q: (q[0], q[1], q[2], q[1], q[3])),
}  # fmt: skip


@pytest.mark.parametrize("name", RESTRICTIONS)
def test_no_optimum_of_scipy_is_better(name):
    """Nelder-Mead on the free parameters alone, N in units of 1e8 and D of 1e10, from 20 starts around the law."""
    points = grid(0.004)
    fixed, whole = RESTRICTIONS[name]
    fit = fit_law(points, "additive", fixed=fixed)

    def objective(q: np.ndarray) -> float:
        a, alpha, b, beta, e = whole(q)
        with np.errstate(over="ignore"):
            terms = np.exp(a - alpha * np.log(points.n / 1e8)) + np.exp(b - beta * np.log(points.d / 1e10))
            return huber(np.log(points.loss) - np.log(terms + np.exp(e)))

    q = 5 - len(fixed)
    rng, best = np.random.default_rng(1), np.inf
    for _ in range(20):
        found = minimize(objective, rng.uniform(-1, 1, q) * 0.6 + 0.2, method="Nelder-Mead",
                         options={"maxiter": 4000, "maxfev": 4000, "xatol": 1e-9, "fatol": 1e-14})  # fmt: skip
        best = min(best, found.fun)
    assert fit.objective <= best * (1 + 1e-6)
    named = {"A": fit.A, "alpha": fit.alpha, "E": fit.E, "beta": fit.beta}
    for key, value in fixed:
        assert named[key] == pytest.approx(named[value] if isinstance(value, str) else value, rel=1e-12)
    n_free = len(fit.problem(points).to_theta(fit))
    assert n_free == 5 - len(fixed) == likelihood(points, fit)[0] - 1  # and the scale


def test_tied_exponents_are_the_law_of_gadre():
    """L = E + (a M^eta + b M^-eta) C^-eta for M = D/N and C = 6 N D. Source: Gadre et al. 2403.08540, equation 4."""
    e, a, b, eta = 1.51, 141.0, 190.0, 0.121
    m, c = (x.ravel() for x in np.meshgrid([5.0, 20, 80, 320, 640], np.geomspace(1e17, 1e20, 4)))
    points = Points(e + (a * m**eta + b * m**-eta) * c**-eta, n=np.sqrt(c / 6 / m), d=np.sqrt(c * m / 6))
    fit = fit_law(points, "additive", fixed=(("alpha", "beta"),))
    assert (fit.E, fit.alpha, fit.beta) == pytest.approx((e, 2 * eta, 2 * eta), rel=1e-6)
    assert (fit.A * 6**eta, fit.B * 6**eta) == pytest.approx((a, b), rel=1e-5)


def test_fixed_base_leaves_the_two_rates_of_repetition():
    """As the paper fits them: A, alpha, B, beta and E from elsewhere. Source: Muennighoff et al. 2305.16264, section 3,
    with their values of Hoffmann's law for C4, and R_D and R_N.
    """
    a, b, e, alpha, r_d, r_n = 521.0, 1488.0, 1.87, 0.353, 15.387756, 5.309743
    n, d, u = np.array(
        [
            (n, u * epochs, u)
            for n in (7e6, 4e7, 2e8, 1e9, 4e9)
            for u in (1e8, 1e9)
            for epochs in (1, 3, 10, 30, 90)
        ]
    ).T
    supported = (alpha * a / (alpha * b)) ** (2 / (2 * alpha)) * u  # N of N = G (C/6)^.5 where D = U
    size = np.minimum(n, supported)
    effective_n = size + size * r_n * (1 - np.exp(-(n / size - 1) / r_n))
    effective_d = u + u * r_d * (1 - np.exp(-(d / u - 1) / r_d))
    losses = e + a * effective_n**-alpha + b * effective_d**-alpha
    fixed = (("A", a), ("alpha", alpha), ("B", b), ("beta", alpha), ("E", e))
    fit = fit_law(Points(losses, n=n, d=d, unique=u), "data_limited", fixed=fixed)
    assert pytest.approx((r_d, r_n), rel=1e-4) == (fit.R_D, fit.R_N)
    assert fit.objective < 1e-15


@pytest.mark.parametrize("law", ["additive", "data_limited"])
def test_slopes_are_those_of_differences(law):
    points = grid(0.01)
    if law == "data_limited":
        points = Points(points.loss, n=points.n, d=points.d, unique=np.full(len(points), points.d.min() * 3))
    fixed = (("A", 300.0), ("beta", "alpha"))
    fit = fit_law(points, law, fixed=fixed)
    problem = fit.problem(points)
    theta = problem.to_theta(fit) + 0.01
    step = 1e-6 * np.eye(len(theta))
    value = lambda rows: problem.law.value(rows)  # noqa: E731
    slopes = np.stack([(value(theta[None] + h)[0] - value(theta[None] - h)[0]) / 2e-6 for h in step], axis=1)
    np.testing.assert_allclose(problem.law.jacobian(theta[None])[0], slopes, atol=1e-7)
    weights = np.random.default_rng(0).normal(size=(1, len(points)))
    sums = lambda at: problem.law.contract(problem.law.value_and_shares(at)[1], weights, 0 * weights)[0][0]  # noqa: E731
    curved = problem.law.contract(problem.law.value_and_shares(theta[None])[1], weights, 0 * weights)[1][0]
    differences = np.stack([(sums(theta[None] + h) - sums(theta[None] - h)) / 2e-6 for h in step])
    np.testing.assert_allclose(curved, differences, rtol=1e-4, atol=1e-5)


def test_what_is_fixed_says_so_and_the_rest_is_sharper():
    points = grid(0.004)
    free, given = fitted(points, draws=200), fitted(points, draws=200, fixed=(("E", 1.7),))
    assert given.estimate("E") == {"value": pytest.approx(1.7), "doubt": "given, not fitted"}
    assert given.estimate("alpha")["sd"] < free.estimate("alpha")["sd"]
    assert "E" not in profiles(points, given.fit) and "alpha" in profiles(points, given.fit)
    tied = fitted(points, draws=200, fixed=(("beta", "alpha"),))
    assert tied.estimate("beta")["doubt"] == "equal to alpha"
    half = tied.estimate("a", lambda law: law.a)
    assert (half["value"], half["sd"], half["doubt"]) == (0.5, 0.0, "follows from what is given")
    assert tied.held_out().n


def test_a_given_floor_of_zero_is_none():
    fit = fit_law(grid(law=lambda n, d: 400 * n**-0.34 + 410 * d**-0.28), fixed=(("E", 0),))
    assert fit.E < 1e-300 and (fit.alpha, fit.beta) == pytest.approx((0.34, 0.28), rel=1e-6)


@pytest.mark.parametrize(
    ("law", "fixed", "told"),
    [
        ("additive", {"R_D": 3.0}, r"fix\.R_D: got 3\.0; allowed: parameters of law=additive: A, alpha"),
        ("isoflop", {"A": 3.0}, "none can be fixed"),
        ("additive", {"A": "alpha"}, r"fix\.A: got 'alpha'; allowed: a finite number"),
        ("additive", {"alpha": "gamma"}, r"fix\.alpha: got 'gamma'; allowed: one of beta"),
        ("additive", {"alpha": 0.3, "beta": "alpha"}, r"fix\.alpha is given"),
        ("additive", {"alpha": -0.3}, r"fix\.alpha: got -0\.3"),
        ("additive", {"E": -1}, r"fix\.E: got -1"),
        (
            "additive",
            {"A": 1.0, "alpha": 1.0, "B": 1.0, "beta": 1.0, "E": 1.0},
            "at least one parameter left",
        ),
    ],
)
def test_impossible_restrictions_are_refused(law, fixed, told):
    with pytest.raises(InputError, match=told):
        fit_law(grid(), law, fixed=tuple(fixed.items()))
