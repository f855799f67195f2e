"""Conditions: named tensors, batch first, and the kinds they are of."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import default_convert

from dit.condition import (
    NOTHING,
    Classes,
    Condition,
    Nothing,
    Several,
    Text,
    find,
    kind_as_dict,
    kind_of_dict,
)
from dit.domain import Domain
from dit.errors import InputError

# as those of several kinds are: a tensor of tokens, a mask of them and one vector beside the label
TOLD = Condition(
    {
        "label": torch.arange(4),
        "text": torch.randn(4, 5, 3),
        "text_mask": torch.rand(4, 5) < 0.5,
        "pooled": torch.rand(4, 7),
    }
)


def same(one: Condition, other: Condition) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_parts_pairs_and_choices_are_made_sample_by_sample():
    index, keep = torch.tensor([2, 0]), torch.tensor([True, False, False, True])
    null = Condition({name: torch.zeros_like(tensor) for name, tensor in TOLD.items()})
    for name, tensor in TOLD.items():
        assert torch.equal(TOLD.part(index)[name], torch.stack([tensor[2], tensor[0]]))
        assert torch.equal(TOLD.beside(null)[name], torch.stack([*tensor, *null[name]]))
        chosen = [a if yes else b for a, b, yes in zip(tensor, null[name], keep)]
        assert torch.equal(TOLD.where(keep, null)[name], torch.stack(chosen))
        assert torch.equal(torch.cat([part[name] for part in TOLD.parts(2)]), tensor)
    assert same(TOLD.where(torch.ones(4, dtype=torch.bool), null), TOLD)


def test_nothing_stays_nothing():
    assert not NOTHING and len(NOTHING.parts(3)) == 3
    for made in (
        NOTHING.part(slice(2)),
        NOTHING.beside(NOTHING),
        NOTHING.where(torch.ones(3), NOTHING),
        *NOTHING.parts(2),
    ):
        assert same(made, NOTHING)


def test_it_travels_from_loaders_to_devices():
    """Through a worker's pickle, torch's conversion of what loaders yield, and Lightning's move to a device."""
    from lightning.pytorch.utilities import move_data_to_device

    assert same(pickle.loads(pickle.dumps(TOLD)), TOLD) and same(copy.deepcopy(TOLD), TOLD)
    for made in (default_convert(TOLD), move_data_to_device((TOLD,), torch.device("cpu"))[0], TOLD.to("cpu")):
        assert type(made) is Condition and same(made, TOLD)
    assert TOLD.to("meta")["text"].is_meta


def test_one_of_each_tensor_for_each_sample():
    TOLD.check(4)
    NOTHING.check(4)
    with pytest.raises(InputError, match=r"^label: .*one for each of the 3 samples"):
        TOLD.check(3)


SEVERAL = Several((Classes(5), Text(5, 3, 7)))
KINDS = [Classes(5), Classes(5, (0, 3)), Classes(0), Nothing(), Text(6, 8), Text(6, 8, 3), SEVERAL]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_kinds(kind):
    assert kind_of_dict(kind_as_dict(kind)) == kind
    for policy in ("balanced", "random"):
        drawn = kind.drawn(policy, 3, 10)
        drawn.check(10)
        assert same(drawn.part(slice(4)), kind.drawn(policy, 3, 4)) and list(drawn) == list(kind.null(2))
    if isinstance(kind, Classes):  # what is drawn does not make another kind of it
        assert kind_of_dict(kind_as_dict(kind)).empty == kind.empty and kind == Classes(kind.n)
    for name, value in kind.null(3).items():
        assert (np.asarray(value) == (find(kind, Classes).n if name == "label" else 0)).all()
    with pytest.raises(InputError, match="num_classes"):
        Classes(-1)
    with pytest.raises(InputError, match=r"condition\.length"):
        Text(0, 8)


def test_several_kinds_are_told_at_once():
    """The null of each; a sample of a batch is dropped as a whole, and texts keep the dtype that shards gave them."""
    null = SEVERAL.null(4)
    assert {name: tuple(value.shape) for name, value in null.items()} == {
        name: tuple(value.shape) for name, value in TOLD.items()
    }
    assert find(SEVERAL, Classes) == Classes(5) and find(SEVERAL, Text) == Text(5, 3, 7)
    assert find(Classes(5), Text) is None and SEVERAL.n_tokens == 1 + (1 + 5)
    mixed = TOLD.where(torch.tensor([True, False, True, True]), null)
    assert mixed["label"].tolist() == [0, 5, 2, 3] and not mixed["text_mask"][1].any()
    assert torch.equal(mixed["text"][2], TOLD["text"][2]) and mixed["text"].dtype == torch.float32


def test_a_network_that_is_told_nothing():
    """It has no embedding of labels, and its closed-form counts are those of its parameters and of torch's counter."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from dit.network.config import DiTConfig
    from dit.network.counting import count
    from dit.network.dit import DiT
    from dit.network.options import CONDITIONINGS

    for conditioning in CONDITIONINGS:
        config = DiTConfig(32, 3, 2, 2, conditioning=conditioning, rope=True)
        if conditioning == "adaln_zero_cross_attention":
            with pytest.raises(InputError, match=r"network\.conditioning: .*allowed: adaln_zero, where"):
                count(config, Domain(3, (8, 8)), Nothing())
            continue
        counts, network = (
            count(config, Domain(3, (8, 8)), Nothing()),
            DiT(config, Domain(3, (8, 8)), Nothing()),
        )
        assert counts.n_params_total == sum(parameter.numel() for parameter in network.parameters())
        assert "label_embedding" not in counts.n_params_by_group
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, 3, 8, 8), torch.zeros(1))
        assert counter.get_total_flops() == 2 * counts.macs_per_image
