import pytest
import torch

from dit.condition import Classes
from dit.domain import Domain
from dit.errors import InputError
from dit.network.dit import DiT
from dit.network.presets import ladder
from dit.training.optimizers import AdamW, Muon


def network(width, **options):
    return DiT(ladder(width, aspect=36, head_dim=36, **options), Domain(3, (8, 8)), Classes(10))


def test_rules_agree_at_the_base_width_and_fall_as_named():
    for rule, quarter in (("constant", 1.0), ("inverse_width", 0.25), ("inverse_sqrt_width", 0.5)):
        optimizer = AdamW(lr=0.01, lr_rule=rule, base_width=64)
        assert optimizer.learning_rate(64) == pytest.approx(0.01)
        assert optimizer.learning_rate(256) == pytest.approx(0.01 * quarter)


def test_every_parameter_is_in_one_group_and_vectors_do_not_decay():
    model = network(72)
    groups = AdamW(lr=0.01, weight_decay=0.1).build(model).param_groups
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())
    assert all(p.ndim > 1 for group in groups if group["weight_decay"] for p in group["params"])


def test_mup_divides_the_rate_of_hidden_matrices_by_the_width():
    # Tensor Programs V (2203.03466), table 3: Adam's rate of hidden weights goes with 1 / width; base width 288
    groups = AdamW(lr=0.01).build(network(72, parametrization="mup")).param_groups
    assert {group["lr_multiplier"] for group in groups} == {1.0, 4.0}
    with pytest.raises(InputError, match=r"optimizer\.lr_rule"):
        AdamW(lr=0.01, lr_rule="inverse_width").build(network(72, parametrization="mup"))


@pytest.mark.parametrize("kind", [AdamW, Muon])
def test_decays_may_be_written_as_integers(kind):
    kind(lr=0.01, betas=[0, 0]).build(network(36))


def test_the_fused_step_is_the_adamw_of_the_paper():
    """One step from rest moves every weight by lr x sign(gradient), besides decay (1711.05101, algorithm 2)."""
    model = network(72)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = AdamW(lr=0.01).build(model)
    for p in model.parameters():
        p.grad = torch.where(torch.rand_like(p) < 0.5, -1, 1) * (0.1 + torch.rand_like(p))
    optimizer.step()
    for name, p in model.named_parameters():
        assert torch.allclose(before[name] - p, 0.01 * p.grad.sign(), atol=1e-4), name
