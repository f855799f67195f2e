import pytest
import torch
from torch import nn

from dit.errors import InputError
from dit.training.averaging import Averages, Constant, Power


def follow(profile, values, batch_size=1):
    network = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(network.weight)
    averages = Averages(network, {"ema": profile})
    for step, value in enumerate(values, start=1):
        nn.init.constant_(network.weight, value)
        averages.update(network, step, batch_size)
    return averages.shadows["ema"]["weight"].item()


def test_power_average_has_the_width_it_is_named_by():
    # EDM2 (2312.02696), section 3.1: sigma_rel .05 and .10 are gamma 16.97 and 6.94
    assert Power(0.05).gamma == pytest.approx(16.97, abs=0.01)
    assert Power(0.10).gamma == pytest.approx(6.94, abs=0.01)


def test_power_average_weighs_the_past_by_a_power_of_time():
    # the continuous profile is t^gamma: its mean over theta(t) = t is (gamma + 1) / (gamma + 2) of the end
    steps, gamma = 4000, Power(0.1).gamma
    found = follow(Power(0.1), torch.arange(1.0, steps + 1).tolist())
    assert found / steps == pytest.approx((gamma + 1) / (gamma + 2), rel=1e-3)


def test_constant_average_forgets_half_in_its_half_life():
    found = follow(Constant(half_life_images=640), [1.0] + [0.0] * 10, batch_size=64)
    first = 1 - 0.5**0.1
    assert found == pytest.approx(first * 0.5, rel=1e-6)


def test_applied_puts_the_weights_back_even_after_an_error():
    network = nn.Linear(2, 2)
    averages = Averages(network, {"ema": Power(0.1)})
    nn.init.zeros_(network.weight)
    with pytest.raises(RuntimeError), averages.applied(network, "ema"):
        assert network.weight.abs().sum() > 0
        raise RuntimeError
    assert network.weight.abs().sum() == 0


@pytest.mark.parametrize("bad", [0, 0.5, float("nan"), "wide"])
def test_a_width_that_no_power_has_is_refused(bad):
    with pytest.raises(InputError, match=r"averages\.sigma_rel"):
        Power(bad)
