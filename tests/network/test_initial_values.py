"""The table in ``DiT.init_weights``, parameter by parameter, in both parametrizations."""

import math

import pytest
import torch

from dit.condition import Classes
from dit.domain import Domain
from dit.network.config import DiTConfig
from dit.network.dit import DiT

OPTIONS = [
    {},
    {"norm": "rms", "mlp": "swiglu", "qk_norm": True},
    {"conditioning": "cross_attention", "qk_norm": True},
    {"conditioning": "in_context", "norm": "rms", "long_skips": True, "positions": "learned"},
    {"conditioning": "adaln", "long_skips": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("parametrization", ["standard", "mup"])
@pytest.mark.parametrize("width", [144, 576])
def test_what_starts_at_one_at_zero_and_at_random(width: int, parametrization: str, options: dict) -> None:
    """DiT (2212.09748), U-ViT (2209.12152); muP leaves gains and biases as they are (2203.03466, table 3)."""
    depth = 3 if options.get("long_skips") else 1
    config = DiTConfig(width, depth, width // 36, 2, parametrization=parametrization, **options)
    model = DiT(config, Domain(4, (4, 4)), Classes(10))
    wide = math.sqrt(288 / width) if parametrization == "mup" else 1.0
    for name, value in model.named_parameters():
        if "norm" in name and name.endswith("weight"):
            assert torch.equal(value, torch.ones_like(value)), name
            assert config.lr_multiplier(name, value) == 1, name
        elif value.ndim == 1 or "modulation" in name or name.startswith("final_layer.linear"):
            assert not value.any(), name
        elif ".skip." in name:
            assert torch.equal(value, torch.cat([torch.eye(width), torch.zeros(width, width)], 1)), name
        elif name.startswith(("t_embedder", "y_embedder", "pos_embed")):
            std = 0.02 * (wide if name == "t_embedder.mlp.2.weight" else 1)
            assert value.std().item() == pytest.approx(std, rel=0.1), name
        else:
            fan_out, fan_in = value.shape
            fan_out = 288 if name.startswith("x_embedder") and parametrization == "mup" else fan_out
            bound = math.sqrt(6 / (fan_in + fan_out))
            assert bound * 0.99 < value.abs().max().item() <= bound, name
            assert value.mean().item() == pytest.approx(0, abs=4 * bound / math.sqrt(3 * value.numel())), name
