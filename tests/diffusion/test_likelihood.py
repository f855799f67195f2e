import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from dit.condition import NOTHING, Condition, labelled
from dit.diffusion import grids
from dit.diffusion.denoiser import Denoiser, Prediction
from dit.diffusion.guidance import ClassifierFree
from dit.diffusion.likelihood import likelihood
from dit.diffusion.paths import VE, VP, Cosine, Discrete, Linear, per_sample
from dit.diffusion.targets import Karras, Noise, Velocity
from dit.errors import InputError
from tests.diffusion.gaussian import Gaussian, Plausible
from tests.diffusion.values import PATHS, draw

SHAPE = (1, 2, 2)
COVARIANCE_ROOT = torch.tensor(
    [[0.8, 0.0, 0.0, 0.0], [0.5, 0.4, 0.0, 0.0], [-0.3, 0.2, 0.7, 0.0], [0.1, 0.1, 0.4, 0.3]],
    dtype=torch.float64,
)


class Correlated(Denoiser):
    """The exact denoiser of x0 ~ N(0, L L^T) over four correlated dimensions."""

    def __init__(self, path) -> None:
        super().__init__(nn.Identity(), path, Velocity())
        self.covariance = COVARIANCE_ROOT @ COVARIANCE_ROOT.T

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = NOTHING) -> Prediction:
        alpha, sigma = float(self.path.alpha(t)[0]), float(self.path.sigma(t)[0])
        inverse = torch.linalg.inv(alpha**2 * self.covariance + sigma**2 * torch.eye(4, dtype=torch.float64))
        of_x_t = (x_t.flatten(1) @ inverse).reshape(x_t.shape)
        x0 = alpha * (of_x_t.flatten(1) @ self.covariance).reshape(x_t.shape)
        return Prediction(x0, sigma * of_x_t, x0)

    def sample(self, n: int) -> Tensor:
        return (draw((n, 4), 5) @ COVARIANCE_ROOT.T).reshape(n, *SHAPE)

    def bits_per_dim(self, x0: Tensor) -> Tensor:
        mean = torch.zeros(4, dtype=torch.float64)
        normal = torch.distributions.MultivariateNormal(mean, self.covariance)
        return -normal.log_prob(x0.flatten(1)) / (4 * math.log(2))


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_a_gaussian_has_its_closed_form(path):
    denoiser, x0 = Gaussian(path, mean=0.0, spread=1.0), draw((8, *SHAPE), 1)
    grid = partial(grids.log_snr, n_steps=100)
    got = likelihood(denoiser, x0, grid, probes=None)
    # the noise of the last noisy time is part of the density: 0.03 and 0.045 on two of the discrete paths
    left = float(torch.exp(-path.log_snr(grid(path)[-2]) / 2))
    log_density = torch.distributions.Normal(0.0, math.hypot(1.0, left)).log_prob(x0).flatten(1).sum(1)
    torch.testing.assert_close(got.bits_per_dim, -log_density / (4 * math.log(2)), rtol=0, atol=1e-3)
    torch.testing.assert_close(got.log_density, -4 * math.log(2) * got.bits_per_dim)
    assert got.nfe == 4 * 99


@pytest.mark.parametrize("path", [Linear(), Cosine(), VP(), VE(), Discrete("cosine")])
@pytest.mark.parametrize("grid", [partial(grids.log_snr, n_steps=100), partial(grids.karras, n_steps=100)])
def test_correlated_dimensions_have_their_closed_form(path, grid):
    denoiser = Correlated(path)
    x0 = denoiser.sample(16)
    got = likelihood(denoiser, x0, grid, probes=None).bits_per_dim
    torch.testing.assert_close(got, denoiser.bits_per_dim(x0), rtol=0, atol=1e-3)


def test_probes_estimate_the_exact_divergence_without_bias():
    denoiser = Correlated(Linear())
    grid = partial(grids.log_snr, n_steps=50)
    x0 = denoiser.sample(1)
    exact = likelihood(denoiser, x0, grid, probes=None).bits_per_dim
    many = likelihood(denoiser, x0.expand(400, *SHAPE), grid, seeds=range(400)).bits_per_dim
    standard_error = float(many.std()) / 20
    assert standard_error > 1e-3  # the probes do differ
    assert abs(float(many.mean() - exact)) < 4 * standard_error
    few = likelihood(denoiser, x0.expand(100, *SHAPE), grid, seeds=range(100), probes=4).bits_per_dim
    assert float(few.std()) == pytest.approx(float(many.std()) / 2, rel=0.3)


def test_probes_are_exact_where_dimensions_are_independent():
    denoiser, x0 = Gaussian(VE()), draw((3, *SHAPE), 2)
    grid = partial(grids.karras, n_steps=20)
    exact = likelihood(denoiser, x0, grid, probes=None)
    torch.testing.assert_close(likelihood(denoiser, x0, grid, seeds=[1, 2, 3]).log_density, exact.log_density)


def test_the_estimate_of_a_sample_does_not_depend_on_its_batch():
    denoiser = Plausible(Linear(), Velocity(), channels=1).double()
    x0, y, grid = draw((4, *SHAPE), 3), labelled(torch.arange(4)), partial(grids.log_snr, n_steps=10)
    whole = likelihood(denoiser, x0, grid, y, seeds=[5, 6, 7, 8])
    alone = likelihood(denoiser, x0[2:3], grid, y.part(slice(2, 3)), seeds=[7])
    torch.testing.assert_close(alone.bits_per_dim, whole.bits_per_dim[2:3], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("path", "target"), [(Linear(), Noise()), (VE(), Karras()), (Discrete(), Noise())])
def test_it_holds_for_a_network_and_under_guidance_and_no_grad(path, target):
    denoiser = ClassifierFree(Plausible(path, target, channels=1), 1.5)
    x0 = draw((2, *SHAPE), 4, torch.float32)
    with torch.no_grad():
        got = likelihood(
            denoiser, x0, partial(grids.log_snr, n_steps=10), labelled(torch.tensor([1, 2])), probes=None
        )
    assert got.bits_per_dim.isfinite().all() and got.bits_per_dim.dtype == torch.float64
    assert got.nfe == 2 * 4 * 9
    assert all(parameter.grad is None for parameter in denoiser.parameters())


def test_values_are_checked():
    denoiser, x0, grid = Gaussian(VE()), draw((2, *SHAPE), 2), partial(grids.karras, n_steps=5)
    with pytest.raises(InputError, match="probes: got 0"):
        likelihood(denoiser, x0, grid, probes=0, seeds=[1, 2])
    with pytest.raises(InputError, match=r"seeds: got \[1\]; allowed: one seed for each of the 2 samples"):
        likelihood(denoiser, x0, grid, seeds=[1])
    with pytest.raises(InputError, match="probes: nothing was given"):
        likelihood(denoiser, draw((1, 3, 64, 64), 1), grid, probes=None)


def test_the_mean_of_a_density_is_its_entropy():
    """Averaged over samples the bits per dimension are the differential entropy of the data."""
    denoiser = Gaussian(Linear(), mean=0.0, spread=0.5)
    x0 = 0.5 * draw((2000, 1, 1, 1), 9)
    got = likelihood(denoiser, x0, partial(grids.log_snr, n_steps=40), probes=None).bits_per_dim
    entropy = 0.5 * math.log2(2 * math.pi * math.e * 0.25)
    assert float(got.mean()) == pytest.approx(entropy, abs=4 * 0.5**0.5 / math.log(2) / 2000**0.5)
    assert per_sample(got, x0).shape == (2000, 1, 1, 1)
