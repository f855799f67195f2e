"""Thresholds, defaults and ranges of the fits: each is crossed from both sides, at the value that its text states."""

from types import SimpleNamespace

import numpy as np
import pytest

from dit.errors import InputError
from dit.fits.additive import AdditiveProblem, check_design, fit_additive
from dit.fits.answer import answer
from dit.fits.bootstrap import Bootstrap, bootstrap, resampled
from dit.fits.data_limited import DataLimitedProblem
from dit.fits.doubts import doubts
from dit.fits.envelope import fit_envelope
from dit.fits.fitted import Fitted, fitted
from dit.fits.holdout import holdout
from dit.fits.isoflop import fit_isoflop
from dit.fits.laws import additive, settled
from dit.fits.losses import chosen, huber
from dit.fits.optimum import rounding
from dit.fits.points import Points, drop_outliers
from dit.fits.power import PowerProblem, fit_power
from dit.fits.remarks import remarks
from dit.fits.saturating import MOST, saturated
from dit.fits.sensitivity import sensitivity
from dit.fits.table import SUFFIXES, _remedy
from tests.fits.surfaces import Truth, isoflop_points
from tests.values import changeable, defaults

GRID = isoflop_points(Truth(), 0.003, budgets=6, sizes=5)


def line(n: int, noise: float = 0.02, **columns) -> Points:
    """Points about a power law of compute."""
    c = np.geomspace(1e15, 1e19, n)
    return Points(np.exp(noise * np.random.default_rng(n).standard_normal(n)) * c**-0.1, c=c, **columns)


def test_no_value_of_a_fit_changes():
    assert changeable("dit.fits") == set()


def test_defaults_are_the_same_everywhere():
    """Huber's delta is that of Hoffmann et al., section D.2; intervals are those of 95 %."""
    found = defaults("dit.fits")
    same = {
        "delta": 1e-3,
        "level": 0.95,
        "seed": 0,
        "loss": "huber",
        "drop_highest": 0,
        "max_iterations": 300,
    }
    for name, value in same.items():
        assert set(found[name].values()) == {value}, name
    assert found["draws"] == {"fitted": 1000, "holdout": 1000, "bootstrap": 4000, "fit_tuning": 1000}
    for name in ("cells_too", "stratified", "log", "falling"):
        assert set(found[name].values()) == {False}, name
    assert found["floor"] == {"PowerLaw.__init__": 0.0, "PowerFit.__init__": 0.0, "fit_power": False}


@pytest.mark.parametrize(("runs", "readings", "method"), [
    (24, 1, "parametric"), (25, 1, "pairs"), (39, 2, "parametric"), (40, 2, "pairs"),
])  # fmt: skip
def test_noise_is_drawn_anew_below_25_runs_or_40_that_are_read_again(runs, readings, method):
    points = line(runs * readings, run=np.repeat(np.arange(runs), readings).astype(str))
    assert bootstrap(points, fit_power(points, loss="mse_log"), 20).method == method


def test_the_least_of_runs_and_draws():
    three, two = (line(12, run=np.resize(list("abc"[:k]), 12)) for k in (3, 2))
    assert bootstrap(three, fit_power(three, loss="mse_log"), 20, 0).draws == 20
    for points, draws, seed in ((two, 20, 0), (three, 19, 0), (three, 20, -1)):
        with pytest.raises(InputError):
            bootstrap(points, fit_power(points, loss="mse_log"), draws, seed)


@pytest.mark.parametrize(("size", "within"), [(2, False), (3, True)])
def test_budgets_of_three_runs_are_strata(size, within):
    c = np.repeat([1e15, 1e16, 1e17], size)
    points = Points(1 + np.arange(3.0 * size), c=c, budget=c, run=np.arange(3 * size).astype(str))
    weights = resampled(points, "run", 200, np.random.RandomState(0)).reshape(200, 3, size).sum(2)
    assert bool((np.abs(weights - size) < 1e-9).all()) == within
    by_point = resampled(points, "point", 200, np.random.RandomState(0), stratified=True)
    assert bool((np.abs(by_point.reshape(200, 3, size).sum(2) - size) < 1e-9).all()) == within


