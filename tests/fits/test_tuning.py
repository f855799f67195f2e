"""The law of learning rate and batch: published exponents from made sweeps, intervals that cover, N* that moves."""

import json
import math

import numpy as np
import pytest

from dit.errors import InputError
from dit.fits.points import Points
from dit.fits.tuning import Sweep, best_settings, fit_tuning, power_law
from tests.conftest import dit
from tests.fits.surfaces import Truth

# Step law, 2503.04715: lr* = 1.79 N^-.713 D^.307, B* = .58 D^.571 (tokens)
X, Y, Z = -0.713, 0.307, 0.571
TRUTH = Truth()
SIZES, AMOUNTS = np.geomspace(3e7, 1e9, 5), np.geomspace(2e9, 6e10, 4)
BENT = 0.01  # of the loss at a factor e from the best rate, or batch


def rate_opt(n, d):
    return 1.79 * n**X * d**Y


def batch_opt(d):
    return 0.58 * d**Z


def sweep(noise=0.0, seed=0, batches=(1.0,), factors=(0.25, 0.5, 1.0, 2.0, 4.0), steep=0.0):
    """Rates (and batches) around the true best ones, on a grid common to all cells as real sweeps have it.

    ``steep`` bends the far side of the rates more, as divergence does.
    """
    rows = []
    for n in SIZES:
        for d in AMOUNTS:
            centre = 2 ** round(math.log2(rate_opt(n, d)))
            for rate in (centre * factor for factor in factors):
                for batch in (2 ** round(math.log2(batch_opt(d))) * one for one in batches):
                    x = math.log(rate / rate_opt(n, d))
                    b = math.log(batch / batch_opt(d)) if len(batches) > 1 else 0.0
                    loss = TRUTH.loss(n, d) * math.exp(BENT * (x**2 + b**2) + steep * max(x, 0.0) ** 3)
                    rows.append((n, d, rate, batch, loss))
    n, d, rate, batch, loss = np.array(rows).T
    loss = loss * np.exp(noise * np.random.default_rng(seed).standard_normal(len(loss)))
    return Sweep(Points(loss, n=n, d=d, c=6 * n * d), rate, batch if len(batches) > 1 else None)


def test_the_published_exponents_are_found_again():
    found = fit_tuning(sweep(batches=(0.25, 0.5, 1.0, 2.0, 4.0)), draws=0)
    assert found.rate.exponents == pytest.approx((X, Y), abs=1e-9)
    assert found.batch is not None and found.batch.exponents == pytest.approx((Z,), abs=1e-9)
    assert found.rate.at(N=1e8, D=1e10) == pytest.approx(rate_opt(1e8, 1e10))
    assert found.batch.at(D=1e10) == pytest.approx(batch_opt(1e10))
    for one in found.cells:
        assert one.loss == pytest.approx(TRUTH.loss(one.n, one.d))


def test_a_parabola_keeps_away_from_rates_that_run_away():
    found = fit_tuning(sweep(factors=(0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32), steep=0.002), draws=0)
    assert found.rate.exponents == pytest.approx((X, Y), abs=0.02)


def test_intervals_of_the_exponents_cover():
    """150 sweeps with .1 % noise: 95 % intervals hold the truth; one sd of the count is 1.8 %."""
    inside = []
    for seed in range(150):
        cells = best_settings(sweep(noise=0.001, seed=seed))
        n, d, rate = (np.log([getattr(one, name) for one in cells]) for name in ("n", "d", "rate"))
        law = power_law({"N": n, "D": d}, rate)
        assert law.intervals is not None
        inside.append([low <= true <= high for true, (low, high) in zip((X, Y), law.intervals, strict=True)])
    assert np.all((np.mean(inside, axis=0) > 0.90) & (np.mean(inside, axis=0) < 0.99))


def test_one_rate_for_all_moves_the_exponent_that_tuning_finds():
    """At one rate the smallest networks of long runs lose most: the law of the tuned cells is the true one."""
    factors = tuple(2.0**k for k in range(-6, 7))
    wide = sweep(factors=factors)
    found = fit_tuning(wide, draws=100)
    assert found.tuned is not None and found.untuned is not None and found.fixed_rate is not None
    assert found.tuned.fit.a == pytest.approx(TRUTH.exponent(), abs=1e-3)
    assert abs(found.untuned.fit.a - TRUTH.exponent()) > 0.02
    assert found.fixed_rate in wide.rate


def test_cells_without_a_minimum_are_named():
    points = sweep().points
    rising = Sweep(points, np.exp(points.loss))
    assert {one.rejected for one in best_settings(rising)} == {"its lowest loss is at an end"}
    with pytest.raises(InputError, match=r"columns\.lr.*0 of 20 cells.*lowest loss is at an end"):
        fit_tuning(rising)
    with pytest.raises(InputError, match="3 make a parabola"):
        fit_tuning(sweep(factors=(0.5, 2.0)))
    with pytest.raises(InputError, match="do not vary independently"):
        power_law({"N": np.array([1.0, 2.0, 3.0]), "D": np.array([2.0, 4.0, 6.0])}, np.ones(3))


def test_the_command_reads_a_sweep(tmp_path):
    made = sweep(noise=0.0005, batches=(0.5, 1.0, 2.0))
    columns = [made.points.n, made.points.d, made.rate, made.batch, made.points.loss]
    rows = "\n".join(",".join(f"{value:.10g}" for value in row) for row in np.array(columns).T)
    (tmp_path / "sweep.csv").write_text("params,tokens,lr,bs,loss\n" + rows + "\n")
    words = ["fit", "data=sweep.csv", "law=tuning", "columns.n=params", "columns.d=tokens", "columns.lr=lr"]
    words.insert(2, "bootstrap=0")
    found = json.loads(dit(*words, "columns.batch=bs", "format=json", cwd=tmp_path, check=0).stdout)
    for name, true in (("N", X), ("D", Y)):
        low, high = found["rate"]["exponents"][name]["interval_95"]
        assert low < true < high and high - low < 0.1
    assert found["batch"]["exponents"]["D"]["value"] == pytest.approx(Z, abs=0.1)
    text = dit(*words, "columns.batch=bs", "at_flops=[1e21]", cwd=tmp_path, check=0).stdout
    assert "lr* =" in text and "B*  =" in text and "tuned: N* ~ C^" in text
    assert "delta" in dit(*words, "delta=1e-2", cwd=tmp_path, check=2).stderr
