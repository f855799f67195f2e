"""Activation checkpointing: what a block keeps for its backward pass, and that its gradient stays."""

import pytest
import torch

from benchmarks.activation_memory import saved_bytes
from dit.condition import Classes
from dit.domain import Domain
from dit.launch import World
from dit.network.blocks import Block
from dit.network.config import DiTConfig
from dit.network.dit import DiT
from dit.training.hardware import Hardware
from dit.training.strategy import POLICIES, Strategy, recompute


@pytest.mark.slow
@pytest.mark.parametrize(
    ("level", "widths"), [("none", 17), ("nonlinearity", 13), ("selective", 11), ("full", 1)]
)
def test_what_a_compiled_block_keeps(level, widths):
    """Counted by hand, in multiples of the stream: bfloat16 (tokens, width).

    The block's input 1, q k v 3, attention 1, its projection 1, the MLP's hidden layer before 4 and after its GELU 4,
    the MLP's result 1, what the two norms and modulations return 2. Besides, statistics of norms and attention.
    """
    config, tokens = DiTConfig(128, 2, 2, 2), 64
    stream = tokens * config.width * 2
    assert 0 <= saved_bytes(config, tokens, level, True, "parameters") - widths * stream < 0.35 * stream


@pytest.mark.parametrize(("compile", "level"), [("none", None), ("block", "nonlinearity")])
def test_by_default_compiled_blocks_compute_their_nonlinearity_again(compile, level):
    """``prepare`` leaves a block as it is, or as ``recompute`` makes it: the saved tensors are the same."""
    config, single = DiTConfig(32, 2, 1, 2), (World(), Hardware(device="cpu"))

    def saved(network):
        shapes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: shapes.append(x.shape) or x, lambda x: x):
            network.blocks[0].forward(torch.zeros(3, 16, 32, requires_grad=True), torch.zeros(3, 32), None)
        return sorted(shapes)

    network, expected = (DiT(config, Domain(4, (8, 8)), Classes(10)) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", lambda forward: forward)
        Strategy(compile=compile).prepare(network, "single", *single)
    if level:
        recompute(expected.blocks[0], POLICIES[level])
    assert saved(network) == saved(expected)


@pytest.mark.parametrize("mlp", ["gelu", "swiglu"])
@pytest.mark.parametrize("level", list(POLICIES))
def test_the_gradient_is_bit_for_bit_that_of_a_block_that_keeps_all(level, mlp):
    generator = torch.Generator().manual_seed(0)
    block = Block(DiTConfig(32, 2, 2, 2, mlp=mlp))
    x, condition = (torch.randn(shape, generator=generator) for shape in ((3, 16, 32), (3, 32)))

    def gradients():
        block.zero_grad()
        stream = x.clone().requires_grad_()
        block.forward(stream, condition, None).square().sum().backward()
        return [stream.grad, *(parameter.grad for parameter in block.parameters())]

    expected = gradients()
    recompute(block, POLICIES[level])
    assert all(torch.equal(a, b) for a, b in zip(gradients(), expected, strict=True))
