import copy
import math
import pickle

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from scipy.integrate import quad

from dit.diffusion.paths import VE, VP, Cosine, Discrete, Linear
from dit.errors import InputError
from tests.diffusion.values import PATHS, inner_times

every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
DIFFUSERS = {
    "linear": {"beta_schedule": "linear"},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "sigmoid": {"beta_schedule": "sigmoid"},
}


def abar_of_float64_betas(schedule: str) -> np.ndarray:
    """Written from the papers, in NumPy."""
    k = np.arange(1000)
    if schedule == "cosine":
        level = lambda u: np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2  # noqa: E731
        betas = np.minimum(1 - level((k + 1) / 1000) / level(k / 1000), 0.999)
    elif schedule == "linear":
        betas = 1e-4 + (0.02 - 1e-4) * k / 999
    elif schedule == "scaled_linear":
        betas = (0.00085**0.5 + (0.012**0.5 - 0.00085**0.5) * k / 999) ** 2
    else:
        betas = 1e-4 + (0.02 - 1e-4) / (1 + np.exp(6 - 12 * k / 999))
    return np.cumprod(1 - betas)


@every_path
def test_derivatives_are_those_of_autograd_and_of_finite_differences(path):
    t = inner_times(path).requires_grad_()
    for value, dot in (
        (path.alpha, path.alpha_dot),
        (path.sigma, path.sigma_dot),
        (path.log_snr, path.log_snr_dot),
    ):
        (grad,) = torch.autograd.grad(value(t).sum() + 0 * t.sum(), t)
        torch.testing.assert_close(dot(t.detach()), grad, rtol=1e-9, atol=1e-12)
        h = 1e-6 * t.detach().clamp(min=1e-3)
        difference = (value(t.detach() + h) - value(t.detach() - h)) / (2 * h)
        torch.testing.assert_close(dot(t.detach()), difference, rtol=1e-5, atol=1e-6)


@every_path
def test_log_snr_is_the_ratio_and_falls_with_t(path):
    t = torch.linspace(path.t_min, path.t_max, 400, dtype=torch.float64)
    torch.testing.assert_close(
        path.log_snr(t), 2 * torch.log(path.alpha(t) / path.sigma(t)), rtol=1e-9, atol=1e-9
    )
    assert (path.log_snr(t).diff() < 0).all()


@every_path
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_t_of_log_snr_inverts_log_snr_everywhere(path, dtype, tolerance):
    t = torch.linspace(path.t_min, path.t_max, 1001, dtype=dtype)
    torch.testing.assert_close(path.t_of_log_snr(path.log_snr(t)), t, rtol=tolerance, atol=tolerance)


@every_path
def test_t_of_log_snr_stays_on_the_path(path):
    far = torch.tensor([math.inf, 200.0, 60.0, -60.0, -200.0, -math.inf], dtype=torch.float64)
    t = path.t_of_log_snr(far)
    expected = torch.tensor([path.t_min] * 3 + [path.t_max] * 3, dtype=torch.float64)
    torch.testing.assert_close(t, expected, rtol=1e-12, atol=1e-15)


@every_path
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_ends_are_finite(path, dtype):
    t = torch.tensor([path.t_min, path.t_max], dtype=dtype)
    for value in (path.alpha, path.sigma, path.alpha_dot, path.sigma_dot, path.log_snr, path.log_snr_dot):
        assert value(t).dtype == dtype
        assert torch.isfinite(value(t)).all()
    assert (path.alpha(t) > 0).all() and (path.sigma(t) > 0).all()
    assert torch.isfinite(path.time_shown(t)).all()
    exact = path.log_snr(torch.tensor([path.t_min, path.t_max], dtype=torch.float64))
    torch.testing.assert_close(path.log_snr(t).double(), exact, rtol=2e-4, atol=0)


@every_path
def test_half_precision_is_raised(path):
    t = path.from_unit(torch.tensor([0.25, 0.5, 0.75]))
    half = t.to(torch.bfloat16)
    assert path.alpha(half).dtype == path.log_snr(half).dtype == path.time_shown(half).dtype == torch.float32
    torch.testing.assert_close(path.alpha(half), path.alpha(half.float()), rtol=0, atol=0)


