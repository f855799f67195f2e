"""Laws weighted by held-out error: weights against scipy, mixtures of draws, and what ``dit fit`` says of a choice."""

import numpy as np
import pytest
from scipy.optimize import minimize

from dit.errors import InputError
from dit.fits.answer import answer
from dit.fits.choose import fit_law
from dit.fits.fitted import fitted
from dit.fits.stacking import weights_of
from tests.conftest import dit
from tests.fits.kernel_coverage import points_on
from tests.fits.kernel_surfaces import kaplan_surface
from tests.fits.surfaces import Truth, isoflop_points

TWO = ("additive", "kaplan")
SURFACE = kaplan_surface(np.random.default_rng(20_000))


def by_slsqp(misses: np.ndarray, importance: np.ndarray) -> float:
    """The least sum of squares over the simplex."""
    return minimize(
        lambda w: importance @ (misses @ w) ** 2, np.ones(3) / 3, bounds=[(0, 1)] * 3, method="SLSQP",
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1}, options={"ftol": 1e-14},
    ).fun  # fmt: skip


def test_weights_are_those_of_a_general_optimiser():
    rng = np.random.default_rng(0)
    for _ in range(20):
        misses = rng.normal(size=(12, 3)) @ rng.normal(size=(3, 3)) + rng.normal(size=3)
        importance = rng.exponential(size=(2, 12))
        for row, found in zip(importance, weights_of(misses, importance)):
            assert found.sum() == pytest.approx(1) and found.min() >= 0
            assert row @ (misses @ found) ** 2 <= by_slsqp(misses, row) * (1 + 1e-6)


def test_the_true_law_gets_the_weight():
    ours = fit_law(points_on(SURFACE, 3), "stacked", laws=TWO)
    assert dict(zip(ours.names, ours.weights))["kaplan"] > 0.9
    theirs = fit_law(isoflop_points(Truth(), 0.001), "stacked", laws=TWO)
    assert dict(zip(theirs.names, theirs.weights))["additive"] > 0.9


def test_a_stack_lies_between_its_laws_and_its_interval_holds_both():
    points = points_on(SURFACE, 1).completed()
    found = fitted(points, "stacked", draws=300, laws=TWO)
    low, high = sorted(one.n_opt(1e19) for one in found.fit.members)
    assert low <= found.fit.n_opt(1e19) <= high
    logs = sum(w * np.log(one.predict_points(points)) for w, one in zip(found.fit.weights, found.fit.members))
    np.testing.assert_allclose(found.fit.predict_points(points), np.exp(logs))
    boot = found.boot
    assert boot is not None and set(np.unique(boot.law.weights)) <= {0.0, 1.0}
    assert boot.law.weights.shape == (boot.converged, 2) == (len(boot.law.members[0].E), 2)
    for k, one in enumerate(boot.law.members):  # each draw is one law's own number
        mine = boot.law.weights[:, k] == 1
        np.testing.assert_allclose(boot.law.loss_opt(1e19)[mine], one.loss_opt(1e19)[mine])
    assert boot.law.weights.mean(0) == pytest.approx(found.fit.weights, abs=0.35)


def test_disagreement_at_the_target_is_said_with_the_stacks_interval():
    points = points_on(SURFACE, 3)
    told = answer(fitted(points, "additive", draws=150))
    choice, top = told["choice"], 10 * float(points.completed().get("c").max())
    assert choice["flops"] == pytest.approx(top) and choice["said"] in told["warnings"]
    low, high = choice["stacked"]["loss_opt"]["interval_95"]
    assert low < SURFACE.loss_opt(top) < high
    alone = choice["laws"]["additive"]["loss_opt"]["interval_95"]
    assert not alone[0] < SURFACE.loss_opt(top) < alone[1]
    assert answer(fitted(points, "kaplan", draws=150))["choice"] is None  # held-out error decides for it
    agreed = answer(fitted(isoflop_points(Truth(), 0.01, budgets=4, sizes=5), "additive", draws=100))
    assert agreed["choice"] is None


def test_a_stack_is_a_law_of_the_command_line(tmp_path):
    points = points_on(SURFACE, 3)
    rows = "".join(f"{n},{c},{loss}\n" for n, c, loss in zip(points.get("n"), points.get("c"), points.loss))
    (tmp_path / "points.csv").write_text("n,flops,loss\n" + rows)
    words = ["fit", "data=points.csv", "columns.n=n", "columns.c=flops", "law=stacked", "bootstrap=40"]
    shown = dit(*words, cwd=tmp_path, check=0).stdout
    assert "weights by held-out error: additive" in shown and "n_opt at" in shown


@pytest.mark.slow  # the third law has nine parameters
def test_a_stack_is_answered_as_numbers():
    points = points_on(SURFACE, 3)
    found = answer(fitted(points, "stacked", draws=40))
    assert found["weights"]["kaplan"] > 0.5 and sum(found["weights"].values()) == pytest.approx(1)
    assert found["allocation"][1]["n_opt"]["interval_95"] and found["parameters"]["a"]["interval_95"]


def test_too_few_budgets_are_refused():
    with pytest.raises(InputError, match=r"stacked \(2 budgets\)"):
        fit_law(isoflop_points(Truth(), budgets=2), "stacked")
