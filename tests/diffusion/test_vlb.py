import math

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from scipy import stats
from torch.distributions import Normal, kl_divergence

from dit.condition import labelled
from dit.diffusion.denoiser import Denoiser
from dit.diffusion.paths import Discrete, Linear
from dit.diffusion.targets import Data, Noise
from dit.diffusion.vlb import prior_bits, reverse_log_variance, step_bits, variational_bound
from dit.errors import InputError
from tests.diffusion.values import Stub, draw

PATHS = {"linear": Discrete("linear"), "cosine": Discrete("cosine"), "50 steps": Discrete("linear", steps=50)}
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())


def column(values) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1)


def batch(path, k):
    """(t, x0, x_t, a wrong guess of x0) at steps k, x0 on the grid of 8-bit values."""
    t = torch.as_tensor(k, dtype=torch.float64) / path.steps
    x0 = (draw((len(k), 2, 3, 3), 0).clamp(-1.0, 1.0) * 127.5).round() / 127.5
    x_t = column(path.alpha(t)) * x0 + column(path.sigma(t)) * draw(x0.shape, 1)
    return t, x0, x_t, x0 + 0.1 * draw(x0.shape, 2)


@every_path
def test_terms_are_divergences_between_normal_distributions(path):
    k = np.unique(np.linspace(1, path.steps - 1, 13).astype(int))
    t, x0, x_t, guess = batch(path, k)
    abar = np.cumprod(1 - path.betas.numpy())
    beta, before, after = path.betas.numpy()[k], abar[k - 1], abar[k]

    def mean(data):  # DDPM, eq. 7
        return (
            column(np.sqrt(before) * beta / (1 - after)) * data
            + column(np.sqrt(1 - beta) * (1 - before) / (1 - after)) * x_t
        )

    tilde = beta * (1 - before) / (1 - after)
    fraction = (
        torch.rand(x0.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 1.4 - 0.2
    )
    variance = torch.exp(
        fraction * column(np.log(beta)) + (1 - fraction) * column(np.log(tilde))
    )  # iDDPM, eq. 15
    q = Normal(mean(x0), column(tilde).sqrt().expand_as(x0))
    expected = kl_divergence(q, Normal(mean(guess), variance.sqrt())).mean((1, 2, 3)) / math.log(2)
    got = step_bits(path, t, x0, x_t, guess, reverse_log_variance(path, t, fraction))
    torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-12)


@every_path
def test_with_the_posteriors_variance_a_term_is_the_fall_of_the_snr(path):
    # arXiv 2107.00630, eq. 13: (SNR(k-1) - SNR(k))/2 |x0 - x0_hat|^2.
    k = np.unique(np.linspace(1, path.steps - 1, 29).astype(int))
    t, x0, x_t, guess = batch(path, k)
    abar = np.cumprod(1 - path.betas.numpy())
    snr = abar / (1 - abar)
    fall = torch.from_numpy(snr[k - 1] - snr[k])
    expected = fall / 2 * (x0 - guess).square().mean((1, 2, 3)) / math.log(2)
    got = step_bits(path, t, x0, x_t, guess, reverse_log_variance(path, t, fixed="posterior"))
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-13)


@every_path
def test_decoder_is_the_probability_of_an_8_bit_value(path):
    t, x0, x_t, guess = batch(path, [0, 0, 0, 0])
    x0[0, 0, 0, 0], x0[0, 0, 0, 1] = -1.0, 1.0
    log_variance = reverse_log_variance(path, t, torch.full_like(x0, 0.4))
    scale = torch.exp(log_variance / 2).numpy()
    # The mean of the last step is the predicted x0 itself, whatever x_t.
    edges = np.where(x0 < -0.999, -np.inf, x0 - 1 / 255), np.where(x0 > 0.999, np.inf, x0 + 1 / 255)
    chance = stats.norm.cdf(edges[1], guess, scale) - stats.norm.cdf(edges[0], guess, scale)
    inside = (x0.abs() < 0.999).numpy()
    chance = np.where(inside, np.maximum(chance, 1e-12), chance)
    tails = np.where(
        x0 > 0, stats.norm.logsf(edges[0], guess, scale), stats.norm.logcdf(edges[1], guess, scale)
    )
    with np.errstate(divide="ignore"):
        expected = -np.where(inside, np.log(chance), tails).mean((1, 2, 3)) / math.log(2)
    np.testing.assert_allclose(step_bits(path, t, x0, x_t, guess, log_variance), expected, rtol=1e-9)


def test_decoder_is_normalised():
    path = Discrete("linear", steps=50)
    values = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    x0 = values.reshape(256, 1, 1, 1)
    t, guess = torch.zeros(256, dtype=torch.float64), torch.full_like(x0, 0.21)
    bits = step_bits(path, t, x0, x0, guess, reverse_log_variance(path, t))
    assert torch.exp2(-bits).sum().item() == pytest.approx(1, abs=1e-8)