@pytest.mark.parametrize("t", [1e-3, 0.1, 0.5, 1.0])
def test_vp_alpha_is_the_integral_of_the_rate(t):
    path = VP(0.1, 20.0)
    integral, _ = quad(lambda s: 0.1 + s * 19.9, 0, t)
    assert path.alpha(torch.tensor(t, dtype=torch.float64)).item() == pytest.approx(
        math.exp(-integral / 2), rel=1e-12
    )


@pytest.mark.parametrize("path", [Cosine(), VP(), *(Discrete(s) for s in DIFFUSERS)])
def test_variance_is_preserved(path):
    t = inner_times(path)
    torch.testing.assert_close(
        path.alpha(t) ** 2 + path.sigma(t) ** 2, torch.ones_like(t), rtol=0, atol=1e-14
    )


def test_time_shown_is_the_step_of_ddpm_or_edms_noise_label():
    t = torch.tensor([0.25], dtype=torch.float64)
    assert Linear().time_shown(t).item() == Cosine().time_shown(t).item() == VP().time_shown(t).item() == 250
    assert VE().time_shown(t).item() == pytest.approx(math.log(0.25) / 4, rel=1e-15)
    assert Discrete().time_shown(t).item() == 250
    assert Discrete().time_shown(t + 0.0005).item() == pytest.approx(250.5)


