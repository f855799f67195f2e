"""A plan: exact compute, chosen sizes, prices in two units, and doubts with their reasons."""

import math

import numpy as np
import pytest

from dit.accelerators import peak_flops
from dit.condition import Classes
from dit.domain import Domain
from dit.errors import InputError
from dit.network.counting import count
from dit.network.presets import ladder
from dit.study.doubts import refuse_weak
from dit.study.forecast import Outlook, Surface
from dit.study.plan import Grid, make_plan
from dit.study.price import budgets_in_flops, make_price

BUDGETS = [1e18, 3.162e18, 1e19, 3.162e19, 1e20]
LOCATED = Outlook(Surface(0.25, 0.33, 0.0273, n_opt=1e8, at_flops=1e19))
ANYWHERE = Outlook(Surface(0.25, 0.33, 0.0273))


def counts(width):
    return count(ladder(width), Domain(4, (32, 32)), Classes(1000))


def plan(outlook=LOCATED, batch=256, warmup=0, n_train=None, price=None, step=64, held_out=None, **design):
    settings = {"budgets_flops": BUDGETS, "widths": [], "min_images": 10_240, "max_images": 10**10, **design}
    return make_plan(Grid("x", **settings), counts, batch, warmup, n_train, price, outlook, step, held_out)


def test_no_reading_misses_its_budget_by_more_than_one_per_cent():
    widths = list(range(448, 1024, 64))
    found = plan(ANYWHERE, batch=65536, budgets_flops=[1e17, 1e18, 1e19], widths=widths, min_images=1)
    readings = [(run, reading) for run in found.runs for reading in run.readings]
    assert readings
    for run, reading in readings:
        exact = reading.steps * 65536 * 6 * run.counts.macs_per_image
        assert reading.flops == exact and abs(exact / reading.budget_flops - 1) <= 0.01
    assert any("misses" in warning for warning in found.warnings)  # and what was left out is said


def test_chosen_widths_surround_every_expected_best_size():
    found = plan(sizes=7, span=16.0)
    for budget in BUDGETS:
        best, sizes = found.expected.law.n_opt(budget), found.sizes(budget)
        assert 5 <= len(sizes) <= 9
        assert sum(n < best for n in sizes) >= 2 and sum(n > best for n in sizes) >= 2
        assert 8 <= sizes[-1] / sizes[0] <= 16 * 16 ** (1 / 6) * 1.001
    assert not any("edge" in warning or "narrow" in warning for warning in found.warnings)


def test_a_grid_that_grows_keeps_its_widths():
    small, large = plan(budgets_flops=BUDGETS[1:4]), plan()
    assert set(small.grid.widths) < set(large.grid.widths)
    assert [w for w in large.grid.widths if w in small.grid.widths] == small.grid.widths
    read_at = {run.width: [reading.budget_flops for reading in run.readings] for run in large.runs}
    for run in small.runs:
        assert {reading.budget_flops for reading in run.readings} <= set(read_at[run.width])


def test_a_width_is_trained_once_for_all_its_budgets():
    found = plan()
    assert len(found.runs) == len(found.grid.widths)
    assert found.flops == pytest.approx(sum(run.readings[-1].flops for run in found.runs))
    assert len(plan(seeds=[0, 1, 2]).runs) == 3 * len(found.runs)


def test_prices_are_those_of_the_hardware():
    price = make_price(None, "H100", 0.4, 8)
    assert price.flops_per_second == 0.4 * 989e12
    cost = plan(price=price).as_dict()["cost"]
    assert cost["gpu_hours"] == pytest.approx(cost["flops"] / (0.4 * 989e12) / 3600)
    assert cost["days"] == pytest.approx(cost["gpu_hours"] / 8 / 24)


def test_gpu_hours_are_an_alternative_to_flops():
    price = make_price(None, "A100", 0.5, 1)
    hours = budgets_in_flops([], [1.0, 10.0], price)
    assert hours == [3600 * 0.5 * peak_flops("A100"), 36000 * 0.5 * peak_flops("A100")]
    with pytest.raises(InputError, match=r"study.budgets_gpu_hours"):
        budgets_in_flops([1e18], [1.0], price)
    with pytest.raises(InputError, match=r"study.hardware"):
        budgets_in_flops([], [1.0], None)


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ((1e12, "H100", 0.4, 1), "study.flops_per_second, study.hardware"),
        ((None, "H1000", 0.4, 1), "study.hardware"),
        ((None, "H100", 1.4, 1), "study.mfu"),
        ((None, "H100", 0.4, 0), "study.devices"),
        ((-1.0, None, 0.4, 1), "study.flops_per_second"),
    ],
)
def test_wrong_prices_are_named(arguments, key):
    with pytest.raises(InputError, match=key):
        make_price(*arguments)