@pytest.mark.parametrize(("share", "clipped"), [(0.0, 1e-3), (1.0, 1 - 1e-3)])
def test_an_estimate_beyond_all_draws_is_at_their_last_thousandth(share, clipped):
    from scipy.stats import norm

    values = np.random.default_rng(0).standard_normal(100)
    boot = Bootstrap(
        SimpleNamespace(a=-9.0 if share == 0 else 9.0), SimpleNamespace(a=values), 100, 0, 0, "run", "pairs"
    )
    expected = np.quantile(values, norm.cdf(2 * norm.ppf(clipped) + np.array([-1, 1]) * norm.ppf(0.975)))
    assert boot.interval(lambda law: law.a) == pytest.approx(expected, rel=1e-9)


def test_twenty_values_make_an_interval():
    points = line(9)
    for n, said in ((19, False), (20, True)):
        law = SimpleNamespace(exponent=np.linspace(-0.2, -0.1, n))
        boot = Bootstrap(SimpleNamespace(exponent=-0.15), law, n, 0, 0, "run", "pairs")
        found = Fitted(points, "power", "mse", 1, fit_power(points), n, 0, boot)
        assert ("sd" in found.estimate("exponent")) == said == (found.drawn() is not None)
        assert (found.interval(lambda law: law.exponent) is not None) == said


def test_hold_outs_of_an_answer_have_400_draws():
    points = line(24)
    expected = holdout(points, "power", "mse_log", draws=400)
    for draws in (0, 500):
        found = answer(fitted(points, "power", "mse_log", draws=draws))
        assert found["holdout"]["low"] == pytest.approx(expected.low) and found["holdout"]["n"] == expected.n
    assert holdout(points, "power", "mse_log", draws=500).low != pytest.approx(expected.low)
    assert answer(fitted(Points(points.loss, n=points.c), "power", "mse_log", draws=0))["holdout"] is None


def test_allocations_of_an_answer_begin_at_the_largest_budget():
    found = answer(fitted(GRID, draws=0))
    top = GRID.budget_flops[-1]
    assert [row["flops"] for row in found["allocation"]] == pytest.approx([top, 10 * top, 100 * top])
    with pytest.raises(InputError, match="at_flops"):
        answer(fitted(GRID, draws=0), [0.0])


def test_noise_of_an_answer_is_in_standard_deviations():
    points = line(12, run=np.repeat(list("abcdef"), 2))
    found = answer(fitted(points, "power", "mse_log", draws=20))["bootstrap"]["noise"]
    noise = bootstrap(points, fit_power(points, loss="mse_log"), 20).noise
    assert (found["sd_of_runs"] ** 2, found["sd_of_readings"] ** 2) == pytest.approx(
        (noise.run, noise.reading)
    )


def test_what_is_left_out_one_time():
    """Shares of 1, 2 and 5 % of the points, rounded up; budgets from either end, two at most."""
    points = line(100)
    found = sensitivity(points, fit_power(points, loss="mse_log"), "power", "mse_log")
    values = [one.value for one in found if one.choice == "outliers"]
    assert values == [*(f"{n} highest losses dropped" for n in (1, 2, 5)), "2 largest residuals dropped"]
    found = sensitivity(GRID, fit_additive(GRID, "mse_log"), "additive", "mse_log")
    c = GRID.budget_flops
    edges = [f"C >= {c[1]:.3g}", f"C <= {c[-2]:.3g}", f"C >= {c[2]:.3g}", f"C <= {c[-3]:.3g}"]
    assert [one.value for one in found if one.choice == "budgets"] == edges
    assert not [one for one in found if one.choice == "delta"]
    for budgets, edges in ((2, 0), (3, 2)):
        few = isoflop_points(Truth(), 0.003, budgets=budgets, sizes=7)
        found = sensitivity(few, fit_additive(few, "mse_log"), "additive", "mse_log")
        assert len([one for one in found if one.choice == "budgets"]) == edges
    assert not [one for one in sensitivity(Points(points.loss, n=points.c), fit_power(points), "power")
                if one.choice == "budgets"]  # fmt: skip


def law(**changed):
    """A law of no doubt, but for what is changed."""
    return SimpleNamespace(
        **{"E": 1.0, "A": 60.0, "alpha": 0.34, "B": 400.0, "beta": 0.37, "a": 0.5, "b": 0.5, **changed}
    )