@pytest.mark.parametrize("steps", [2, 50, 333, 999, 1000, 4000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_step_is_met_exactly(steps, dtype):
    path = Discrete("cosine", steps=steps)
    k = torch.arange(steps, dtype=dtype)
    assert torch.equal(path.time_shown(k / steps), k)
    assert torch.equal(path.nearest(k / steps), k / steps)
    assert torch.equal(path.from_unit((k + 0.5) / steps), k / steps)


@pytest.mark.parametrize("schedule", DIFFUSERS)
def test_tables_are_those_of_the_papers_and_of_diffusers(schedule):
    path = Discrete(schedule)
    t = torch.arange(1000, dtype=torch.float64) / 1000
    torch.testing.assert_close(
        path.alpha(t), torch.from_numpy(np.sqrt(abar_of_float64_betas(schedule))), rtol=1e-12, atol=1e-15
    )
    scheduler = DDPMScheduler(num_train_timesteps=1000, **DIFFUSERS[schedule])
    torch.testing.assert_close(
        path.betas.float(), scheduler.betas, rtol=1e-4, atol=1e-7
    )  # theirs are float32
    torch.testing.assert_close(path.alpha(t).float() ** 2, scheduler.alphas_cumprod, rtol=1e-4, atol=1e-7)


def test_fewer_steps_keep_the_ends_of_the_path():
    many, few = Discrete("linear", steps=1000), Discrete("linear", steps=250)
    last_many, last_few = (p.log_snr(torch.tensor([p.t_max], dtype=torch.float64)) for p in (many, few))
    torch.testing.assert_close(last_few, last_many, rtol=0.03, atol=0)
    assert few.betas[0].item() == pytest.approx(4e-4) and few.betas[-1].item() == pytest.approx(0.08)


@pytest.mark.parametrize("steps", [50, 250, 4000])
def test_betas_of_other_numbers_of_steps_are_those_of_1000_times_1000_over_t(steps):
    """2102.09672's code, for which 4,000 steps of the linear schedule go from 2.5e-5 to 0.005."""
    low, high = 0.1 / steps, 20 / steps
    curve = 1 / (1 + np.exp(-np.linspace(-6, 6, steps)))
    expected = {
        "linear": np.linspace(low, high, steps),
        "scaled_linear": np.linspace(0.00085**0.5, 0.012**0.5, steps) ** 2 * 1000 / steps,  # 2112.10752
        "sigmoid": low + (high - low) * curve,  # 2203.02923
    }
    for schedule, betas in expected.items():
        np.testing.assert_allclose(Discrete(schedule, steps=steps).betas.numpy(), betas, rtol=1e-12)
    f = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2  # 2102.09672, equation 17
    cosine = np.minimum(1 - f[1:] / f[:-1], 0.999)
    np.testing.assert_allclose(Discrete("cosine", steps=steps).betas.numpy(), cosine, rtol=1e-9)


def test_a_rescaled_beta_stays_below_one():
    assert Discrete(beta_max=0.9995).betas[-1].item() == pytest.approx(0.9995)
    assert Discrete(steps=21).betas[-1].item() == pytest.approx(20 / 21)
    with pytest.raises(InputError, match=r"objective.path.steps: got 20; allowed: more than 20 "):
        Discrete(steps=20)


@pytest.mark.parametrize("schedule", DIFFUSERS)
def test_posterior_is_bayes_rule(schedule):
    # The product of x_{k-1} ~ N(sqrt(abar') x0, 1 - abar') and x_k ~ N(sqrt(1 - beta) x_{k-1}, beta).
    abar = abar_of_float64_betas(schedule)
    before, after = abar[:-1], abar[1:]
    beta = 1 - after / before
    precision = 1 / (1 - before) + (1 - beta) / beta
    posterior = Discrete(schedule).posterior(torch.arange(1000, dtype=torch.float64) / 1000)
    rows = ((posterior.of_x0, np.sqrt(before) / (1 - before) / precision),
            (posterior.of_x_t, np.sqrt(1 - beta) / beta / precision),
            (torch.exp(posterior.log_variance), 1 / precision),
            (torch.exp(posterior.log_beta), beta))  # fmt: skip
    for ours, theirs in rows:
        np.testing.assert_allclose(ours[1:].numpy(), theirs, rtol=1e-9)
    assert posterior.of_x0[0].item() == pytest.approx(1) and posterior.of_x_t[0].item() == 0
    assert posterior.log_variance[0] == posterior.log_variance[1]


def test_a_table_made_in_inference_mode_serves_training():
    path = Discrete("linear", steps=77)
    with torch.inference_mode():
        path.alpha(torch.tensor([0.5]))
    gain = torch.ones(1, requires_grad=True)
    (path.alpha(torch.tensor([0.5])) * gain).sum().backward()
    assert gain.grad is not None


def test_discrete_is_a_value():
    path = Discrete("cosine", steps=100)
    path.alpha(torch.tensor([0.5]))
    assert path == Discrete("cosine", steps=100) and hash(path) == hash(Discrete("cosine", steps=100))
    for other in (copy.deepcopy(path), pickle.loads(pickle.dumps(path))):
        assert other == path
        assert torch.equal(other.log_snr(torch.tensor([0.5])), path.log_snr(torch.tensor([0.5])))


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Linear(t_min=math.nan), "objective.path.t_min"),
        (lambda: Linear(t_min=0), "objective.path.t_min"),
        (lambda: Linear(t_max=1), "objective.path.t_max"),
        (lambda: Cosine(t_min=0.6, t_max=0.5), "objective.path.t_min"),
        (lambda: Cosine(t_max="0.9"), "objective.path.t_max"),
        (lambda: VP(beta_min=-0.1), "objective.path.beta_min"),
        (lambda: VP(beta_min=0.1, beta_max=0.05), "objective.path.beta_max"),
        (lambda: VP(t_min=True), "objective.path.t_min"),
        (lambda: VE(t_min=-1.0), "objective.path.t_min"),
        (lambda: VE(t_max=math.inf), "objective.path.t_max"),
        (lambda: Discrete("quadratic"), "objective.path.schedule"),
        (lambda: Discrete(steps=1), "objective.path.steps"),
        (lambda: Discrete(steps=10.0), "objective.path.steps"),
        (lambda: Discrete(steps=20), "objective.path.steps"),
        (lambda: Discrete(beta_min=0), "objective.path.beta_min"),
        (lambda: Discrete(beta_min=0.1, beta_max=0.01), "objective.path.beta_max"),
        (lambda: Discrete("cosine", beta_max=0.02), "objective.path.beta_max"),
    ],
)
def test_wrong_numbers_are_refused(make, key):
    with pytest.raises(InputError) as error:
        make()
    assert error.value.key == key
