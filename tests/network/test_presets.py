"""Every row of the table is an option that builds it; the ladder keeps its aspect."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from dit.condition import Classes
from dit.config.known import checked
from dit.config.networks import OPTIONS, offer_networks
from dit.domain import Domain
from dit.errors import InputError
from dit.network.counting import count
from dit.network.presets import PRESETS, ladder

CONF = Path(__file__).resolve().parents[2] / "conf"
offer_networks()  # as every verb does


def _built(name: str, *overrides: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose(overrides=[f"+network={name}", *overrides]).network)


# The group as conf/network/uvit_h_2.yaml composed it before the table's rows were options: hashes of runs rest on it.
UVIT_H_2 = """
_target_: dit.network.config.DiTConfig
width: 1152
depth: 29
heads: 16
patch_size: 2
mlp_ratio: 4.0
conditioning: in_context
norm: layer
mlp: gelu
positions: learned
rope: false
qk_norm: false
long_skips: true
parametrization: standard
time_convention: dit
"""


def test_every_row_is_an_option_and_there_are_those_of_the_papers() -> None:
    assert (
        len(PRESETS) == 12 + 6 + 8
    )  # DiT table 1; B, L, XL at patch 1 and 2; U-ViT table 1 at patch 4 and 2
    for name, config in PRESETS.items():
        assert _built(OPTIONS[name]) == config, name
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert OmegaConf.to_yaml(compose(overrides=["+network=uvit_h_2"]).network) == UVIT_H_2.lstrip()


def test_a_published_name_is_an_option_too() -> None:
    assert checked(["network=U-ViT-H/2", "++network=DiT-XL/2"], "train", str(CONF)) == [
        "network=uvit_h_2",
        "network=dit_xl_2",
    ]


def test_options_are_overridden_by_name() -> None:
    config = _built("dit_xl_2", "network.parametrization=mup", "network.qk_norm=true")
    assert (config.parametrization, config.qk_norm, config.width) == ("mup", True, 1152)
    assert _built("ladder", "network.width=128", "network.aspect=16", "network.head_dim=16").depth == 8


@given(st.integers(1, 40), st.sampled_from([16, 32, 64]), st.sampled_from([8, 16, 64]))
def test_ladder_keeps_aspect_and_head_width(rung: int, aspect: int, head_dim: int) -> None:
    width = rung * max(aspect, head_dim)
    config = ladder(width, aspect=aspect, head_dim=head_dim, patch_size=1)
    assert config.width == width
    assert config.depth * aspect == width
    assert config.head_dim == head_dim


def test_ladder_refuses_what_is_off_it() -> None:
    with pytest.raises(InputError, match=r"Nearest: 128 or 192\.") as caught:
        ladder(130)
    assert caught.value.key == "network.width"
    with pytest.raises(InputError, match=r"network\.aspect"):
        ladder(128, aspect=0)
    with pytest.raises(InputError, match=r"network\.conditioning"):
        ladder(128, conditioning="none")


def test_uvit_sizes_are_near_the_papers() -> None:
    """U-ViT 2209.12152, table 1; ours have a time MLP and biases on q, k, v, not its last 3x3."""
    for size, millions in {"S": 44, "M": 131, "L": 287, "H": 501}.items():
        assert count(
            PRESETS[f"U-ViT-{size}/2"], Domain(4, (32, 32)), Classes(1000)
        ).n_params_total / 1e6 == pytest.approx(millions, rel=0.03)
