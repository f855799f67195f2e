import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.flop_counter import FlopCounterMode

from dit.condition import Classes
from dit.domain import Domain
from dit.errors import InputError
from dit.network.dit import DiT
from dit.network.presets import ladder
from dit.training.muon import orthogonalize
from dit.training.optimizers import AdamW, Muon
from dit.training.saving import CheckpointManager
from tests.training import ranks


def network(**options):
    return DiT(ladder(32, aspect=16, head_dim=16, **options), Domain(3, (8, 8)), Classes(10))


def set_gradients(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        gradient = torch.randn(parameter.shape, generator=generator)
        if isinstance(parameter, DTensor):
            gradient = torch.distributed.tensor.distribute_tensor(
                gradient, parameter.device_mesh, parameter.placements
            )
        parameter.grad = gradient


def polar(matrix):
    """What five quintic iterations make of a matrix: they act on its singular values alone (Jordan et al. 2024)."""
    u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / s.norm()
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u @ torch.diag(s) @ vh


@pytest.mark.parametrize("shape", [(24, 24), (48, 16), (16, 48)])
def test_iterations_act_on_the_singular_values_alone(shape):
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalize(matrices)
    for one, matrix in zip(found, matrices, strict=True):
        assert torch.allclose(one.double(), polar(matrix), atol=1e-4)


def test_the_result_is_nearly_orthogonal_and_zero_stays_zero():
    wide = torch.randn(2, 16, 64, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(wide))
    assert values.min() > 0.6 and values.max() < 1.3
    assert not orthogonalize(torch.zeros(1, 4, 4)).any()


def test_a_rotation_of_the_gradient_rotates_the_update():
    """The property that makes it no coordinate-wise method: NS(Q G) = Q NS(G) for orthogonal Q."""
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(1, 12, 20, generator=generator).double()
    rotation = torch.linalg.qr(torch.randn(12, 12, generator=generator).double()).Q
    assert torch.allclose(orthogonalize(rotation @ gradient), rotation @ orthogonalize(gradient), atol=1e-10)


def test_three_steps_are_those_of_the_papers():
    """Momentum and Nesterov's form of Jordan et al.; equation 4 of 2502.16982 with decoupled weight decay."""
    lr, decay, beta = 0.01, 0.1, 0.95
    model = network()
    weight = model.blocks[0].attn.qkv.weight  # three maps of 32 x 32
    expected, buffer = weight.detach().double().clone(), torch.zeros(96, 32, dtype=torch.float64)
    optimizer = Muon(lr=lr, weight_decay=decay).build(model)
    for step in range(3):
        set_gradients(model, step)
        gradient = weight.grad.double()
        buffer = beta * buffer + gradient
        direction = torch.cat([polar(part) for part in (gradient + beta * buffer).chunk(3)])
        expected = expected * (1 - lr * decay) - lr * 0.2 * 32**0.5 * direction
        optimizer.step()
        assert torch.allclose(weight.double(), expected, atol=1e-5), step


def test_the_update_is_torchs_for_a_single_map():
    """torch.optim.Muon computes in bfloat16: agreement to that."""
    model = network()
    weight = model.blocks[1].mlp.fc1.weight
    copy = torch.nn.Parameter(weight.detach().clone())
    reference = torch.optim.Muon([copy], lr=0.05, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    optimizer = Muon(lr=0.05, weight_decay=0.1).build(model)
    before = weight.detach().clone()
    for step in range(3):
        set_gradients(model, step)
        copy.grad = weight.grad.clone()
        optimizer.step()
        reference.step()
    assert (weight - copy).norm() < 0.02 * (weight - before).norm()


def test_updates_have_the_size_of_adamws():
    model = network()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    set_gradients(model, 0)
    Muon(lr=1.0).build(model).step()
    for name, p in model.named_parameters():
        if model.config.hidden_maps(name):
            assert 0.15 < (p - before[name]).square().mean().sqrt() < 0.25, name


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest():
    model, other = network(mlp="swiglu"), network(mlp="swiglu")
    optimizer, reference = Muon(lr=0.01).build(model), AdamW(lr=0.01).build(other)
    assert sorted(id(p) for g in optimizer.param_groups for p in g["params"]) == sorted(
        map(id, model.parameters())
    )
    assert all(group["lr_multiplier"] == 1 for group in optimizer.param_groups)
    for step in range(2):
        set_gradients(model, step)
        set_gradients(other, step)
        optimizer.step()
        reference.step()
    for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        is_hidden = name.startswith("blocks.") and p.ndim == 2
        assert torch.equal(p, q) != is_hidden, name
        assert ("momentum" in optimizer.state[p]) == is_hidden
    assert model.config.hidden_maps("blocks.0.mlp.fc1.weight") == 2
    assert model.config.hidden_maps("blocks.0.modulation.weight") == 6


def test_a_restored_state_continues_bit_for_bit():
    """As the module restores it: tensors by parameter, into an optimizer that has made no step."""
    model, other = network(), network()
    optimizer = Muon(lr=0.01).build(model)
    set_gradients(model, 0)
    optimizer.step()
    resumed = Muon(lr=0.01).build(other)
    other.load_state_dict(model.state_dict())
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        resumed.state[q] = {key: value.clone() for key, value in optimizer.state[p].items()}
    for one, which in ((model, optimizer), (other, resumed)):
        set_gradients(one, 1)
        which.step()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))


