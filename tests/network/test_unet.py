"""The U-Net: its counts are torch's and DDPM's, its weights a function of the seed; what does not fit is refused."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dit.condition import Classes, Nothing, labelled
from dit.domain import Domain
from dit.errors import InputError
from dit.network.unet_config import UNetConfig
from dit.training.optimizers import Muon

SMALL = UNetConfig(16, (1, 2), 1, (1,), None, 8)
PICTURE = Domain(3, (8, 8))


def told(kind, n: int):
    return labelled(torch.zeros(n, dtype=torch.int64)) if isinstance(kind, Classes) else {}


@pytest.mark.parametrize(
    ("config", "domain", "kind", "out_channels"),
    [
        (UNetConfig(128), Domain(3, (32, 32)), Nothing(), 3),
        (UNetConfig(16, (1, 2, 2), 2, (0, 2), 8, 8), Domain(4, (8, 12)), Classes(10), 8),
        (UNetConfig(16, (1, 2, 3), 1, (), None, 16, scale_shift=True), Domain(1, (16, 8)), Classes(2), 1),
    ],
)
def test_counts_are_those_of_the_network_that_is_built(config, domain, kind, out_channels):
    network = config.build(domain, kind, out_channels)
    counts = config.count(domain, kind, out_channels)
    assert counts.n_params_total == sum(parameter.numel() for parameter in network.parameters())
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        out = network(torch.randn(1, *domain.shape), torch.zeros(1), told(kind, 1))
    assert counter.get_total_flops() == 2 * counts.macs_per_image
    assert out.shape == (1, out_channels, *domain.sizes)
    assert counts.tokens == domain.sizes[0] * domain.sizes[1]


def test_ddpms_network_has_the_parameters_of_the_paper():
    """35.7M on CIFAR-10. Source: DDPM 2006.11239, appendix B."""
    assert UNetConfig(128).count(Domain(3, (32, 32)), Nothing()).n_params_total / 1e6 == pytest.approx(
        35.7, abs=0.05
    )


def test_weights_come_from_the_seed_alone():
    one = SMALL.build(PICTURE, Classes(2), seed=3)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    two, other = SMALL.build(PICTURE, Classes(2), seed=3), SMALL.build(PICTURE, Classes(2), seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    pairs = list(zip(one.parameters(), two.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not all(torch.equal(a, c) for a, _, c in pairs)
    assert not one(torch.randn(2, 3, 8, 8), torch.zeros(2)).any()  # silent, as the published initialisation


def test_no_condition_is_the_null_class_and_the_class_matters():
    network = SMALL.build(PICTURE, Classes(2))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, t = torch.randn(2, 3, 8, 8), torch.full((2,), 300.0)
    with torch.no_grad():
        null = network(x, t, labelled(torch.full((2,), 2)))
        assert torch.equal(network(x, t), null)
        assert not torch.allclose(network(x, t, labelled(torch.zeros(2, dtype=torch.int64))), null)
        assert not torch.allclose(network(x, t + 300), null)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"width": 20}, "width"),
        ({"multipliers": ()}, "multipliers"),
        ({"multipliers": "12"}, "multipliers"),
        ({"attention": (2,)}, "attention"),
        ({"head_dim": 5}, "head_dim"),
        ({"scale_shift": 1}, "scale_shift"),
    ],
)
def test_impossible_settings_are_refused(settings, key):
    with pytest.raises(InputError, match=rf"^network.{key}:"):
        UNetConfig(**{"width": 16, "multipliers": (1, 2), "groups": 8, **settings})


@pytest.mark.parametrize("domain", [Domain(3, (9, 8)), Domain(3, (8,)), Domain(3, (2, 8, 8))])
def test_data_that_do_not_fit_are_refused(domain):
    with pytest.raises(InputError, match=r"^network"):
        SMALL.count(domain, Nothing())
    with pytest.raises(InputError, match=r"^network"):
        SMALL.build(domain, Nothing())


def test_muon_has_nothing_to_take():
    with pytest.raises(InputError, match=r"^optimizer: got 'muon'"):
        Muon(lr=1e-3).build(SMALL.build(PICTURE, Nothing()))


def test_a_record_says_how_deep_it_is():
    assert UNetConfig(16, (1, 2), 3, (1,), None, 8).facts["depth"] == 6
