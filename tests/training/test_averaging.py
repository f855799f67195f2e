from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from dit.condition import Classes, labelled
from dit.domain import Domain
from dit.errors import InputError
from dit.network.dit import DiT
from dit.network.presets import ladder
from dit.training.averaging import Averages, Constant, Power


def follow(profile, values, batch_size=1):
    network = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(network.weight)
    averages = Averages(network, {"ema": profile})
    for step, value in enumerate(values, start=1):
        nn.init.constant_(network.weight, value)
        averages.update(step, batch_size)
    return averages.shadows["ema"]["weight"].item()


def test_power_average_has_the_width_it_is_named_by():
    # EDM2 (2312.02696), section 3.1: sigma_rel .05 and .10 are gamma 16.97 and 6.94
    assert Power(0.05).gamma == pytest.approx(16.97, abs=0.01)
    assert Power(0.10).gamma == pytest.approx(6.94, abs=0.01)


def test_power_average_weighs_the_past_by_a_power_of_time():
    # the continuous profile is t^gamma: its mean over theta(t) = t is (gamma + 1) / (gamma + 2) of the end
    steps, gamma = 4000, Power(0.1).gamma
    found = follow(Power(0.1), torch.arange(1.0, steps + 1).tolist())
    assert found / steps == pytest.approx((gamma + 1) / (gamma + 2), rel=1e-3)


def test_constant_average_forgets_half_in_its_half_life():
    found = follow(Constant(half_life_images=640), [1.0] + [0.0] * 10, batch_size=64)
    first = 1 - 0.5**0.1
    assert found == pytest.approx(first * 0.5, rel=1e-6)


def test_applied_puts_the_weights_back_even_after_an_error():
    network = nn.Linear(2, 2)
    averages = Averages(network, {"ema": Power(0.1)})
    nn.init.zeros_(network.weight)
    with pytest.raises(RuntimeError), averages.applied("ema"):
        assert network.weight.abs().sum() > 0
        raise RuntimeError
    assert network.weight.abs().sum() == 0


@pytest.mark.parametrize("bad", [0, 0.5, float("nan"), "wide"])
def test_a_width_that_no_power_has_is_refused(bad):
    with pytest.raises(InputError, match=r"averages\.sigma_rel"):
        Power(bad)


def test_raw_is_not_the_name_of_an_average():
    with pytest.raises(InputError, match="raw"):
        Averages(nn.Linear(1, 1), {"raw": Power(0.1)})


def trained(network, averages, share):
    """Averages after five steps of gradient descent, whole; each process takes its share of the batch."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 6):
        x, t = torch.randn(4, 3, 8, 8, generator=generator), 1000 * torch.rand(4, generator=generator)
        y = labelled(torch.randint(0, 10, (4,), generator=generator))
        network(x[share], t[share], y.part(share)).sub(x[share]).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        averages.update(step, 4)
    return {
        (profile, name): value.full_tensor() if isinstance(value, DTensor) else value
        for profile, shadow in averages.shadows.items()
        for name, value in shadow.items()
    }


PROFILES = {"narrow": Power(0.05), "wide": Power(0.1), "fixed": Constant(20)}


def sharded(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=world)
    network = DiT(ladder(32, aspect=16, head_dim=16), Domain(3, (8, 8)), Classes(10))
    mesh = init_device_mesh("cpu", (world,))
    for block in network.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)
    found = trained(network, Averages(network, PROFILES), slice(2 * rank, 2 * rank + 2))
    if rank == 0:
        torch.save(found, Path(folder, "found.pt"))
    dist.destroy_process_group()


def test_averages_of_two_processes_are_those_of_one(tmp_path):
    torch.multiprocessing.spawn(sharded, args=(2, str(tmp_path)), nprocs=2)
    found = torch.load(tmp_path / "found.pt")
    network = DiT(ladder(32, aspect=16, head_dim=16), Domain(3, (8, 8)), Classes(10))
    expected = trained(network, Averages(network, PROFILES), slice(None))
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.allclose(found[key], value, rtol=0, atol=1e-6), key
