"""Every YAML builds the preset of its name; the ladder keeps its aspect."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st

from dit.condition import Classes
from dit.domain import Domain
from dit.errors import InputError
from dit.network.counting import count
from dit.network.presets import PRESETS, ladder

CONF = Path(__file__).resolve().parents[2] / "conf"


def _built(name: str, *overrides: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose(overrides=[f"+network={name}", *overrides]).network)


def _file_name(preset: str) -> str:
    return preset.lower().replace("u-vit", "uvit").replace("-", "_").replace("/", "_")


def test_yaml_files_are_the_presets() -> None:
    files = {path.stem for path in (CONF / "network").glob("*.yaml")}
    assert files == {_file_name(name) for name in PRESETS} | {"_base", "ladder"}
    for name, config in PRESETS.items():
        assert _built(_file_name(name)) == config, name


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
