"""The coordinate check of muP: how large activations are at each width after a few steps of training.

With muP a layer's activations have one size at every width; with the standard parametrization they grow or
shrink as a power of it. Source: Tensor Programs V, 2203.03466, appendix D.1.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TypedDict

import torch
from torch import Tensor, nn

from dit.condition import Classes, Condition, labelled
from dit.domain import Domain
from dit.errors import check_number
from dit.network.config import DiTConfig
from dit.network.dit import DiT
from dit.network.parametrization import MUP_ADAM_EPS, parameter_groups

CHECKED_WIDTHS = (72, 144, 288, 576)
_HEAD_DIM, _PATCH_SIZE, _INPUT_SHAPE, _BATCH, _CLASSES = 36, 2, (4, 8, 8), 8, 10


class Coordinate(TypedDict):
    """Mean absolute activation of one layer of one network before training step ``step``."""

    parametrization: str
    width: int
    seed: int
    step: int
    layer: str
    scale: float


def coordinate_check(
    parametrization: str,
    widths: Sequence[int] = CHECKED_WIDTHS,
    seeds: Sequence[int] = (0, 1, 2),
    *,
    depth: int = 2,
    lr: float = 2**-12,
    steps: int = 10,
) -> list[Coordinate]:
    """Trains small networks on one fixed batch of noise and records the size of what their layers put out.

    Args:
        parametrization: ``standard`` | ``mup``.
        widths: multiples of 36, the width of a head here.
        seeds: of the initial weights; the batch is the same for all.
        depth: blocks.
        lr: learning rate of Adam at the base width.
        steps: training steps before the last record; step 0 is the network as initialised.

    Returns:
        One row per width, seed, step (0 to ``steps``) and layer.
    """
    check_number("steps", steps, low=1, integer=True)
    generator = torch.Generator().manual_seed(0)
    x, target = torch.randn(2, _BATCH, *_INPUT_SHAPE, generator=generator)
    t = torch.rand(_BATCH, generator=generator) * 1000
    told = labelled(torch.randint(_CLASSES, (_BATCH,), generator=generator))
    rows: list[Coordinate] = []
    for width in widths:
        config = DiTConfig(width, depth, width // _HEAD_DIM, _PATCH_SIZE, parametrization=parametrization)
        for seed in seeds:
            model = config.build(Domain.of(_INPUT_SHAPE), Classes(_CLASSES), seed=seed)
            for step, scales in enumerate(_train(model, (x, t, told), target, lr, steps)):
                for layer, scale in scales.items():
                    rows.append(
                        Coordinate(
                            parametrization=parametrization,
                            width=width,
                            seed=seed,
                            step=step,
                            layer=layer,
                            scale=scale,
                        )
                    )
    return rows


def slopes(rows: Sequence[Coordinate]) -> dict[str, float]:
    """Per layer the slope of log scale (mean over seeds) on log width at the last step, by least squares."""
    last = max(row["step"] for row in rows)
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        if row["step"] == last:
            points[row["layer"]].append((math.log(row["width"]), math.log(row["scale"])))
    return {layer: _slope(pairs) for layer, pairs in points.items()}


def _slope(pairs: Sequence[tuple[float, float]]) -> float:
    mean_x = sum(x for x, _ in pairs) / len(pairs)
    return sum((x - mean_x) * y for x, y in pairs) / sum((x - mean_x) ** 2 for x, _ in pairs)


def _train(
    model: DiT, inputs: tuple[Tensor, Tensor, Condition], target: Tensor, lr: float, steps: int
) -> list[dict[str, float]]:
    scales: dict[str, float] = {}

    def record(layer: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            scales[layer] = output.detach().abs().mean().item()

        return hook

    for layer, module in _checked_layers(model).items():
        module.register_forward_hook(record(layer))
    optimizer = torch.optim.Adam(parameter_groups(model, lr), lr=lr, eps=MUP_ADAM_EPS)
    history = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (model(*inputs) - target).square().mean()
        history.append(dict(scales))
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        model(*inputs)
    # Blocks and output start silent: a scale of zero has no logarithm and is not recorded.
    return [{layer: scale for layer, scale in step.items() if scale > 0} for step in [*history, dict(scales)]]


def _checked_layers(model: DiT) -> dict[str, nn.Module]:
    layers: dict[str, nn.Module] = {"patch embedding": model.x_embedder, "time embedding": model.t_embedder}
    for i, block in enumerate(model.blocks):
        for part in ("modulation", "attn", "mlp"):
            layers[f"block {i} {part}"] = block.get_submodule(part)
        layers[f"block {i}"] = block
    return {**layers, "output": model.final_layer}
