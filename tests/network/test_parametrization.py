"""muP: the same network at the base width, steady activations at every other."""

import math

import pytest
import torch

from dit.condition import Classes
from dit.domain import Domain
from dit.errors import InputError
from dit.network.config import DiTConfig
from dit.network.coordinates import coordinate_check, slopes
from dit.network.dit import DiT
from dit.network.options import MUP_BASE_WIDTH
from dit.network.parametrization import parameter_groups

SHAPE, CLASSES = (4, 8, 8), 10


def network(width: int, parametrization: str, **options) -> DiT:
    config = DiTConfig(width, 2, width // 36, 2, parametrization=parametrization, **options)
    return DiT(config, Domain.of(SHAPE), Classes(CLASSES))


def test_base_width_is_the_standard_network() -> None:
    mup, standard = network(MUP_BASE_WIDTH, "mup"), network(MUP_BASE_WIDTH, "standard")
    for name, parameter in standard.named_parameters():
        assert torch.equal(mup.get_parameter(name), parameter), name
        assert mup.config.lr_multiplier(name, parameter) == 1


@pytest.mark.parametrize("conditioning", ["adaln_zero", "cross_attention", "in_context"])
def test_groups_hold_every_parameter_once_with_its_rate(conditioning: str) -> None:
    model = network(
        576, "mup", conditioning=conditioning, positions="learned", long_skips=False, qk_norm=True
    )
    groups = parameter_groups(model, 1e-3, weight_decay=0.1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    seen = [names[id(parameter)] for group in groups for parameter in group["params"]]
    assert sorted(seen) == sorted(names.values())
    rates = {names[id(p)]: (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    # Tensor Programs V, table 3 (Adam): hidden and output weights at 1/width, input weights and vectors at 1.
    assert rates["blocks.0.attn.qkv.weight"] == rates["final_layer.linear.weight"] == (0.5e-3, 0.2)
    assert rates["t_embedder.mlp.2.weight"][0] == 0.5e-3
    assert rates["x_embedder.proj.weight"] == rates["t_embedder.mlp.0.weight"] == (1e-3, 0.1)
    assert rates["y_embedder.weight"] == rates["pos_embed"] == rates["blocks.1.mlp.fc2.bias"] == (1e-3, 0.0)
    assert rates["blocks.0.attn.q_norm.weight"] == (1e-3, 0.0)
    assert {group["name"] for group in groups} == {"matrices", "inputs", "vectors"}
    torch.optim.AdamW(groups, lr=1e-3)


def test_standard_parametrization_has_one_rate() -> None:
    groups = parameter_groups(network(576, "standard"), 1e-3, weight_decay=0.1)
    assert {group["lr"] for group in groups} == {1e-3}
    assert sorted(group["weight_decay"] for group in groups) == [0.0, 0.1]


def test_frozen_parameters_are_in_no_group() -> None:
    model = network(72, "mup")
    model.y_embedder.requires_grad_(False)
    trained = [parameter for group in parameter_groups(model, 1e-3) for parameter in group["params"]]
    assert len(trained) == len(list(model.parameters())) - 1
    assert all(parameter is not model.y_embedder.weight for parameter in trained)


def test_initial_scales_follow_the_width() -> None:
    """Inputs start at one scale at every width, hidden matrices at 1/sqrt(width)."""
    narrow, wide = network(144, "mup"), network(576, "mup")

    def ratio(name: str) -> float:
        return (wide.get_parameter(name).std() / narrow.get_parameter(name).std()).item()

    for name in ("x_embedder.proj.weight", "t_embedder.mlp.0.weight", "y_embedder.weight"):
        assert ratio(name) == pytest.approx(1, abs=0.05), name
    for name in ("t_embedder.mlp.2.weight", "blocks.0.attn.qkv.weight", "blocks.1.mlp.fc2.weight"):
        assert ratio(name) == pytest.approx(0.5, abs=0.02), name


def test_coordinates_are_steady_with_mup_and_not_without() -> None:
    mup = slopes(coordinate_check("mup"))
    assert len(mup) == 11
    assert max(abs(slope) for slope in mup.values()) < 0.05, mup
    standard = slopes(coordinate_check("standard", seeds=(0,)))
    assert all(abs(slope) > 0.1 for slope in standard.values()), standard


def test_slope_of_a_known_power() -> None:
    rows = [
        {
            "parametrization": "mup",
            "width": w,
            "seed": s,
            "step": k,
            "layer": "a",
            "scale": (1 + s) * w**0.5 + k - 2,
        }
        for w in (10, 20, 40)
        for s in (0, 1)
        for k in (1, 2)
    ]
    assert slopes(rows)["a"] == pytest.approx(0.5)  # type: ignore[arg-type]
    assert math.isfinite(slopes(rows)["a"])  # type: ignore[arg-type]
    for steps in (0, 1.5):
        with pytest.raises(InputError, match="steps"):
            coordinate_check("mup", steps=steps)  # type: ignore[arg-type]
