"""Time of our forward and backward over that of diffusers' DiT of the same size: CPU, float32, one process.

    python -m benchmarks.network_step [--repeats 15]

The two take turns, so that whatever else the machine does hits both; the median of the ratios is the result.
Both have adaLN-Zero, the same weights' shapes and the same batch; the gradients of every parameter are
computed.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from torch import Tensor, nn

from dit.condition import Classes, labelled
from dit.domain import Domain
from dit.network.config import DiTConfig
from dit.network.dit import DiT

SIZES = {  # name: (width, depth, heads, patch_size, latent side, batch)
    "digits 64x4, 16 tokens": (64, 4, 4, 2, 8, 64),
    "digits 128x8, 16 tokens": (128, 8, 8, 2, 8, 64),
    "DiT-S/2, 256 tokens": (384, 12, 6, 2, 32, 2),
}


def seconds(network: nn.Module, run: Callable[[nn.Module], Tensor]) -> float:
    """Wall time of one forward and backward."""
    start = time.perf_counter()
    run(network).square().mean().backward()
    elapsed = time.perf_counter() - start
    network.zero_grad(set_to_none=True)
    return elapsed


def compare(size: tuple[int, int, int, int, int, int], repeats: int) -> dict[str, Any]:
    """Median seconds of one forward and backward of both, and quartiles of the ratio ours / theirs."""
    width, depth, heads, patch_size, side, batch = size
    mine = DiT(DiTConfig(width, depth, heads, patch_size), Domain(4, (side, side)), Classes(10), 8)
    other = DiTTransformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=width // heads,
        in_channels=4,
        out_channels=8,
        num_layers=depth,
        sample_size=side,
        patch_size=patch_size,
        num_embeds_ada_norm=10,
        norm_eps=1e-6,
    )
    x, t = torch.randn(batch, 4, side, side), torch.rand(batch) * 1000
    y = torch.randint(0, 10, (batch,))
    runs = {
        "ours": (mine, lambda network: network(x, t, labelled(y))),
        "diffusers": (other, lambda network: network(x, t, y).sample),
    }
    times: dict[str, list[float]] = {"ours": [], "diffusers": []}
    for repeat in range(repeats + 1):
        for name, (network, run) in runs.items():
            elapsed = seconds(network, run)
            if repeat:  # the first round warms up
                times[name].append(elapsed)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratios = [ours / theirs for ours, theirs in zip(times["ours"], times["diffusers"], strict=True)]
    low, ratio, high = statistics.quantiles(ratios, n=4)
    return {**medians, "ratio": ratio, "ratio_quartiles": [low, high]}


def main() -> None:
    """Prints one line of json per size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    for name, size in SIZES.items():
        row = {
            "size": name,
            "threads": torch.get_num_threads(),
            "cpus": os.cpu_count(),
            **compare(size, args.repeats),
        }
        print(json.dumps(row))


if __name__ == "__main__":
    main()
