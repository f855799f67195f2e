"""Impossible settings are refused by key, before anything is built."""

import pytest

from dit.condition import Classes
from dit.domain import Domain
from dit.errors import InputError
from dit.network.config import DiTConfig
from dit.network.counting import activation_bytes, count
from dit.network.dit import DiT
from dit.network.published import load_published

GOOD = {"width": 48, "depth": 3, "heads": 4, "patch_size": 2}


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"width": 0}, "network.width"),
        ({"width": 48.0}, "network.width"),
        ({"width": True}, "network.width"),
        ({"depth": -1}, "network.depth"),
        ({"heads": 5}, "network.heads"),
        ({"patch_size": "2"}, "network.patch_size"),
        ({"mlp_ratio": float("nan")}, "network.mlp_ratio"),
        ({"mlp_ratio": 0.001}, "network.mlp_ratio"),
        ({"conditioning": "film"}, "network.conditioning"),
        ({"norm": "batch"}, "network.norm"),
        ({"mlp": "relu"}, "network.mlp"),
        ({"positions": "none"}, "network.positions"),
        ({"parametrization": "ntk"}, "network.parametrization"),
        ({"time_convention": "edm"}, "network.time_convention"),
        ({"rope": "yes"}, "network.rope"),
        ({"qk_norm": 1}, "network.qk_norm"),
        ({"width": 50, "heads": 2}, "network.width"),
        ({"width": 24, "heads": 4, "rope": True}, "network.heads"),
        ({"depth": 2, "long_skips": True}, "network.depth"),
    ],
)
def test_impossible_configurations_name_their_key(change: dict, key: str) -> None:
    with pytest.raises(InputError) as caught:
        DiTConfig(**{**GOOD, **change})
    assert caught.value.key == key


def test_a_narrow_mlp_is_a_network():
    assert DiTConfig(**GOOD, mlp_ratio=0.5).mlp_ratio == 0.5


@pytest.mark.parametrize(
    ("shape", "classes", "out_channels", "key"),
    [
        ((4, 8, 9), 10, None, "network.patch_size"),
        ((4, 7, 8), 10, None, "network.patch_size"),
        ((0, 8, 8), 10, None, "input_shape.0"),
        ((4, 8, 8.0), 10, None, "input_shape.2"),
        ((4,), 10, None, "input_shape"),
        ((4, 8, 8, 7), 10, None, "network.patch_size"),
        ((4, 8, 8), -1, None, "num_classes"),
        ((4, 8, 8), 10, 0, "out_channels"),
    ],
)
def test_counting_and_building_refuse_the_same_data(shape, classes, out_channels, key) -> None:
    config = DiTConfig(**GOOD)
    for use in (count, DiT):
        with pytest.raises(InputError) as caught:
            use(config, Domain.of(shape), Classes(classes), out_channels)
        assert caught.value.key == key


def test_other_arguments_are_checked_too(tmp_path) -> None:
    with pytest.raises(InputError, match="batch_size"):
        activation_bytes(DiTConfig(**GOOD), Domain(4, (8, 8)), Classes(10), 0)
    with pytest.raises(InputError, match="layout"):
        load_published(tmp_path, "keras")
