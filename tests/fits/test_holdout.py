"""Hold-outs: cuts, scores against their published definitions, and what a law is worth against no law."""

import json

import numpy as np
import pytest
from scipy.stats import linregress

from dit.columns import csv_text
from dit.errors import InputError
from dit.fits.additive import fit_additive
from dit.fits.cuts import selected
from dit.fits.held import Holdout, in_words, summary
from dit.fits.holdout import holdout, holdout_by_size
from dit.fits.points import Points
from tests.conftest import dit
from tests.fits.surfaces import Truth, isoflop_points

TRUTH = Truth()
GRID = isoflop_points(TRUTH, 0.003)


def test_cuts_select_readings():
    points = Points([1.0, 2.0, 3.0, 4.0], n=[1.0, 2.0, 1.0, 2.0], d=[1.0, 1.0, 4.0, 4.0]).completed()
    assert list(selected(points, "flops>12")) == [False, False, True, True]  # C = 6 N D
    assert list(selected(points, " N >= 2 ")) == [False, True, False, True]
    assert list(selected(points, "d<2,n>1.5e0")) == [False, True, False, False]


@pytest.mark.parametrize(
    "cut", ["flops", "loss>1", "n>n", "n=2", "__import__('os')>1", "n>1e3 and d<2", "", "n>1_0"]
)
def test_other_words_are_one_message(cut):
    with pytest.raises(InputError, match=r"holdout: .*flops>1e21"):
        selected(GRID, cut)


@pytest.mark.parametrize("cut", ["n>1", "n<1"])
def test_a_cut_of_all_or_nothing_is_refused(cut):
    with pytest.raises(InputError, match="parts the readings"):
        selected(GRID, cut)


def test_scores_are_the_published_ones():
    """Five readings by hand: equation 43 of Gneiting & Raftery (2007), and a line by scipy."""
    rng = np.random.default_rng(0)
    n, y = np.geomspace(1e6, 1e8, 5), np.array([2.0, 1.9, 1.8, 1.7, 1.6])
    predicted = y * np.exp(0.01 * rng.standard_normal(5))
    low, high = y * 0.99, y * 1.02
    low[1], high[3] = y[1] * 1.01, y[3] * 0.995
    one = Holdout(1.0, 5, predicted, y, low, high, size=n, persistence=y * 1.05, constant=np.full(5, 1.8))
    score = np.log(high / low)
    score[1] += 40 * np.log(1.01)
    score[3] += 40 * -np.log(0.995)
    assert one.interval_score == pytest.approx(score.mean())
    assert one.skill_against_persistence == pytest.approx(1 - (one.rms / np.log(1.05)) ** 2)
    assert one.skill_against_constant == pytest.approx(1 - one.rms**2 / np.mean(np.log(1.8 / y) ** 2))
    line = linregress(np.log(n), np.log(predicted / y))
    assert one.tilt == pytest.approx((line.slope, line.stderr))
    assert one.covered == 3 and "3 of 5" in in_words(summary(one))


def test_a_law_beats_no_law_and_a_wrong_one_tilts():
    found = holdout(GRID, "additive", draws=100, cut="flops>4e17")
    assert found.n == 7 and found.what == "flops>4e17" and found.budget == GRID.budget_flops[-1]
    before = GRID.loss[GRID.budgets == 4]
    assert found.persistence == pytest.approx(np.full(7, before.min()))
    assert found.constant == pytest.approx(np.full(7, np.exp(np.log(before).mean())))
    assert min(found.skill_against_persistence, found.skill_against_constant) > 0.5
    ((flops, predicted, measured),) = found.minima
    assert flops == found.budget
    assert predicted == pytest.approx(TRUTH.n_opt(flops), rel=0.2)
    assert measured == pytest.approx(TRUTH.n_opt(flops), rel=0.2)
    bent = (GRID.n / GRID.n.mean()) ** np.where(GRID.budgets == 5, 0.02, 0.0)
    flat = Points(GRID.loss * bent, n=GRID.n, d=GRID.d, budget=GRID.budget)
    slope, error = holdout(flat, "additive", draws=20).tilt
    assert abs(slope) > 4 * error


def test_a_cut_need_not_follow_budgets():
    found = holdout(GRID, "additive", draws=40, cut="n>5e7,flops>1e16")
    assert found.n == np.sum((GRID.n > 5e7) & (GRID.budget > 1e16)) and not found.minima


def test_each_size_is_a_fit_to_the_others():
    n = np.tile([1e6, 2e6, 4e6, 8e6, 16e6], 5)
    d = np.repeat(np.geomspace(1e8, 1e10, 5), 5)
    loss = TRUTH.loss(n, d) * np.exp(0.003 * np.random.default_rng(1).standard_normal(25))
    points = Points(loss, n=n, d=d)
    found = holdout_by_size(points, fit_additive(points, "mse_log"))
    assert [one.what for one in found] == ["N = 1e+06", "N = 2e+06", "N = 4e+06", "N = 8e+06", "N = 1.6e+07"]
    for one, size in zip(found, np.unique(n)):
        law = fit_additive(points[n != size], "mse_log")
        assert one.predicted == pytest.approx(law.predict(n[n == size], d[n == size]), rel=1e-5)


def test_the_verb_holds_out_a_cut(tmp_path):
    rows = [("n", "d", "loss"), *zip(GRID.n, GRID.d, GRID.loss)]
    (tmp_path / "points.csv").write_text(csv_text([list(row) for row in rows]))
    words = ("fit", "data=points.csv", "columns.n=n", "columns.d=d", "bootstrap=40")
    found = json.loads(dit(*words, "holdout=flops>4e17", "format=json", cwd=tmp_path, check=0).stdout)
    assert found["holdout"]["n"] == 7 and found["holdout"]["skill_against_persistence"] > 0.5
    shown = dit(*words, cwd=tmp_path, check=0).stdout
    assert "against persistence" in shown and "held out in turn" in shown
    refused = dit(*words, "holdout=loss>2", cwd=tmp_path, check=2).stderr
    assert "holdout: got 'loss>2'" in refused and "Traceback" not in refused
    assert (
        "the largest budget, or none"
        in dit(*words, "law=isoflop", "holdout=n>2", cwd=tmp_path, check=2).stderr
    )
