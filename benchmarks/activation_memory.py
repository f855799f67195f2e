"""Memory of a training step of DiT-XL/2, counted on a CPU: what one block keeps for its backward pass, per image.

    python -m benchmarks.activation_memory [--preset DiT-XL/2] [--batch 256]

The storages that autograd saves are counted as they are saved, for two batch sizes, whose difference leaves out what
does not grow with the batch. Norms are in float32 under autocast, as on a GPU, whose list of such operations is
longer than a CPU's. Compiled blocks are partitioned into forward and backward as for a GPU, but run by a
simpler backend. ``GiB_with_weights`` adds float32 weights, gradient, two moments and one average, and one bfloat16 copy
of the weights; not the work space of kernels and the allocator's gaps, so a GPU reports more.
"""

import argparse
import json
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dit.condition import Classes
from dit.domain import Domain
from dit.network.blocks import Block
from dit.network.config import DiTConfig
from dit.network.counting import count
from dit.network.presets import PRESETS
from dit.training.strategy import POLICIES, recompute

LATENT_SHAPE, NUM_CLASSES = (4, 32, 32), 1000
PRECISIONS = (
    "autocast",
    "parameters",
)  # of weights: float32 under autocast, or bfloat16; the stream is bfloat16


def float32_norm(self: nn.LayerNorm, x: Tensor) -> Tensor:
    """What autocast makes of a norm on a GPU; those of a DiT have no weights."""
    return F.layer_norm(x.float(), self.normalized_shape, None, None, self.eps)


def saved_bytes(config: DiTConfig, tokens: int, level: str, compiled: bool, precision: str) -> int:
    """Bytes that one block saves for the backward pass of one image more.

    Args:
        config: of the network.
        tokens: of an image.
        level: of activation checkpointing.
        compiled: whether the block is compiled, as with ``compile=block``.
        precision: one of PRECISIONS.
    """
    found = []
    for batch in (2, 4):
        torch._dynamo.reset()
        block = Block(config)
        dtype = torch.bfloat16 if precision == "parameters" else torch.float32
        block.to(dtype)
        if level != "none":
            recompute(block, POLICIES[level])
        if compiled:
            block.forward = torch.compile(block.forward, backend="aot_eager_decomp_partition")
        x = torch.randn(batch, tokens, config.width, dtype=torch.bfloat16, requires_grad=True)
        condition = torch.randn(batch, config.width, dtype=dtype)
        saved: dict[int, Tensor] = {}

        def keep(tensor: Tensor, saved: dict[int, Tensor] = saved) -> Tensor:
            saved[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        norm = float32_norm if precision == "autocast" else nn.LayerNorm.forward
        with (
            mock.patch.object(nn.LayerNorm, "forward", norm),
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"),
        ):
            block.forward(x, condition, None)
        found.append(sum(tensor.untyped_storage().nbytes() for tensor in saved.values()))
    return (found[1] - found[0]) // 2


def main() -> None:
    """Prints one line of json per setting."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="DiT-XL/2", choices=list(PRESETS))
    parser.add_argument("--batch", type=int, default=256)
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = PRESETS[args.preset]
    size = count(config, Domain.of(LATENT_SHAPE), Classes(NUM_CLASSES), LATENT_SHAPE[0])
    held = size.n_params_total * (5 * 4 + 2)  # weights, gradient, moments, average; one bfloat16 copy
    for precision in PRECISIONS:
        for level, compiled in (("none", False), *((level, True) for level in ("none", *POLICIES))):
            per_block = saved_bytes(config, size.tokens, level, compiled, precision)
            activations = per_block * config.depth * args.batch
            row = {
                "precision": precision,
                "compile": "block" if compiled else "none",
                "activation_checkpointing": level,
                "MiB_per_block_and_image": round(per_block / 2**20, 2),
                "GiB_of_activations": round(activations / 2**30, 1),
                "GiB_with_weights": round((activations + held) / 2**30, 1),
            }
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