@pytest.mark.parametrize(("changed", "name", "doubted"), [
    ({"alpha": 1.5}, "alpha", False), ({"alpha": 1.6}, "alpha", True), ({"a": 0.0105}, "a", False),
    ({"a": 0.0095}, "a", True), ({"a": 0.9895}, "a", False), ({"a": 0.9905}, "a", True), ({"alpha": 0.0}, "a", True),
    ({"loss_exponent": 0.0}, "loss_exponent", False), ({"loss_exponent": 0.01}, "loss_exponent", True),
    ({"alpha": 1.05e-3}, "A", False), ({"alpha": 0.95e-3}, "A", True), ({"a": np.nan}, "a", True),
    ({"searched": SimpleNamespace(converged=1, absent=())}, "a", False),
    ({"searched": SimpleNamespace(converged=0, absent=())}, "a", True),
])  # fmt: skip
def test_doubts_begin_where_they_are_said_to(changed, name, doubted):
    """Exponents above 1.5, shares within 1 % of an end, a term that changes by less than a thousandth."""
    n, d = (
        grid.ravel() for grid in np.meshgrid(np.geomspace(1e6, 1e6 * np.e, 7), np.geomspace(1e8, 1e10, 7))
    )
    fit = law(**changed)
    if name == "A":  # its change is alpha times the span of ln N, which is 1
        assert ("A" in (doubts(Points(1 + n / n.max(), n=n, d=d), fit).missing or {})) == doubted
    else:
        wide = Points(1 + n / n.max(), n=n**3, d=d)
        assert (doubts(wide, fit).about(name) is not None) == doubted


@pytest.mark.parametrize(("factor", "doubted"), [(4.0, False), (3.8, True)])
def test_ranges_below_a_factor_of_four_are_doubted(factor, doubted):
    n, d = (grid.ravel() for grid in np.meshgrid(np.geomspace(1, factor, 7), np.geomspace(1, 100, 7)))
    assert (doubts(Points(1 + n, n=n, d=d), law()).about("a") is not None) == doubted


@pytest.mark.parametrize(("values", "doubted"), [(4, True), (5, False)])
def test_curves_want_two_values_more_than_parameters(values, doubted):
    """A term with a floor has 3 parameters, a line of a power law 2 and 3 with its floor."""
    n, d = (grid.ravel() for grid in np.meshgrid(np.geomspace(1, 100, values), np.geomspace(1, 100, 7)))
    assert (doubts(Points(1 + n, n=n, d=d), law()).about("a") is not None) == doubted
    for fit, count in ((SimpleNamespace(x="c", exponent=-0.1), values - 1),
                       (SimpleNamespace(x="c", exponent=-0.1, E=1.0), values)):  # fmt: skip
        assert (doubts(line(count), fit).about("exponent") is not None) == doubted


def test_design_of_points_with_two_exponents():
    rng = np.random.default_rng(0)
    x, y = np.linalg.qr(rng.standard_normal((12, 3)) - rng.standard_normal(3))[0][:, :2].T
    x, y = (v - v.mean() for v in (x, y))
    y -= x * (x @ y) / (x @ x)
    y *= np.sqrt(x @ x / (y @ y))  # singular values are now equal
    check_design(x, 0.0105 * y, 11)
    with pytest.raises(InputError, match="one budget only"):
        check_design(x, 0.0095 * y, 11)
    with pytest.raises(InputError, match="more points than the 12"):
        check_design(x, y, 12)
    check_design(np.resize([0.0, 1.0, 1 + 2e-6], 12), y, 5)
    for few in (np.resize([0.0, 1.0], 12), np.resize([0.0, 1.0, 1 + 2e-7], 12)):
        with pytest.raises(InputError, match="at least 3 different values"):
            check_design(few, y, 5)


@pytest.mark.parametrize(("factor", "budgets"), [(1 + 0.95e-3, 1), (1 + 1.05e-3, 2)])
def test_given_budgets_are_one_within_a_thousandth(factor, budgets):
    assert Points(np.ones(2), budget=np.array([1e18, 1e18 * factor])).budgets.max() + 1 == budgets


@pytest.mark.parametrize(("step", "kind", "budgets"), [(1.095, "grouped", 1), (1.105, "grouped", 3)])
def test_computes_are_one_budget_within_a_tenth(step, kind, budgets):
    points = Points(np.ones(3), c=1e18 * step ** np.arange(3))
    assert (points.budget_kind, points.budgets.max() + 1) == (kind, budgets)


