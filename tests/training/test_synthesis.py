import numpy as np
import pytest
import torch
from scipy.integrate import quad

from dit.condition import Classes, labelled
from dit.diffusion.objective import Objective
from dit.diffusion.paths import Linear
from dit.diffusion.targets import Velocity
from dit.diffusion.times import Uniform
from dit.diffusion.weights import Uniform as UniformWeight
from dit.domain import Domain
from dit.errors import InputError
from dit.network.dit import DiT
from dit.network.presets import ladder
from dit.training.averaging import Averages, Constant, Power
from dit.training.checkpoint import open_checkpoint
from dit.training.optimizers import AdamW
from dit.training.saving import CheckpointManager
from dit.training.synthesis import Snapshot, coefficients, synthesize

BATCH, STEPS, EVERY = 16, 320, 20
STORED = {"ema": Power(0.1), "ema_narrow": Power(0.05)}
TRACKED = {"in_between": Power(0.07), "wider": Power(0.15), "narrower": Power(0.04)}


def profile(snapshot, t):
    """Equation 2 of 2312.02696, normalised."""
    end, gamma = snapshot
    return np.where(t <= end, (gamma + 1) / end * (t / end) ** gamma, 0.0)


def test_coefficients_are_the_least_squares_of_the_sampled_profiles():
    """The same problem on a fine grid of times instead of by integrals; the sum is held to 1 by a heavy weight."""
    snapshots = [Snapshot(end, gamma) for end in (250, 500, 750, 1000) for gamma in (16.97, 6.94)]
    target = Snapshot(1000, 10.0)
    found, error = coefficients(snapshots, target)
    t = (np.arange(200_000) + 0.5) / 200
    columns = np.stack([profile(one, t) for one in snapshots], axis=1)
    heavy = 1e3 * np.ones((1, len(snapshots)))
    expected = np.linalg.lstsq(
        np.concatenate([columns, heavy]), np.append(profile(target, t), 1e3), rcond=None
    )[0]
    assert found == pytest.approx(expected.tolist(), abs=1e-3)
    difference = columns @ found - profile(target, t)
    assert error == pytest.approx(np.linalg.norm(difference) / np.linalg.norm(profile(target, t)), rel=1e-3)


def test_a_stored_profile_is_its_own_synthesis():
    snapshots = [Snapshot(500, 6.94), Snapshot(1000, 6.94), Snapshot(1000, 16.97)]
    found, error = coefficients(snapshots, Snapshot(1000, 16.97))
    assert found == pytest.approx([0, 0, 1], abs=1e-9) and error < 1e-7
    assert sum(coefficients(snapshots, Snapshot(1000, 12.0))[0]) == pytest.approx(1, abs=1e-12)


def test_the_profile_is_a_density_of_the_width_it_is_named_by():
    """Section 3.1: sigma_rel is the standard deviation of p over training time."""
    for sigma_rel in (0.05, 0.1, 0.2):
        p = Snapshot(1, Power(sigma_rel).gamma)
        moments = [quad(lambda t, k=k, p=p: t**k * profile(p, t), 0, 1)[0] for k in range(3)]
        assert moments[0] == pytest.approx(1)
        assert np.sqrt(moments[2] - moments[1] ** 2) == pytest.approx(sigma_rel, rel=1e-4)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small training of a real network, with its averages stored along the way: (checkpoints, network, averages)."""
    torch.set_num_threads(1)  # as the trainer does: tiny matrices, and tests beside each other
    objective = Objective(Linear(), Velocity(), Uniform(), UniformWeight())
    network = DiT(ladder(32, aspect=16, head_dim=16), Domain(1, (8, 8)), Classes(10))
    denoiser, optimizer = objective.process.denoiser(network), AdamW(lr=3e-3).build(network)
    averages = Averages(network, {**STORED, **TRACKED, "fixed": Constant(1000)})
    manager = CheckpointManager(tmp_path_factory.mktemp("run"))
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(10, 1, 8, 8, generator=generator)  # one picture per class, and noise
    for step in range(1, STEPS + 1):
        y = labelled(torch.randint(0, 10, (BATCH,), generator=generator))
        x0 = basis[y["label"]] + 0.3 * torch.randn(BATCH, 1, 8, 8, generator=generator)
        u, eps = torch.rand(BATCH, generator=generator), torch.randn(x0.shape, generator=generator)
        objective.loss(denoiser, x0, y, u, eps).loss.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        averages.update(step, BATCH)
        if step % EVERY == 0:
            tensors = {
                f"average/{name}/{key}": value
                for name in STORED
                for key, value in averages.shadows[name].items()
            }
            manager.save(tensors, step * BATCH, {"step": step}, keep=True)
    manager.wait()
    return [open_checkpoint(directory) for directory in manager.directories()], network, averages


def distance(one, other):
    difference = sum((one[name].double() - other[name].double()).square().sum() for name in one)
    return float((difference / sum(value.double().square().sum() for value in other.values())).sqrt())


@pytest.mark.parametrize("name", list(TRACKED))
def test_synthesis_reproduces_a_profile_that_was_tracked(run, name):
    """Within 1 % of the weights, and within a tenth of what tells that average from the stored one nearest to it."""
    checkpoints, network, averages = run
    parameters = [key for key, _ in network.named_parameters()]
    found = synthesize(checkpoints, STORED, parameters, TRACKED[name].sigma_rel, STEPS * BATCH)
    tracked = averages.shadows[name]
    nearest = min(distance(averages.shadows[stored], tracked) for stored in STORED)
    assert nearest > 0.005  # else the test would tell nothing
    assert distance(found.tensors, tracked) < min(0.01, 0.1 * nearest)
    assert found.tensors.keys() == tracked.keys() and found.error < 0.05


def test_an_earlier_clock_is_made_from_the_snapshots_up_to_it_alone(run):
    checkpoints, network, _ = run
    parameters = [key for key, _ in network.named_parameters()]
    half = [checkpoint for checkpoint in checkpoints if checkpoint.images_seen <= STEPS * BATCH // 2]
    found = synthesize(checkpoints, STORED, parameters, 0.07, STEPS * BATCH // 2)
    expected = synthesize(half, STORED, parameters, 0.07, STEPS * BATCH // 2)
    assert all(torch.equal(found.tensors[name], expected.tensors[name]) for name in parameters)


def test_what_cannot_be_made_is_refused(run):
    checkpoints, network, _ = run
    parameters = [key for key, _ in network.named_parameters()]
    with pytest.raises(InputError, match="sigma_rel"):
        synthesize(checkpoints, STORED, parameters, 0.5, STEPS * BATCH)
    with pytest.raises(InputError, match="miss it by"):
        synthesize(checkpoints[-1:], {"ema": Power(0.1)}, parameters, 0.02, STEPS * BATCH)
    with pytest.raises(InputError, match="averages"):
        synthesize(checkpoints, {"fixed": Constant(1000)}, parameters, 0.1, STEPS * BATCH)
