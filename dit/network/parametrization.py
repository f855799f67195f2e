"""How large each parameter starts and how fast it learns, as a function of width.

``standard`` is DiT's initialisation with one learning rate. ``mup`` keeps activations and their updates of
the same size at every width, so that the best learning rate found at the base width holds for all (Tensor
Programs V, 2203.03466 table 3, Adam; for DiT 2505.15270, base width 288); at the base width both are the same
network. The ladder keeps the head's width constant, so attention keeps its 1/sqrt(head_dim).
"""

import math
from typing import Any

import torch
from torch import Tensor

from dit.network.base import Network, NetworkConfig
from dit.network.options import FIXED_INPUTS, MUP_BASE_WIDTH, DiTOptions

EMBEDDING_STD = 0.02
# Adam's usual 1e-8 is as large as the gradients that reach adaLN-Zero's silent blocks in the first steps, and
# these fall with the width: it slows wide networks and bends muP. With muP use this.
MUP_ADAM_EPS = 1e-16


def init_parameter(name: str, parameter: Tensor, config: DiTOptions, generator: torch.Generator) -> None:
    """Fills one parameter in place with its initial value; the table is in ``DiT.init_weights``."""
    zero = parameter.ndim == 1 or name.startswith("final_layer.linear") or "modulation" in name
    zero |= config.is_modulated and "cross_attn.proj" in name
    if "norm" in name and name.endswith("weight"):
        parameter.fill_(1.0)
    elif zero:
        parameter.zero_()
    elif ".skip." in name:
        width = parameter.shape[0]
        parameter.copy_(torch.eye(width, 2 * width))
    elif name.startswith(("t_embedder", "y_embedder", "pos_embed", "x_embedder.table")):
        std = EMBEDDING_STD
        if config.parametrization == "mup" and name == "t_embedder.mlp.2.weight":
            # Its inputs grow with the width.
            std *= math.sqrt(MUP_BASE_WIDTH / config.width)
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
    else:
        fan_out, fan_in = parameter.shape
        if config.parametrization == "mup" and name.startswith(FIXED_INPUTS):
            # Its inputs do not grow with the width.
            fan_out = MUP_BASE_WIDTH
        bound = math.sqrt(6 / (fan_in + fan_out))
        parameter.copy_((2 * torch.rand(parameter.shape, generator=generator) - 1) * bound)


def parameter_groups(model: Network, lr: float, weight_decay: float = 0.0) -> list[dict[str, Any]]:
    """The groups to hand to an optimizer of the Adam family.

    Args:
        model: the network.
        lr: learning rate at the base width.
        weight_decay: of matrices; vectors, embeddings and positions have none. The decay per step,
            lr * weight_decay, is kept the same for every matrix, whatever its learning rate.

    Returns:
        Groups with ``params``, ``lr``, ``weight_decay`` and, for records and schedules, ``name`` and
        ``lr_multiplier``.
    """
    config: NetworkConfig = model.config
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        multiplier, decays = config.lr_multiplier(name, parameter), config.decays(name, parameter)
        key = (multiplier, decays)
        if key not in groups:
            groups[key] = dict(
                params=[],
                lr=lr * multiplier,
                weight_decay=weight_decay / multiplier if decays else 0.0,
                name=("matrices" if multiplier != 1 else "inputs") if decays else "vectors",
                lr_multiplier=multiplier,
            )
        groups[key]["params"].append(parameter)
    return list(groups.values())
