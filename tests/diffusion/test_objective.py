import math

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dit.condition import labelled
from dit.diffusion import weights
from dit.diffusion.objective import Objective
from dit.diffusion.paths import VE, VP, Cosine, Discrete, Linear
from dit.diffusion.targets import Data, Karras, Noise, Score, Velocity, VPrediction
from dit.diffusion.times import LogNormalSigma, Uniform, stratified
from dit.diffusion.vlb import reverse_log_variance
from dit.domain import Domain
from dit.errors import InputError
from tests.diffusion.values import PATHS, TARGETS, TIMES, WEIGHTS, Stub, draw, inner_times

PLAIN = weights.Uniform()
X0, EPS, Y = draw((16, 2, 4, 4), 0), draw((16, 2, 4, 4), 1), labelled(torch.arange(16) % 3)
U = stratified(torch.rand(16, generator=torch.Generator().manual_seed(2), dtype=torch.float64))


def column(values) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1)


def sits_plan(name: str, s: torch.Tensor):
    """(alpha, sigma, alpha', sigma') in SiT's own time, in which s = 1 is data (arXiv 2401.08740)."""
    if name == "linear":
        return s, 1 - s, torch.ones_like(s), -torch.ones_like(s)
    if name == "gvp":
        return (
            torch.sin(math.pi / 2 * s),
            torch.cos(math.pi / 2 * s),
            math.pi / 2 * torch.cos(math.pi / 2 * s),
            -math.pi / 2 * torch.sin(math.pi / 2 * s),
        )
    log_alpha = -0.25 * (1 - s) ** 2 * (20 - 0.1) - 0.5 * (1 - s) * 0.1
    alpha, rate = torch.exp(log_alpha), 0.5 * (1 - s) * (20 - 0.1) + 0.5 * 0.1
    sigma = torch.sqrt(1 - alpha**2)
    return alpha, sigma, alpha * rate, -(alpha**2) * rate / sigma