@pytest.mark.parametrize(("spread", "kind"), [(1.45, "grouped"), (1.55, "binned")])
def test_chains_wider_than_a_half_are_binned_by_half_decades(spread, kind):
    points = Points(np.ones(9), c=1e18 * np.geomspace(1, spread, 9))
    assert points.budget_kind == kind
    wide = Points(np.ones(81), c=np.geomspace(1e18, 1e20, 81))
    assert wide.budgets.tolist() == [round(2 * (18 + i / 40)) - 36 for i in range(81)]


def test_outliers_are_counted_up_to_the_last_but_one():
    points = line(4)
    assert len(drop_outliers(points, 3)) == 1 and drop_outliers(points, 0) is points
    for wrong in (4, -1):
        with pytest.raises(InputError, match="drop_highest"):
            drop_outliers(points, wrong)


def test_narrow_and_wide_huber_losses_are_others():
    assert [chosen("huber", delta) for delta in (0.95e-8, 1e-8, 1e4, 1.05e4)] == [
        "lad",
        "huber",
        "huber",
        "mse_log",
    ]
    assert chosen("mse", 1e-9) == "mse"
    for other in ("mse", "huber"):
        with pytest.raises(InputError, match="delta"):
            chosen(other, 0.0)


def test_hubers_loss_is_scipys():
    from scipy.special import huber as reference

    f, delta = np.array([-0.3, -0.02, -0.019, 0.0, 0.01, 0.02, 0.5]), 0.02
    rho, first, second = huber(delta).derivatives(f, np.zeros(7))
    assert delta * rho == pytest.approx(reference(delta, f), rel=1e-12, abs=1e-18)
    assert first == pytest.approx(np.clip(f / delta, -1, 1)) and huber(delta).unit == delta
    assert second == pytest.approx(np.where(np.abs(f) < delta, 1 / delta, 0.0))


def test_what_is_zero_for_every_purpose():
    losses = np.array([2.0, 3.0])
    assert settled("E", 1.9e-9, losses) == 0 and settled("floor", 2.1e-9, losses) == 2.1e-9
    assert settled("A", 1e-12, losses) == 1e-12
    shares = additive(np.zeros(2), np.zeros(2)).shares(np.array([[0.0, 0.3, -2000.0, 0.3, 0.0]]))
    assert all((share >= np.finfo(float).tiny).all() for share in shares)


def test_points_that_a_law_fits_to_rounding():
    """Twelve digits of ln L, which are as many of L times L itself."""
    y, w = np.log([[2.0, 3.0, 5.0]]), np.array([[1.0, 2.0, 0.0]])
    for loss, expected in (("lad", 3e-12), ("mse_log", 3e-24), ("huber", 3e-24), ("mse", 22e-24)):
        assert rounding(loss, y, w)[0] / expected == pytest.approx(1)
    with pytest.raises(InputError, match="losses that differ"):
        fit_power(Points(np.full(5, 2.0), c=np.geomspace(1, 100, 5)))


def test_ranges_of_profiles():
    """Exponents up to a term that falls by e^30 over the points, a within 1 %, floors from e^-30 of the lowest loss."""
    n, d = np.log(GRID.n), np.log(GRID.d)
    lowest, found = np.log(GRID.loss.min()), AdditiveProblem(GRID, "mse", 1e-3).axes(None)
    ends = {name: (one.low, one.high) for name, one in found.items()}
    expected = {"a": (0.01, 0.99), "alpha": (0, 30 / np.ptp(n)), "beta": (0, 30 / np.ptp(d)),
                "E": (lowest - 30, lowest)}  # fmt: skip
    assert ends == {name: pytest.approx(value) for name, value in expected.items()}
    repeats = Points(GRID.loss, n=GRID.n, d=GRID.d, unique=0.5 * GRID.d)
    ends = {
        name: (one.low, one.high) for name, one in DataLimitedProblem(repeats, "mse", 1).axes(None).items()
    }
    both = {name: (np.log(1e-2), np.log(1e4)) for name in ("R_D", "R_N")}
    both |= {name: (1e-3 * expected[name][1], expected[name][1]) for name in ("alpha", "beta")}
    assert ends == {name: pytest.approx(value) for name, value in {**both, "E": expected["E"]}.items()}
    axes = DataLimitedProblem(repeats, "mse", 1).axes(None)
    assert [axes[name].shown(np.log(3.0)) for name in ("R_D", "R_N", "E")] == pytest.approx([3.0] * 3)
    x, low = np.log(line(9).c), PowerProblem(line(9), True, "mse", 1).axes(None)["exponent"]
    assert (low.low, low.high) == pytest.approx((-30 / np.ptp(x), 30 / np.ptp(x)))