def said(found, word):
    return any(word in warning for warning in found.warnings)


def test_doubts_say_their_reason():
    narrow = plan(ANYWHERE, widths=[448, 512, 576, 640, 704], budgets_flops=[1e19, 3.162e19])
    assert said(narrow, "too narrow") and said(narrow, "two decades")
    assert said(plan(n_train=1000), "epochs")
    assert said(plan(held_out=499), "499 images are held out") and not said(plan(held_out=500), "held out")
    few = plan(ANYWHERE, widths=[448, 512, 576])
    assert said(few, "trustworthy minimum") and said(few, "no exponent by isoFLOP minima")
    edge = plan(LOCATED, widths=[448, 512, 576, 640, 704, 768])
    assert said(edge, "may fall on the edge")
    noisy = plan(Outlook(LOCATED.surface, loss_noise=0.02))
    assert said(noisy, "standard deviation")
    assert not plan(budgets_flops=[1e18, 3.162e18, 1e19, 3.162e19, 1e20, 3.162e20]).warnings


def test_a_grid_without_any_optimum_inside_is_refused():
    with pytest.raises(InputError, match=r"study\.widths.*around"):
        plan(LOCATED, widths=[1536, 1600, 1664, 1728, 1792])


def test_a_grid_that_can_tell_no_exponent_is_refused():
    """By counts: 2 x 3 readings; 9 readings of 3 x 1 cells at three seeds; and by a noise that hides the exponent."""
    refuse_weak(plan())
    few = plan(ANYWHERE, widths=[448, 512, 576], budgets_flops=[1e19, 3.162e19])
    with pytest.raises(InputError, match=r"6 readings, where 8.*6 cells.*where 7.*study\.force=true"):
        refuse_weak(few)
    repeated = plan(ANYWHERE, widths=[448, 512, 576], budgets_flops=[1e19], seeds=[0, 1, 2])
    with pytest.raises(InputError, match=r"\(3 cells of size and budget.*no exponent by the additive law"):
        refuse_weak(repeated)
    noisy = plan(Outlook(LOCATED.surface, loss_noise=0.02))
    sd = noisy.forecast["additive"]["sd_a"]
    assert sd > 0.05
    with pytest.raises(InputError, match=rf"\(a predicted standard deviation of {sd:.2g} of.*0\.05"):
        refuse_weak(noisy)


def test_budgets_inside_the_warmup_are_refused():
    with pytest.raises(InputError, match="warmup_images"):
        plan(warmup=10_000)


@pytest.mark.parametrize(("outlook", "step"), [(ANYWHERE, 64), (LOCATED, None), (None, 64)])
def test_widths_are_chosen_only_where_something_says_how(outlook, step):
    with pytest.raises(InputError, match=r"study\.widths"):
        plan(outlook, step=step)


def test_a_plan_without_outlook_or_price_is_still_a_plan():
    found = plan(None, widths=[448, 512, 576, 640, 704]).as_dict()
    assert found["cost"] is None and found["forecast"] == {}
    assert all(math.isfinite(run["flops"]) and run["gpu_hours"] is None for run in found["runs"])


def test_a_branch_begins_at_each_budget_and_cools_down_over_its_share():
    found, without = plan(cooldown_share=0.2), plan()
    assert [branch.branch_of in {run.name for run in found.runs} for branch in found.branches] == [True] * 5
    for budget, branch in zip(BUDGETS, found.branches):
        trunk = next(run for run in found.runs if run.name == branch.branch_of)
        begin = next(reading for reading in trunk.readings if reading.budget_flops == budget)
        (end,) = branch.readings
        assert branch.branch_images == begin.images
        assert (end.images - begin.images) / end.images == pytest.approx(0.2, abs=1e-3)
        assert branch.flops == pytest.approx(0.25 * begin.flops, rel=1e-3)
        best = float(found.expected.law.n_opt(budget))
        nearest = min(found.sizes(budget), key=lambda n: abs(math.log(n / best)))
        assert trunk.counts.macs_per_token == nearest
        assert "schedule=wsd" in branch.overrides() and "read_at_flops=[]" in branch.overrides()
    assert found.flops == pytest.approx(without.flops + sum(branch.flops for branch in found.branches))
    assert len(found.points()) == len(without.points())  # the laws are made of the constant rate alone


