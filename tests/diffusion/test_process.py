"""The process: what validation asks of it, by the formulas of rectified flow and of the one-step network."""

import pytest
import torch
from torch import nn

from dit.condition import NOTHING
from dit.diffusion.objective import Objective
from dit.diffusion.paths import VE, Linear
from dit.diffusion.process import Gaussian
from dit.diffusion.targets import Data, Karras, Velocity
from dit.diffusion.times import LogitNormal, Uniform
from dit.diffusion.weights import MinSNR
from dit.diffusion.weights import Uniform as Plain
from tests.diffusion.values import PATHS, TARGETS, draw

LOG_SNR = torch.linspace(-4, 4, 6, dtype=torch.float64)


class Answer(nn.Module):
    """A network that gives a stored output whatever it is shown."""

    def __init__(self, output: torch.Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, x, t, condition):
        return self.output


def guess(process: Gaussian, x0, eps, wrong) -> nn.Module:
    """The denoiser that finds the data ``x0 + wrong``, and the noise that x_t then has."""
    t = process.path.t_of_log_snr(LOG_SNR)
    ratio = torch.exp(LOG_SNR / 2).reshape(-1, *[1] * (x0.ndim - 1))
    return process.denoiser(Answer(process.target.encode(process.path, t, x0 + wrong, eps - ratio * wrong)))


def check_the_frame(process: Gaussian, shape: tuple[int, ...]) -> None:
    """There v = (x_t - x0) / s, s = sigma / (alpha + sigma), so that an error of x0 counts (1 + alpha / sigma)^2."""
    x0, eps, wrong = draw(shape, 0), draw(shape, 1), 0.1 * draw(shape, 2)
    got = process.validation_error(guess(process, x0, eps, wrong), x0, NOTHING, LOG_SNR, eps)
    wanted = (1 + torch.exp(LOG_SNR / 2)) ** 2 * wrong.square().flatten(1).mean(1)
    assert got.shape == (6,) and got.dtype == torch.float64
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("path", PATHS)
def test_the_validation_error_is_the_data_error_in_the_frame_of_rectified_flow(path, target):
    check_the_frame(Gaussian(PATHS[path], TARGETS[target], Plain()), (6, 2, 4, 4))


@pytest.mark.parametrize("shape", [(6, 5), (6, 3, 16), (6, 1, 2, 3, 4)], ids=str)
def test_the_validation_error_of_any_number_of_axes(shape):
    check_the_frame(Gaussian(PATHS["ddpm_linear"], Data(), Plain()), shape)


def test_the_validation_error_is_that_of_the_loss_of_rectified_flow():
    process = Objective(Linear(), Velocity(), Uniform(), Plain()).process
    x0, eps, output = (draw((6, 2, 4, 4), seed) for seed in range(3))
    denoiser = process.denoiser(Answer(output))
    loss = process.loss_at(denoiser, x0, NOTHING, process.path.t_of_log_snr(LOG_SNR), eps)
    got = process.validation_error(denoiser, x0, NOTHING, LOG_SNR, eps)
    torch.testing.assert_close(got, loss.loss, rtol=1e-9, atol=0)
    torch.testing.assert_close(got, (output - (eps - x0)).square().flatten(1).mean(1), rtol=1e-9, atol=0)


def test_an_objectives_process_is_made_of_its_values():
    made = Objective(VE(), Karras(), LogitNormal(), MinSNR())
    assert made.process == Gaussian(VE(), Karras(), MinSNR())
    assert repr(made).count("VE") == 1  # says nothing twice
    assert made == Objective(VE(), Karras(), LogitNormal(), MinSNR())
    assert Gaussian.unit == Gaussian(Linear(), Data(), Plain()).unit == "squared velocity error per dimension"
