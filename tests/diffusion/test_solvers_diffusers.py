"""Solvers against the schedulers of diffusers, with one network, in float64."""

import diffusers
import pytest
import torch

from dit.condition import labelled
from dit.diffusion import solvers
from dit.diffusion.denoiser import Denoiser
from dit.diffusion.paths import VE, Discrete, Linear
from dit.diffusion.targets import Karras, Noise, Velocity
from tests.diffusion.values import PATHS, Noises, Stub, draw

SHAPE = (3, 2, 4, 4)
LABELS = labelled(torch.tensor([0, 4, 7]))


def beta_scheduler(kind: type, path: Discrete, **options):
    """A scheduler of diffusers, its float32 table replaced by the path's (tested in test_paths)."""
    name = {"cosine": "squaredcos_cap_v2"}.get(path.schedule, path.schedule)
    scheduler = kind(num_train_timesteps=path.steps, beta_schedule=name, **options)
    k = torch.arange(path.steps, dtype=torch.float64)
    scheduler.alphas_cumprod = path.alpha(k / path.steps) ** 2
    scheduler.betas = path.betas
    scheduler.alphas = 1 - path.betas
    for name in ("one", "final_alpha_cumprod"):
        if hasattr(scheduler, name):
            setattr(scheduler, name, torch.tensor(1.0, dtype=torch.float64))
    return scheduler


def run_beta_scheduler(scheduler, network, x, **options):
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t.double().expand(len(x)), LABELS), t, x, **options).prev_sample
    return x


def grid_of(scheduler) -> torch.Tensor:
    return torch.cat([scheduler.timesteps.double(), torch.tensor([-1.0], dtype=torch.float64)]) / 1000


DDPM_PATHS = {name: PATHS[f"ddpm_{name}"] for name in ("linear", "scaled_linear", "cosine")}


@pytest.mark.parametrize("path", DDPM_PATHS.values(), ids=DDPM_PATHS.keys())
@pytest.mark.parametrize(("ours", "theirs"), [("posterior", "fixed_small"), ("beta", "fixed_large")])
@pytest.mark.parametrize("steps", [50, 200])
def test_ddpm_equals_diffusers(path, ours, theirs, steps, monkeypatch):
    reference = Noises(SHAPE, steps)
    monkeypatch.setattr(diffusers.schedulers.scheduling_ddpm, "randn_tensor", reference)
    scheduler = beta_scheduler(diffusers.DDPMScheduler, path, variance_type=theirs, clip_sample=False)
    scheduler.set_timesteps(steps)
    network, x = Stub(), draw(SHAPE, 1)
    with torch.no_grad():
        expected = run_beta_scheduler(scheduler, network, x)
        denoiser = Denoiser(network, path, Noise())
        noise = Noises(SHAPE, steps)
        got = solvers.ddpm(denoiser, x, grid_of(scheduler), LABELS, noise=noise, variance=ours)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    assert noise.used == reference.used == steps - 1


def test_ddpm_with_a_learned_variance_equals_diffusers(monkeypatch):
    path = DDPM_PATHS["linear"]
    monkeypatch.setattr(diffusers.schedulers.scheduling_ddpm, "randn_tensor", Noises(SHAPE))
    scheduler = beta_scheduler(
        diffusers.DDPMScheduler,
        path,
        variance_type="learned_range",
        clip_sample=False,
        timestep_spacing="leading",
    )
    scheduler.set_timesteps(100)
    network, x = Stub(channels_factor=2), draw(SHAPE, 1)
    with torch.no_grad():
        expected = run_beta_scheduler(scheduler, network, x)
        denoiser = Denoiser(network, path, Noise(), learned_variance=True)
        got = solvers.ddpm(denoiser, x, grid_of(scheduler), LABELS, noise=Noises(SHAPE))
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("path", DDPM_PATHS.values(), ids=DDPM_PATHS.keys())
@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_ddim_equals_diffusers(path, eta, spacing):
    scheduler = beta_scheduler(
        diffusers.DDIMScheduler, path, clip_sample=False, set_alpha_to_one=True, timestep_spacing=spacing
    )
    scheduler.set_timesteps(50)
    network, x, noise = Stub(), draw(SHAPE, 1), Noises(SHAPE)
    with torch.no_grad():
        expected = x
        for t in scheduler.timesteps:
            output = network(expected, t.double().expand(3), LABELS)
            expected = scheduler.step(output, t, expected, eta=eta, variance_noise=noise()).prev_sample
        denoiser = Denoiser(network, path, Noise())
        got = solvers.ddim(denoiser, x, grid_of(scheduler), LABELS, noise=Noises(SHAPE), eta=eta)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("path", DDPM_PATHS.values(), ids=DDPM_PATHS.keys())
@pytest.mark.parametrize("steps", [10, 25])
def test_dpmpp_2m_equals_diffusers(path, steps):
    scheduler = beta_scheduler(
        diffusers.DPMSolverMultistepScheduler,
        path,
        algorithm_type="dpmsolver++",
        solver_order=2,
        timestep_spacing="leading",
        final_sigmas_type="zero",
    )
    scheduler.set_timesteps(steps)
    network, x = Stub(), draw(SHAPE, 1)
    with torch.no_grad():
        expected = run_beta_scheduler(scheduler, network, x)
        got = solvers.dpmpp_2m(Denoiser(network, path, Noise()), x, grid_of(scheduler), LABELS)
    # the scheduler keeps its sigmas in float32
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize(
    ("kind", "solver"),
    [
        (diffusers.FlowMatchEulerDiscreteScheduler, solvers.euler),
        (diffusers.FlowMatchHeunDiscreteScheduler, solvers.heun),
    ],
)
def test_flow_matching_equals_diffusers(kind, solver, shift):
    scheduler = kind(shift=shift)
    scheduler.set_timesteps(25)
    network, x = Stub(), draw(SHAPE, 1)
    with torch.no_grad():
        expected = x
        for t in scheduler.timesteps:
            expected = scheduler.step(
                network(expected, t.double().expand(3), LABELS), t, expected
            ).prev_sample
        ts = torch.unique_consecutive(scheduler.sigmas.double())
        got = solver(Denoiser(network, Linear(), Velocity()), x, ts, LABELS)
    assert len(ts) == 26 and float(ts[0]) == 1.0  # from pure noise, above t_max of the path
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_edm_euler_equals_diffusers():
    scheduler = diffusers.EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5, rho=7.0)
    scheduler.set_timesteps(18)
    network, x = Stub(), 80 * draw(SHAPE, 1)
    with torch.no_grad():
        expected = x
        for t in scheduler.timesteps:
            scaled = scheduler.scale_model_input(expected, t)
            expected = scheduler.step(network(scaled, t.double().expand(3), LABELS), t, expected).prev_sample
        got = solvers.euler(Denoiser(network, VE(), Karras()), x, scheduler.sigmas.double(), LABELS)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
