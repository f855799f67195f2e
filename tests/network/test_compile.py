"""What torch.compile makes of the network: one graph, few kernels, the same numbers."""

import re

import pytest
import torch

from dit.condition import Classes
from dit.domain import Domain
from dit.network.config import DiTConfig
from dit.network.dit import DiT

pytestmark = pytest.mark.slow

OPTIONS = {
    "DiT": {},
    "adaLN": {"conditioning": "adaln"},
    "cross-attention": {"conditioning": "cross_attention"},
    "LightningDiT": {"norm": "rms", "mlp": "swiglu", "rope": True, "qk_norm": True},
    "U-ViT": {"conditioning": "in_context", "positions": "learned", "long_skips": True},
}


def network(**options):
    model = DiT(DiTConfig(32, 12, 2, 2, **options), Domain(4, (8, 8)), Classes(10))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # silent blocks and a silent output would agree whatever happened inside
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def inputs():
    generator = torch.Generator().manual_seed(1)
    x, t = torch.randn(2, 4, 8, 8, generator=generator), 1000 * torch.rand(2, generator=generator)
    return x, t, torch.tensor([1, 10])


def run(model, call):
    model.zero_grad()
    out = call(*inputs())
    out.square().mean().backward()
    return [out.detach(), *(parameter.grad for parameter in model.parameters())]


@pytest.mark.parametrize("name", list(OPTIONS))
@pytest.mark.parametrize("what", ["block", "model"])
def test_it_is_one_graph_that_all_blocks_share(name, what):
    """Nothing breaks a graph (fullgraph), and blocks of one kind are compiled once: U-ViT's are of three."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = network(**OPTIONS[name])
    expected = run(model, model)
    parts = model.blocks if what == "block" else [model]
    for part in parts:
        part.forward = torch.compile(part.forward, backend="aot_eager", fullgraph=True)
    found = run(model, model)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs == (3 if (name, what) == ("U-ViT", "block") else 1)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(found, expected, strict=True))


def test_norms_gates_and_modulation_are_fused():
    """A block's forward is its 5 matrix products, attention, and four passes over the tokens.

    Norm and modulation; gate, residual, norm and modulation; GELU; gate and residual.
    """
    from torch._inductor.utils import run_and_get_code

    torch._dynamo.reset()
    block = network().blocks[0]
    compiled = torch.compile(block.forward)
    _, code = run_and_get_code(lambda: compiled(torch.randn(2, 16, 32), torch.randn(2, 32), None))
    body = code[0][code[0].index("def call(") :]
    assert len(re.findall(r"cpp_fused\w+\(", body)) == 4
    assert len(re.findall(r"extern_kernels\.addmm\(", body)) == 5