def test_starts_of_a_power_law_are_lines_through_the_centre():
    points = line(9)
    slope, height = np.polyfit(np.log(points.c) - np.log(points.c).mean(), np.log(points.loss), 1)
    expected = [[height, -slope * factor] for factor in (1, 0.5, 2, 0)]
    assert PowerProblem(points, False, "mse", 1).starts() == pytest.approx(np.array(expected), abs=1e-12)


@pytest.mark.parametrize(("floor", "fewest"), [(False, 3), (True, 4)])
def test_power_laws_want_one_more_point_than_parameters(floor, fewest):
    fit_power(line(fewest, 0.0), floor)
    few, again = line(fewest - 1), np.arange(8) % (fewest - 1)
    for points in (few, few[again]):
        with pytest.raises(InputError, match="more than the"):
            fit_power(points, floor)


def test_repetition_is_seen_twice():
    """Once is not enough, and a billionth above the unique samples is none."""
    unique = GRID.d.copy()
    unique[3] /= 2
    for second, enough in ((1.0, False), (1 - 0.9e-9, False), (1 - 1.2e-9, True)):
        unique[4] = GRID.d[4] * second
        points = Points(GRID.loss, n=GRID.n, d=GRID.d, unique=unique)
        if enough:
            starts = DataLimitedProblem(points, "mse", 1).starts()
            assert starts.shape == (12, 7)
            assert set(np.round(np.exp(starts[:, 5:]), 9).ravel()) <= {1.5, 6.0, 25.0, 100.0}
        else:
            with pytest.raises(InputError, match="1 points with D above it"):
                DataLimitedProblem(points, "mse", 1)


def test_a_base_that_is_used_without_end_is_used_up():
    value, by_gap, by_limit, *_ = saturated(np.array([np.expm1(MOST)]), 5.0)
    assert (value[0], by_gap[0], by_limit[0]) == pytest.approx((np.log(6), 0, 5 / 6))


@pytest.mark.parametrize(("c", "factor", "said"), [
    (1e9, 1.0, ""), (0.95e9, 1.0, "flops_per_nd"), (1e18, np.exp(0.019), ""), (1e18, np.exp(0.021), "varies"),
])  # fmt: skip
def test_remarks_begin_where_they_are_said_to(c, factor, said):
    """Compute below 1e9 FLOPs, and C/(N D) that is off its mean by more than 1 %."""
    n, d = np.array([1.0, 1.0]), np.array([c / 12, c / 6])
    told = remarks(
        Points(np.array([2.0, 1.0]), n=n, d=d, c=6 * d * [1, factor] / factor),
        SimpleNamespace(problem=lambda _: None),
        None,
        "mse",
        1,
    )
    assert len(told) == bool(said) and said in "".join(told)


@pytest.mark.parametrize(("suffix", "factor"), [
    ("k", 1e3), ("K", 1e3), ("M", 1e6), ("B", 1e9), ("G", 1e9), ("T", 1e12), ("%", 1e-2)
])  # fmt: skip
def test_suffixes_are_written_out(suffix, factor):
    assert f"{2.5 * factor:g} for '2.5{suffix}'" in _remedy(f"2.5{suffix}", "loss")
    assert len(SUFFIXES) == 7


def test_three_budgets_of_five_sizes_are_enough():
    points = isoflop_points(Truth(), 0.0, budgets=3, sizes=5)
    for fit in (fit_additive(points), fit_isoflop(points)):
        assert doubts(points, fit).about("a") is None


def test_an_envelope_is_of_three_points_that_are_lower_than_all_before():
    n, c = np.array([1.0, 2.0, 4.0, 8.0]), np.array([1.0, 4.0, 16.0, 64.0])
    fit = fit_envelope(Points(np.array([4.0, 3.0, 3.0, 2.0]), n=n, c=c))
    assert fit.frontier.tolist() == [0, 1, 3]
    assert fit.problem(Points(np.array([4.0, 3.0, 3.0, 2.0]), n=n, c=c)).refit(
        None, np.ones((1, 4)), np.log([[4.0, 3.0, 3.0, 2.0]])
    ).converged.tolist() == [True]
    with pytest.raises(InputError, match="2 points that no cheaper one beats"):
        fit_envelope(Points(np.array([4.0, 3.0, 3.0, 3.0]), n=n, c=c))