def test_variances_are_those_of_diffusers():
    path = Discrete("linear")
    for k in (1, 2, 10, 500, 999):
        t = torch.tensor([k / 1000], dtype=torch.float64)
        predicted = torch.tensor([[[[-1.0, -0.2, 0.5, 1.0]]]])
        learned = DDPMScheduler(variance_type="learned_range")._get_variance(k, predicted_variance=predicted)
        ours = reverse_log_variance(path, t, ((predicted + 1) / 2).double())
        torch.testing.assert_close(ours.float(), learned, rtol=2e-4, atol=2e-4)  # theirs: float32 cumprod
        large = DDPMScheduler(variance_type="fixed_large_log")._get_variance(k)
        assert reverse_log_variance(path, t).item() == pytest.approx(large.item(), rel=1e-4)
        small = DDPMScheduler(variance_type="fixed_small")._get_variance(k)
        posterior = reverse_log_variance(path, t, fixed="posterior").item()
        assert posterior == pytest.approx(math.log(small.item()), rel=1e-3)


@every_path
def test_prior_is_the_divergence_from_a_standard_normal(path):
    x0 = draw((5, 2, 3, 3), 0)
    abar = math.prod((1 - path.betas).tolist())
    q = Normal(math.sqrt(abar) * x0, math.sqrt(1 - abar))
    expected = kl_divergence(q, Normal(0.0, 1.0)).mean((1, 2, 3)) / math.log(2)
    torch.testing.assert_close(prior_bits(path, x0), expected, rtol=1e-8, atol=1e-12)


class ExactGaussian(torch.nn.Module):
    """E[x0 | x_t] for x0 ~ N(0, scale^2), and the fraction that gives p(x_{k-1} | x_k) its exact variance."""

    def __init__(self, path: Discrete, scale: float, variance: bool = False) -> None:
        super().__init__()
        self.path, self.scale, self.variance = path, scale, variance

    def forward(self, x, t_shown, y):
        t = t_shown / self.path.steps
        alpha, sigma = column(self.path.alpha(t)), column(self.path.sigma(t))
        spread = (alpha * self.scale) ** 2 + sigma**2
        mean = alpha * self.scale**2 / spread * x
        if not self.variance:
            return mean
        posterior = self.path.posterior(t)
        of_x0, low, high = (column(c) for c in (posterior.of_x0, posterior.log_variance, posterior.log_beta))
        own = torch.where(column(t_shown) < 1, 0.0, torch.exp(low))
        exact = torch.log(own + of_x0**2 * self.scale**2 * sigma**2 / spread)
        fraction = ((exact - low) / (high - low)).expand_as(x)
        return torch.cat([mean, 2 * fraction - 1], dim=1)


def test_bound_of_a_gaussian_is_its_entropy():
    """With the exact mean and variance of every reverse step the bound is tight; with others it is not."""
    path, scale = Discrete("linear", steps=100), 0.25
    x0 = (draw((2048, 1, 4, 4), 0) * scale * 127.5).round().clamp(-127, 127) / 127.5
    chance = stats.norm.cdf(x0 + 1 / 255, 0, scale) - stats.norm.cdf(x0 - 1 / 255, 0, scale)
    own_bits = torch.from_numpy(-np.log2(chance).mean((1, 2, 3)))

    def excess(variance: bool, fixed: str = "beta") -> torch.Tensor:
        denoiser = Denoiser(ExactGaussian(path, scale, variance), path, Data(), learned_variance=variance)
        bound = variational_bound(denoiser, x0, None, torch.Generator().manual_seed(10), fixed)
        assert bound.steps.shape == (2048, 100)
        torch.testing.assert_close(bound.total, bound.prior + bound.steps.sum(1))
        return bound.total - own_bits

    tight = excess(variance=True)
    deviation = tight.std().item() / math.sqrt(len(tight))
    assert deviation < 0.01  # bits per dimension, of an estimate with fresh noise at every step
    assert abs(tight.mean().item()) < 3 * deviation
    assert 0.05 < excess(variance=False).mean() < excess(variance=False, fixed="posterior").mean()


def test_bound_reads_a_learned_variance_and_repeats_with_its_seed():
    path = Discrete("linear", steps=50)
    denoiser = Denoiser(Stub(2), path, Noise(), learned_variance=True)
    x0, y = draw((3, 2, 4, 4), 0).clamp(-1, 1), labelled(torch.tensor([0, 1, 2]))
    first, second = (variational_bound(denoiser, x0, y, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first.total, second.total) and torch.isfinite(first.total).all()
    assert not first.total.requires_grad


def test_a_continuous_path_is_refused():
    with pytest.raises(InputError, match="Linear"):
        variational_bound(Denoiser(Stub(), Linear(), Noise()), draw((1, 1, 2, 2), 0), None, torch.Generator())
