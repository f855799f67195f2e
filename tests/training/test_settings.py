import pytest

from dit.errors import InputError
from dit.training.settings import Duration, read_points


def test_a_duration_has_exactly_one_unit():
    assert Duration(steps=7).in_steps(64, 1e6) == 7
    assert Duration(images=640).in_steps(64, 1e6) == 10
    assert Duration(flops=64e6 * 12).in_steps(64, 1e6) == 12
    with pytest.raises(InputError, match=r"duration.images=640, duration.steps=7"):
        Duration(images=640, steps=7)
    with pytest.raises(InputError, match="none"):
        Duration()


def test_a_duration_below_one_step_is_refused():
    with pytest.raises(InputError, match="at least one batch"):
        Duration(images=3).in_steps(64, 1e6)


def test_budgets_are_read_within_one_percent_or_refused():
    points = read_points([1e9], last_step=60, batch_size=10, train_flops_per_image=1e7)
    assert [(point.step, point.budget_flops) for point in points] == [(10, 1e9), (60, None)]
    with pytest.raises(InputError, match="read_at_flops"):
        read_points([1.05e8 * 1.4], last_step=60, batch_size=10, train_flops_per_image=1e7)