def test_further_seeds_are_of_three_cells_near_the_best_sizes_and_stay_as_the_grid_grows():
    found, without = plan(extra_seeds=[1, 2]), plan()
    extra = found.runs[len(without.runs) :]
    assert found.runs[: len(without.runs)] == without.runs
    assert [(run.seed, run.budgets_flops[-1]) for run in extra] == [
        (seed, budget) for budget in BUDGETS[:3] for seed in (1, 2)
    ]
    assert len({run.width for run in extra}) == 3
    for run in extra:
        budget = run.budgets_flops[-1]
        factor = run.counts.macs_per_token / float(found.expected.law.n_opt(budget))
        assert abs(math.log(factor)) < math.log(2)
        trunk = next(one for one in without.runs if one.width == run.width)
        assert run.readings == trunk.readings[: len(run.readings)]
    smaller = plan(extra_seeds=[1, 2], budgets_flops=BUDGETS[:4])
    assert {run.name for run in smaller.runs} < {run.name for run in found.runs}
    assert len(plan(seeds=[0, 1, 2], extra_seeds=[1, 2]).runs) == 3 * len(
        without.runs
    )  # all have them anyway
    assert found.forecast["additive"]["sd_a"] < without.forecast["additive"]["sd_a"]


def test_a_sweep_has_three_networks_at_every_rate_read_at_the_lowest_budgets():
    """N and D of its cells vary independently: the law of the best rate can be told from them."""
    found = plan(rates=[1e-3, 2e-3, 4e-3])
    widths = sorted({run.width for run in found.runs})
    assert len(widths) == 3 and len(found.runs) == 9
    trunks = {run.width: run for run in plan().runs}
    for run in found.runs:
        assert run.rate in (1e-3, 2e-3, 4e-3) and f"optimizer.lr={run.rate!r}" in run.overrides()
        assert run.readings == trunks[run.width].readings[: len(run.readings)]
        assert run.budgets_flops == [
            budget for budget in BUDGETS[:3] if budget in trunks[run.width].budgets_flops
        ]
    cells = {(run.counts.macs_per_token, reading.images) for run in found.runs for reading in run.readings}
    logs = np.log(np.array(sorted(cells)))
    assert np.linalg.matrix_rank(logs - logs.mean(axis=0), tol=0.1) == 2
    assert not any(word.startswith("optimizer.lr") for run in plan().runs for word in run.overrides())


def test_a_cell_is_a_run_beside_the_grid_or_a_longer_one():
    without = plan(ANYWHERE, widths=[448, 512, 576, 640, 704], budgets_flops=BUDGETS[:2])
    assert without.runs[0].budgets_flops == BUDGETS[:2]
    found = plan(
        ANYWHERE,
        widths=[448, 512, 576, 640, 704],
        budgets_flops=BUDGETS[:2],
        cells=[[448, 1e20, 0], [832, 1e19, 0], [512, BUDGETS[1], 5]],
    )
    runs = {run.name: run.budgets_flops for run in found.runs}
    assert runs["w0448"] == [*BUDGETS[:2], 1e19, 1e20]  # what it had, and every budget on the way
    assert runs["w0832"] == [*BUDGETS[:2], 1e19] and runs["w0512-s5"] == BUDGETS[:2]
    assert runs["w0576"] == BUDGETS[:2] and len(runs) == 7
    assert found.as_dict()["budgets_flops"] == [*BUDGETS[:2], 1e19, 1e20]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([[448, 1e18, 0]], "above the"),
        ([[448, 1e13, 1]], "10240 to"),
        ([[448, 1e19]], r"\[width, budget, seed\]"),
        ([[448, 1e19, 1], [448, 1e20, 1]], "once"),
    ],
)
def test_a_cell_that_cannot_be_run_is_named(cells, message):
    with pytest.raises(InputError, match=rf"study\.cells.*{message}"):
        plan(ANYWHERE, widths=[448, 512, 576, 640, 704], cells=cells)


def test_a_cool_down_is_a_share():
    with pytest.raises(InputError, match=r"study\.cooldown_share"):
        plan(cooldown_share=1.0)