@pytest.mark.parametrize("prediction", ["velocity", "noise", "score"])
@pytest.mark.parametrize(("plan", "path"), [("linear", Linear()), ("gvp", Cosine()), ("vp", VP())])
def test_sits_losses(plan, path, prediction):
    s = (torch.arange(16, dtype=torch.float64) + 0.5) / 16
    alpha, sigma, alpha_dot, sigma_dot = (column(c) for c in sits_plan(plan, s))
    network = Stub()
    x_s = alpha * X0 + sigma * EPS
    output = network(x_s, 1000 * (1 - s), Y)
    if prediction == "velocity":  # of SiT's time, which runs towards the data: the other sign
        error = -output - (alpha_dot * X0 + sigma_dot * EPS)
        target, weight = Velocity(), PLAIN
    elif prediction == "noise":
        error, target, weight = output - EPS, Noise(), PLAIN
    else:
        error, target, weight = sigma * output + EPS, Score(), weights.Uniform("noise")
    objective = Objective(path, target, Uniform(), weight)
    got = objective.process.loss_at(objective.process.denoiser(network), X0, Y, 1 - s, EPS)
    torch.testing.assert_close(got.loss, error.square().mean((1, 2, 3)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("schedule", "theirs"), [("linear", {}), ("cosine", {"beta_schedule": "squaredcos_cap_v2"})]
)
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_ddpms_loss_by_the_scheduler_of_diffusers(schedule, theirs, prediction):
    scheduler = DDPMScheduler(num_train_timesteps=1000, **theirs)
    k = torch.tensor([0, 1, 2, 17, 100, 250, 333, 499, 500, 501, 640, 777, 900, 950, 998, 999])
    targets = {"epsilon": Noise(), "sample": Data(), "v_prediction": VPrediction()}
    objective = Objective(Discrete(schedule), targets[prediction], Uniform(), PLAIN)
    network = Stub()

    def expected():
        noisy = scheduler.add_noise(X0, EPS, k)
        wanted = {"epsilon": EPS, "sample": X0, "v_prediction": scheduler.get_velocity(X0, EPS, k)}[
            prediction
        ]
        return (network(noisy, k.double(), Y) - wanted).square().mean((1, 2, 3))

    got = objective.loss(objective.process.denoiser(network), X0, Y, (k + 0.5).double() / 1000, EPS)
    torch.testing.assert_close(got.loss, expected(), rtol=1e-4, atol=1e-6)  # its own tables: float32
    abar = np.cumprod(1 - objective.path.betas.numpy())
    scheduler.alphas_cumprod = torch.from_numpy(abar)
    torch.testing.assert_close(got.loss, expected(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(got.t, k.double() / 1000)
    torch.testing.assert_close(
        got.log_snr, torch.from_numpy(np.log(abar / (1 - abar)))[k], rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_edms_loss_by_table_1(sigma_data):
    objective = Objective(VE(), Karras(sigma_data), LogNormalSigma(), weights.EDM(sigma_data))
    network = Stub()
    normal = torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), 1.0).icdf(U)
    sigma = column(torch.exp(normal * 1.2 - 1.2))
    c_skip = sigma_data**2 / (sigma**2 + sigma_data**2)
    c_out = sigma * sigma_data / torch.sqrt(sigma**2 + sigma_data**2)
    c_in = 1 / torch.sqrt(sigma**2 + sigma_data**2)
    noisy = X0 + sigma * EPS
    denoised = c_skip * noisy + c_out * network(c_in * noisy, sigma.flatten().log() / 4, Y)
    weight = (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
    expected = (weight * (denoised - X0).square()).mean((1, 2, 3))
    got = objective.loss(objective.process.denoiser(network), X0, Y, U, EPS)
    torch.testing.assert_close(got.loss, expected, rtol=1e-11, atol=1e-12)


def test_edm_on_unit_variance_is_edm_on_half_the_data():
    """Data and noise levels doubled together leave the loss as it was: the row edm_unit_variance."""

    class Blind(Stub):  # the time shown alone would differ, by ln(2)/4
        def forward(self, x, t_shown, y):
            return super().forward(x, 0 * t_shown, y)

    paper = Objective(VE(), Karras(0.5), LogNormalSigma(), weights.EDM(0.5))
    doubled = Objective(VE(0.004, 160.0), Karras(1.0), LogNormalSigma(-1.2 + math.log(2)), weights.EDM(1.0))
    network = Blind()
    half = paper.loss(paper.process.denoiser(network), X0 / 2, Y, U, EPS)
    unit = doubled.loss(doubled.process.denoiser(network), X0, Y, U, EPS)
    torch.testing.assert_close(unit.loss, half.loss, rtol=1e-10, atol=0)


class SameGuess(nn.Module):
    """One guess of x0, given as whatever F the target asks for."""

    def __init__(self, path, target, t, x_t, guess):
        super().__init__()
        eps = (x_t - column(path.alpha(t)) * guess) / column(path.sigma(t))
        self.output = target.encode(path, t, guess, eps)

    def forward(self, x, t_shown, y):
        return self.output


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
@pytest.mark.parametrize(
    "weight", [w for w in WEIGHTS.values() if w.space != "output"], ids=lambda w: repr(w)
)
def test_losses_of_one_guess_are_equal_for_every_target(path, weight):
    """Noise, data, velocity, v, score and EDM's output are one objective once weighed in one space."""
    t = inner_times(path, 16)
    x_t = column(path.alpha(t)) * X0 + column(path.sigma(t)) * EPS
    guess = X0 + 0.2 * draw(X0.shape, 9)
    losses = []
    for target in TARGETS.values():
        sigma_data = getattr(target, "sigma_data", None)
        if isinstance(weight, weights.EDM) and sigma_data not in (None, weight.sigma_data):
            continue
        objective = Objective(path, target, Uniform(), weight)
        denoiser = objective.process.denoiser(SameGuess(path, target, t, x_t, guess))
        losses.append(objective.process.loss_at(denoiser, X0, Y, t, EPS).loss)
    for other in losses[1:]:
        torch.testing.assert_close(other, losses[0], rtol=1e-10, atol=0)


def test_known_identities_of_the_literature():
    """v is SNR + 1 weighting on x0 (2202.00512); the cosine path's velocity is pi/2 of v."""
    path, t = Cosine(), inner_times(Cosine(), 16)
    snr = torch.exp(path.log_snr(t))
    x_t = column(path.alpha(t)) * X0 + column(path.sigma(t)) * EPS
    guess = X0 + 0.2 * draw(X0.shape, 9)

    def loss(target):
        objective = Objective(path, target, Uniform(), PLAIN)
        return objective.process.loss_at(
            objective.process.denoiser(SameGuess(path, target, t, x_t, guess)), X0, Y, t, EPS
        ).loss

    in_x0 = (guess - X0).square().mean((1, 2, 3))
    torch.testing.assert_close(loss(Data()), in_x0, rtol=1e-10, atol=0)
    torch.testing.assert_close(loss(Noise()), snr * in_x0, rtol=1e-10, atol=0)
    torch.testing.assert_close(loss(VPrediction()), (snr + 1) * in_x0, rtol=1e-10, atol=0)
    torch.testing.assert_close(loss(Velocity()), math.pi**2 / 4 * (snr + 1) * in_x0, rtol=1e-10, atol=0)


def learned(steps=1000):
    return Objective(Discrete("linear", steps=steps), Noise(), Uniform(), PLAIN, learned_variance=True)


def test_hybrid_loss_is_the_simple_loss_and_the_bound():
    """DiT's: squared error of the noise + L_vlb term in bits, rescaled by T/1000 (iDDPM, eq. 16)."""
    for steps in (1000, 250):
        objective, network = learned(steps), Stub(2)
        got = objective.loss(objective.process.denoiser(network), X0, Y, U, EPS)
        k = torch.floor(U * steps)
        abar = torch.cumprod(1 - objective.path.betas, 0)
        now = column(abar[k.long()])
        x_t = now.sqrt() * X0 + (1 - now).sqrt() * EPS
        noise, v = network(x_t, k, Y).chunk(2, dim=1)
        simple = (noise - EPS).square().mean((1, 2, 3))
        beta = column(objective.path.betas[k.long()])
        before = now / (1 - beta)
        tilde = beta * (1 - before) / (1 - now)
        log_variance = (v + 1) / 2 * beta.log() + (1 - v) / 2 * tilde.log()
        guess = (x_t - (1 - now).sqrt() * noise) / now.sqrt()
        shift = before.sqrt() * beta / (1 - now) * (X0 - guess)
        kl = 0.5 * (log_variance - tilde.log() - 1 + (tilde + shift**2) / log_variance.exp())
        bits = kl.mean((1, 2, 3)) / math.log(2)
        later = k > 0
        assert later.sum() >= 15
        torch.testing.assert_close(
            got.loss[later], (simple + bits * steps / 1000)[later], rtol=1e-7, atol=1e-9
        )
        torch.testing.assert_close(got.bound[later], bits[later], rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(got.mse, simple, rtol=1e-12, atol=0)


def test_the_bound_does_not_reach_the_mean():
    objective = learned()
    out = torch.cat([draw(X0.shape, 5), 0.3 * draw(X0.shape, 6)], 1).requires_grad_()

    class Given(nn.Module):
        def forward(self, x, t_shown, y):
            return out

    loss = objective.loss(objective.process.denoiser(Given()), X0, Y, U, EPS)
    (grad,) = torch.autograd.grad(loss.loss.sum(), out)
    per_sample = X0[0].numel()
    torch.testing.assert_close(
        grad[:, :2], 2 * (out[:, :2] - EPS).detach() / per_sample, rtol=1e-10, atol=1e-12
    )
    assert (grad[:, 2:].abs().flatten(1).sum(1) > 0).all()


def test_the_bound_wants_the_variance_that_the_error_has():
    """At the optimum of the variance, exp(log_variance) = posterior variance + squared error of the mean."""
    objective = learned()
    t = torch.full((16,), 0.4, dtype=torch.float64)
    fraction = torch.full(X0.shape, 0.5, dtype=torch.float64, requires_grad=True)
    posterior = objective.path.posterior(t)
    shift2 = (torch.exp(posterior.log_beta) - torch.exp(posterior.log_variance))[0] / 2
    guess = X0 + torch.sqrt(shift2) / posterior.of_x0[0]
    x_t = column(objective.path.alpha(t)) * X0 + column(objective.path.sigma(t)) * EPS
    eps = (x_t - column(objective.path.alpha(t)) * guess) / column(objective.path.sigma(t))
    optimum = torch.log(torch.exp(posterior.log_variance) + shift2)[0]
    best = (optimum - posterior.log_variance[0]) / (posterior.log_beta - posterior.log_variance)[0]

    class Given(nn.Module):
        def forward(self, x, t_shown, y):
            return torch.cat([eps, 2 * (fraction + best - 0.5) - 1], 1)

    loss = objective.process.loss_at(objective.process.denoiser(Given()), X0, Y, t, EPS)
    (grad,) = torch.autograd.grad(loss.loss.sum(), fraction)
    assert grad.abs().max() < 1e-12
    torch.testing.assert_close(
        reverse_log_variance(objective.path, t, best.expand_as(X0))[0, 0, 0, 0], optimum
    )


def test_output_channels():
    assert learned().process.out_channels(Domain(4, (1, 1))) == 8
    assert Objective(Linear(), Velocity(), Uniform(), PLAIN).process.out_channels(Domain(4, (1, 1))) == 4


def test_gradients_are_those_of_finite_differences():
    for objective in (learned(), Objective(Linear(), Velocity(), Uniform(), weights.MinSNR())):
        network = Stub(2 if objective.learned_variance else 1)
        denoiser = objective.process.denoiser(network)
        (grad,) = torch.autograd.grad(objective.loss(denoiser, X0, Y, U, EPS).mse.mean(), network.gain)
        with torch.no_grad():
            ends = []
            for sign in (1, -1):
                network.gain += sign * 1e-5
                ends.append(objective.loss(denoiser, X0, Y, U, EPS).mse.mean())
                network.gain -= sign * 1e-5
        torch.testing.assert_close(grad, (ends[0] - ends[1]) / 2e-5, rtol=1e-6, atol=1e-9)


def test_one_call_of_the_network():
    calls = []
    objective, network = learned(), Stub(2)
    network.register_forward_hook(lambda *_: calls.append(1))
    objective.loss(objective.process.denoiser(network), X0, Y, U, EPS)
    assert len(calls) == 1


@pytest.mark.parametrize(
    "objective",
    [
        Objective(Linear(), Velocity(), Uniform(), PLAIN),
        Objective(VE(), Karras(), LogNormalSigma(), weights.EDM()),
        learned(steps=123),
    ],
    ids=["rectified_flow", "edm", "ddpm_learned_variance"],
)
def test_compiled_without_a_break_it_is_the_same(objective):
    network = Stub(objective.process.out_channels(Domain(1, (1, 1)))).float()
    args = (X0.float(), Y, U.float(), EPS.float())
    denoiser = objective.process.denoiser(network)
    torch.compiler.reset()
    compiled = torch.compile(lambda *a: objective.loss(denoiser, *a).loss, backend="eager", fullgraph=True)
    first = compiled(*args)  # before any table of a discrete path is on its device
    torch.testing.assert_close(first, objective.loss(denoiser, *args).loss, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(compiled(*args), first)


@pytest.mark.parametrize("name", ["half", "float32"])
def test_precision(name):
    """Latents in bfloat16 or float32 give float32 losses, near those of float64 everywhere."""
    for path in PATHS.values():
        for target in TARGETS.values():
            objective = Objective(path, target, Uniform(), weights.Uniform("v_prediction"))
            exact = objective.loss(objective.process.denoiser(Stub()), X0, Y, U, EPS).loss
            network = Stub().float()
            dtype = torch.bfloat16 if name == "half" else torch.float32
            got = objective.loss(
                objective.process.denoiser(network), X0.to(dtype), Y, U.float(), EPS.to(dtype)
            ).loss
            assert got.dtype == torch.float32
            if name == "float32":
                torch.testing.assert_close(got.double(), exact, rtol=2e-3, atol=1e-5)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    path=st.sampled_from(list(PATHS.values())),
    target=st.sampled_from(list(TARGETS.values())),
    times=st.sampled_from(list(TIMES.values())),
    weight=st.sampled_from(list(WEIGHTS.values())),
    variance=st.booleans(),
    batch=st.integers(1, 5),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5)),
    seed=st.integers(0, 2**31),
)
def test_any_valid_combination_has_a_finite_loss(path, target, times, weight, variance, batch, shape, seed):
    variance = variance and isinstance(path, Discrete)
    edm = isinstance(weight, weights.EDM) and isinstance(target, Karras)
    if edm and weight.sigma_data != target.sigma_data:
        with pytest.raises(InputError):
            Objective(path, target, times, weight, variance)
        return
    objective = Objective(path, target, times, weight, variance)
    network = Stub(objective.process.out_channels(Domain(1, (1, 1)))).float()
    generator = torch.Generator().manual_seed(seed)
    x0, eps = (torch.randn((batch, *shape), generator=generator) for _ in range(2))
    u, y = torch.rand(batch, generator=generator), labelled(torch.zeros(batch, dtype=torch.int64))
    got = objective.loss(objective.process.denoiser(network), x0, y, u, eps)
    for values in (got.loss, got.t, got.log_snr, got.mse):
        assert values.shape == (batch,) and values.dtype == torch.float32 and torch.isfinite(values).all()
    assert (got.bound is not None) == variance
    got.loss.sum().backward()
    assert network.gain.grad is not None and torch.isfinite(network.gain.grad)


def test_combinations_that_mean_nothing_are_refused():
    with pytest.raises(InputError, match=r"objective\.learned_variance.*Linear"):
        Objective(Linear(), Velocity(), Uniform(), PLAIN, learned_variance=True)
    with pytest.raises(InputError, match=r"objective\.weight\.sigma_data.*objective\.target\.sigma_data = 1"):
        Objective(VE(), Karras(1.0), LogNormalSigma(), weights.EDM(0.5))
    with pytest.raises(InputError, match=r"objective\.learned_variance"):
        Objective(Discrete(), Noise(), Uniform(), PLAIN, learned_variance=1)
    values = {"path": Linear(), "target": Velocity(), "times": Uniform(), "weight": PLAIN}
    for name in values:
        for wrong in (None, "linear", {}):
            with pytest.raises(InputError, match=rf"objective\.{name}"):
                Objective(**{**values, name: wrong})


@pytest.mark.parametrize(
    "row", [learned(), Objective(Linear(), Velocity(), Uniform(), PLAIN)], ids=["ddpm", "flow"]
)
def test_a_validation_may_ask_for_any_noise_level(row):
    """Losses at chosen log-SNR, between the steps of a discrete path too, move smoothly with it."""
    log_snr = torch.linspace(8.0, -8.0, 16, dtype=torch.float64)
    denoiser = row.process.denoiser(Stub(row.process.out_channels(Domain(1, (1, 1)))))
    here = row.process.loss_at(denoiser, X0, Y, row.path.t_of_log_snr(log_snr), EPS)
    near = row.process.loss_at(denoiser, X0, Y, row.path.t_of_log_snr(log_snr + 1e-6), EPS)
    torch.testing.assert_close(here.log_snr, log_snr, rtol=0, atol=1e-9)
    assert torch.isfinite(here.loss).all()
    torch.testing.assert_close(near.loss, here.loss, rtol=1e-4, atol=1e-6)