def test_mup_is_refused():
    with pytest.raises(InputError, match="optimizer"):
        Muon(lr=0.01).build(network(parametrization="mup"))
    with pytest.raises(InputError, match=r"optimizer\.momentum"):
        Muon(lr=0.01, momentum=1.0)


def sharded(rank: int, shape: tuple[int, ...], folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/init", rank=rank, world_size=math.prod(shape)
    )
    model = network()
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=("replicate", "shard")[-len(shape) :])
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    torch.save(after_steps(model), Path(folder, f"{rank}.pt"))
    dist.destroy_process_group()


def after_steps(model):
    """The weights after three steps, and the FLOPs of these."""
    optimizer = Muon(lr=0.01, weight_decay=0.1).build(model)
    with FlopCounterMode(display=False) as counter:
        for step in range(3):
            set_gradients(model, step)
            optimizer.step()
    return {
        name: (p.full_tensor() if isinstance(p, DTensor) else p).detach()
        for name, p in model.named_parameters()
    }, counter.get_total_flops()


@pytest.mark.parametrize("shape", [(3,), (2, 2)])
def test_ranks_share_the_work_and_move_as_one_process_does(tmp_path, shape):
    """Muon's matrices to the same bits; three ranks cut few of them evenly. Each copy of a 2 x 2 mesh does it all."""
    torch.multiprocessing.spawn(sharded, args=(shape, str(tmp_path)), nprocs=math.prod(shape))
    expected, all_work = after_steps(network())
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(math.prod(shape))]
    for name, value in expected.items():
        tolerance = 0 if name.startswith("blocks.") and value.ndim == 2 else 1e-6
        assert all(torch.allclose(weights[name], value, rtol=0, atol=tolerance) for weights, _ in found), name
    work = [flops / all_work for _, flops in found]
    assert sum(work) == pytest.approx(math.prod(shape[:-1])) and max(work) < 1.3 / shape[-1]


def test_a_run_goes_on_bit_for_bit_and_on_other_processes(tmp_path, tiny_latents):
    """Through checkpoints of the trainer: 192 images, then 192 more, are 384; two processes agree to rounding."""
    more = ["optimizer=muon", "averages=post_hoc", "schedule=constant", "log_every_images=32"]

    def run(name, images, world=1):
        command = ranks.command(tiny_latents, name, *more, f"duration.images={images}")
        ranks.run(command, tmp_path, world)

    run("whole", 384)
    run("parts", 192)
    run("parts", 384)
    run("spread", 192, world=2)
    run("spread", 384)
    whole, parts, spread = (newest(tmp_path / name) for name in ("whole", "parts", "spread"))
    assert whole.keys() == parts.keys() == spread.keys()
    assert any(name.endswith("/momentum") for name in whole)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    for name, value in whole.items():
        if name.startswith("network/"):
            assert torch.allclose(spread[name], value, atol=1e-4), name


def newest(run):
    checkpoint = CheckpointManager(run / "checkpoints").latest()
    assert checkpoint is not None and checkpoint.images_seen == 384
    return checkpoint.read()
