"""No number of a fit without its doubt: what few budgets, narrow ranges and absent terms leave undetermined is said."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from dit.fits.additive import fit_additive
from dit.fits.answer import answer
from dit.fits.doubts import doubts, of_interval
from dit.fits.envelope import fit_envelope
from dit.fits.fitted import fitted
from dit.fits.isoflop import fit_isoflop
from dit.fits.points import Points
from dit.fits.power import fit_power
from dit.fits.remarks import independent, remarks
from tests.conftest import dit
from tests.fits.surfaces import Truth, isoflop_points


def test_a_good_grid_is_not_doubted():
    points = isoflop_points(Truth(), 0.003, budgets=4, sizes=7)
    for fit in (fit_additive(points), fit_isoflop(points)):
        found = doubts(points, fit)
        assert not any(found.about(name) for name in ("a", "b", "n_opt", "d_opt", "E", "alpha"))


def test_lines_through_two_minima_are_doubted():
    points = isoflop_points(Truth(), 0.003, budgets=2, sizes=7)
    found = doubts(points, fit_isoflop(points))
    assert "2 budgets with a minimum" in found.about("a")
    assert "2 budgets with a minimum" in found.about("n_opt")


def test_parabolas_of_few_sizes_are_doubted():
    points = isoflop_points(Truth(), 0.0, budgets=4, sizes=4)
    assert "a parabola of 4 sizes" in doubts(points, fit_isoflop(points)).about("b")
    told = answer(fitted(points, "isoflop", draws=0))
    assert all(valley["doubt"] == "a parabola of 4 sizes" for valley in told["valleys"])


def row(c, centre, width=4.0, sizes=7, least=2.0):
    """A budget whose parabola in ln N has its minimum at ``centre``."""
    n = centre * np.geomspace(1 / width, width, sizes)
    return Points(least + 0.05 * np.log(n / centre) ** 2, n=n, c=np.full(sizes, c))


def joined(*parts):
    return Points(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("loss", "n")),
                  c=np.concatenate([part.c for part in parts])).completed()  # fmt: skip


def test_an_exponent_outside_of_its_range_is_doubted():
    """N* grows by 46 where C grows by 10: an exponent of 1.668, as C^1.668 once was printed like a law."""
    points = joined(row(1e15, 1e6), row(1e16, 1e6 * 10**1.668), row(1e17, 1e6 * 10**3.336))
    fit = fit_isoflop(points)
    assert fit.a == pytest.approx(1.668, abs=1e-3)
    found = doubts(points, fit)
    assert "outside (0, 1)" in found.about("a") and "outside (0, 1)" in found.about("d_coefficient")


@pytest.mark.parametrize(("name", "factor"), [("N", 3.0), ("N", 3.9)])
def test_narrow_ranges_are_doubted(name, factor):
    n, d = (
        grid.ravel() for grid in np.meshgrid(np.geomspace(1e6, factor * 1e6, 5), np.geomspace(1e8, 1e10, 5))
    )
    points = Points(1 + 50 * n**-0.3 + 60 * d**-0.25, n=n, d=d)
    assert f"{name} spans x{factor:.2g}" in doubts(points, fit_additive(points, "mse_log")).about("a")


def test_steep_exponents_are_doubted():
    n, d = (grid.ravel() for grid in np.meshgrid(np.geomspace(1, 100, 6), np.geomspace(1, 100, 6)))
    points = Points(1 + 0.5 * n**-1.8 + 0.5 * d**-0.5, n=n, d=d, c=6 * n * d)
    found = doubts(points, fit_additive(points, "mse_log"))
    assert "above 1.5" in found.about("alpha") and "alpha above 1.5" in found.about("a")
    assert found.about("beta") is None
    power = Points(np.geomspace(1, 10, 6) ** -1.8, c=np.geomspace(1, 10, 6))
    assert "above 1.5" in doubts(power, fit_power(power, loss="mse_log")).about("exponent")
    assert doubts(points, fit_envelope(points)).about("loss_exponent") is None


def test_an_interval_that_reaches_outside_is_doubted():
    assert of_interval("a", (-0.1, 0.9)) and of_interval("b", (0.2, 1.1))
    assert of_interval("a", (0.0, 0.9)) and of_interval("b", (0.2, 1.0))
    assert of_interval("a", (0.1, 0.9)) is None and of_interval("E", (-1.0, 2.0)) is None
    assert of_interval("a", None) is None


@pytest.mark.parametrize(("loss", "missing"), [("n", "beta"), ("d", "alpha")])
def test_what_an_absent_term_leaves_open_has_no_value(loss, missing):
    """A loss that depends on size alone says nothing about data, nor about what is best."""
    n, d = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e6, 1e8, 6), np.geomspace(1e8, 1e10, 6)))
    points = Points(1 + 50 * {"n": n, "d": d}[loss] ** -0.3, n=n, d=d)
    told = answer(fitted(points, draws=0))
    for name in (missing, "a", "b", "G"):
        assert told["parameters"][name]["value"] is None
        assert told["parameters"][name]["doubt"].startswith("not identified")
    assert told["allocation"][0]["n_opt"]["value"] is None
    other = {"beta": "alpha", "alpha": "beta"}[missing]
    assert told["parameters"][other]["value"] == pytest.approx(0.3, abs=1e-3)
    json.dumps(told, allow_nan=False)


def test_the_console_says_doubts_in_the_line_of_the_number(tmp_path):
    points = isoflop_points(Truth(), 0.003, budgets=2, sizes=6)
    lines = [f"{n},{c},{loss}" for n, c, loss in zip(points.get("n"), points.get("c"), points.loss)]
    (tmp_path / "points.csv").write_text("n,flops,loss\n" + "\n".join(lines) + "\n")
    shown = dit("fit", "data=points.csv", "columns.n=n", "columns.c=flops", "law=isoflop", "bootstrap=50",
                cwd=tmp_path, check=0).stdout  # fmt: skip
    for name in ("a ", "b ", "n_coefficient", "n_opt at", "d_opt at"):
        line = next(line for line in shown.splitlines() if line.startswith(name))
        assert "2 budgets with a minimum" in line


def test_readings_of_one_size_without_a_column_of_runs_are_remarked():
    n, d = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e6, 1e8, 4), np.geomspace(1e8, 1e10, 3)))
    points = Points(1 + 50 * n**-0.3 + 60 * d**-0.25, n=n, d=d)
    (told,) = independent(points, ("n", "d", "Run", "loss"))
    assert "4 of 4 sizes" in told and "independent" in told and "columns.run=Run" in told
    assert "columns.run=COLUMN" in independent(points)[0]
    runs = Points(points.loss, n=n, d=d, run=n.astype(str))
    assert independent(runs, ("Run",)) == []
    once = Points(points.loss, n=n * (1 + 0.01 * np.arange(len(n))), d=d)
    assert independent(once) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, ""), ({"alpha": 0.0}, "not positive"), ({"beta": -0.2}, "not positive"), ({"absent": ("E",)}, "zero at"),
        ({"converged": 0}, "no start converged"), ({"agreed": 12}, "only 12 of 25"), ({"agreed": 13}, ""),
        ({"loss": "lad"}, "is lad"),
    ],
)  # fmt: skip
def test_what_a_reader_must_know_is_said(changed, said):
    found = {"absent": (), "converged": 25, "agreed": 25, "starts": 25, "loss": "huber", **changed}
    exponents = {name: found.pop(name, 0.3) for name in ("alpha", "beta")}
    fit = SimpleNamespace(searched=SimpleNamespace(**found), problem=lambda _: None, **exponents)
    points = isoflop_points(Truth(), 0.003, budgets=3, sizes=4)
    lines = remarks(points, fit, None, "huber", 1e-9)
    assert (said in lines[0] and len(lines) == 1) if said else not lines


def test_copies_and_other_units_are_said():
    n, d = np.array([1.0, 2.0, 2.0]), np.array([1.0, 3.0, 3.0])
    points = Points(np.array([3.0, 2.0, 2.0]), n=n, d=d, c=6 * n * d * np.array([1.0, 1.03, 1.03]))
    lines = remarks(points, SimpleNamespace(problem=lambda _: None), None, "huber", 1e-3)
    assert any("6.18 FLOPs" in line or "37.1 FLOPs" in line for line in lines)
    assert any("C/(N D) varies" in line for line in lines) and any(
        "1 points repeat" in line for line in lines
    )


def test_curves_through_few_values_are_doubted():
    """A term with a floor has 3 parameters, as a parabola has; a line has 2. Budgets count as for minima."""
    points = isoflop_points(Truth(), 0.003, budgets=5, sizes=7)
    sizes = np.unique(np.round(np.log(points.n), 6), return_inverse=True)[1]
    few = points[np.isin(sizes, np.unique(sizes)[12:15])]
    found = doubts(few, SimpleNamespace(alpha=0.3, beta=0.3))
    assert f"{len(np.unique(np.round(few.n)))} values of N" in found.about("alpha")
    two = isoflop_points(Truth(), 0.003, budgets=2, sizes=7)
    assert "2 budgets" in doubts(two, fit_additive(two)).about("a")
    line = Points(np.array([3.0, 2.5, 2.1]), c=np.array([1e17, 1e18, 1e19]))
    assert "3 values of C" in doubts(line, fit_power(line)).about("exponent")
