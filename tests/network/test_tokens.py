"""Networks on tokens: integers in, logits out; counted, exported, and scaled by the rules of muP."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dit.condition import Classes, labelled
from dit.domain import Domain
from dit.errors import InputError
from dit.network.config import DiTConfig
from dit.network.export import load_safetensors, save_safetensors
from dit.network.options import CONDITIONINGS
from dit.network.parametrization import parameter_groups
from tests.network.test_dit import trained

TEXT, LATTICE = Domain(1, (12,), vocabulary=27), Domain(1, (4, 6), vocabulary=7)


def tokens(domain: Domain, n: int = 2) -> torch.Tensor:
    """Random tokens, masked ones among them."""
    return torch.randint(
        -1, domain.vocabulary, (n, *domain.shape), generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize("domain", [TEXT, LATTICE], ids=str)
@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_logits_of_each_value_and_counts_with_the_head(domain, conditioning):
    """Multiply-adds are those of torch's counter, the look-up being none; what stands elsewhere is another token."""
    config, kind = DiTConfig(32, 2, 4, 1, conditioning=conditioning, rope=True), Classes(5)
    counts, network = config.count(domain, kind), trained(config.build(domain, kind))
    x, t, told = tokens(domain), torch.tensor([10.0, 900.0]), labelled(torch.tensor([1, 5]))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        out = network(x, t, told)
    assert (out.shape, out.dtype) == ((2, domain.vocabulary, *domain.sizes), torch.float32)
    assert counter.get_total_flops() == 2 * 2 * counts.macs_per_image
    assert counts.macs_by_part["output"] >= counts.tokens * domain.vocabulary * 32
    assert counts.n_params_total == sum(parameter.numel() for parameter in network.parameters())
    changed = x.clone()
    changed[:, 0, ..., -1] = (x[:, 0, ..., -1] + 1) % domain.vocabulary
    assert not torch.allclose(network(changed, t, told), out, atol=1e-3)


def test_embedding_and_head_under_mup():
    """Tensor Programs V, table 3: what reads a token learns at the base rate, what reads the width at base / width."""
    config = DiTConfig(576, 1, 16, 1, parametrization="mup")
    network = config.build(TEXT, Classes(3))
    assert abs(float(network.x_embedder.table.weight.detach().std()) / 0.02 - 1) < 0.03  # whatever the width
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found = {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in parameter_groups(network, 1e-3, 0.1)
        for parameter in group["params"]
    }
    assert found["x_embedder.table.weight"] == (1e-3, 0.0)
    assert found["final_layer.linear.weight"] == (0.5e-3, 0.2)


def test_exported_weights_know_the_vocabulary(tmp_path):
    network = trained(DiTConfig(16, 1, 2, 1).build(TEXT, Classes(0)))
    save_safetensors(network, tmp_path / "x.safetensors")
    again = load_safetensors(tmp_path / "x.safetensors")
    assert again.domain == TEXT
    x, t = tokens(TEXT), torch.zeros(2)
    assert torch.equal(again(x, t), network(x, t))


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Domain(3, (8, 8), vocabulary=256), "vocabulary"),
        (lambda: Domain(1, (8,), vocabulary=1), "vocabulary"),
        (lambda: Domain(1, (8,), vocabulary=-2), "vocabulary"),
        (lambda: DiTConfig(16, 1, 2, 2).count(TEXT, Classes(0)), "network.patch_size"),
    ],
)
def test_what_no_data_of_tokens_have_is_refused(make, key):
    with pytest.raises(InputError) as error:
        make()
    assert error.value.key == key
