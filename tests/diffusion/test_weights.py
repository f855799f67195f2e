import math

import pytest
import torch

from dit.diffusion.paths import VE, Discrete
from dit.diffusion.targets import Data, Karras, Noise, VPrediction
from dit.diffusion.weights import EDM, ELBO, SPACES, MinSNR, SoftMinSNR, Uniform
from dit.errors import InputError
from tests.diffusion.values import PATHS, TARGETS, WEIGHTS, draw, inner_times

every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
@every_path
@pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS.keys())
def test_a_weighted_error_is_the_same_whatever_the_network_predicts(path, target, weight):
    """Weight on F times the squared error of F = weight in its space times the squared error there."""
    t = inner_times(path, 11)
    x0, eps = draw((11, 1, 2, 2), 0), draw((11, 1, 2, 2), 1)
    x_t = path.alpha(t).reshape(-1, 1, 1, 1) * x0 + path.sigma(t).reshape(-1, 1, 1, 1) * eps
    guess_x0 = x0 + 0.3 * draw((11, 1, 2, 2), 2)
    guess_eps = (x_t - path.alpha(t).reshape(-1, 1, 1, 1) * guess_x0) / path.sigma(t).reshape(-1, 1, 1, 1)

    def error(line):
        difference = line.encode(path, t, guess_x0, guess_eps) - line.encode(path, t, x0, eps)
        return difference.square().flatten(1).mean(1)

    in_output = weight(path, target, t) * error(target)
    in_space = weight.in_space(path, t) * error(SPACES[weight.space] or target)
    torch.testing.assert_close(in_output, in_space, rtol=1e-10, atol=0)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("gamma", [1.0, 5.0, 20.0])
def test_min_snr_has_the_papers_three_forms(schedule, gamma):
    # arXiv 2303.09556: min(SNR, gamma) for x0, that over SNR for noise, that over SNR + 1 for v.
    path = Discrete(schedule)
    t = torch.arange(1000, dtype=torch.float64) / 1000
    snr = path.alpha(t) ** 2 / path.sigma(t) ** 2
    clipped = torch.minimum(snr, torch.tensor(gamma, dtype=torch.float64))
    weight = MinSNR(gamma)
    torch.testing.assert_close(weight(path, Data(), t), clipped, rtol=1e-10, atol=0)
    torch.testing.assert_close(weight(path, Noise(), t), clipped / snr, rtol=1e-10, atol=0)
    torch.testing.assert_close(weight(path, VPrediction(), t), clipped / (snr + 1), rtol=1e-10, atol=0)


@every_path
def test_soft_min_snr_is_hdits(path):
    t = inner_times(path)
    sigma = path.sigma(t) / path.alpha(t)
    torch.testing.assert_close(SoftMinSNR(4.0)(path, Data(), t), 1 / (sigma**2 + 1 / 4), rtol=1e-10, atol=0)
    assert (SoftMinSNR(5.0)(path, Data(), t) < MinSNR(5.0)(path, Data(), t)).all()


@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_edms_weight_is_one_in_its_own_output(sigma_data):
    sigma = torch.logspace(-2.5, 1.8, 50, dtype=torch.float64)
    expected = (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
    torch.testing.assert_close(EDM(sigma_data)(VE(), Data(), sigma), expected, rtol=1e-11, atol=0)
    for path in PATHS.values():
        t = inner_times(path)
        torch.testing.assert_close(EDM(sigma_data)(path, Karras(sigma_data), t), torch.ones_like(t))


@every_path
def test_elbo_is_half_the_fall_of_the_snr_on_x0(path):
    # arXiv 2107.00630, eq. 17: -(1/2) SNR'(t) |x0 - x0_hat|^2, with SNR' by autograd.
    t = inner_times(path).requires_grad_()
    snr = path.alpha(t) ** 2 / path.sigma(t) ** 2
    (snr_dot,) = torch.autograd.grad(snr.sum(), t)
    torch.testing.assert_close(ELBO()(path, Data(), t.detach()), -snr_dot / 2, rtol=1e-8, atol=0)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Uniform("x0"), "objective.weight.space"),
        (lambda: MinSNR(0), "objective.weight.gamma"),
        (lambda: MinSNR(math.nan), "objective.weight.gamma"),
        (lambda: SoftMinSNR(-1.0), "objective.weight.gamma"),
        (lambda: SoftMinSNR("4"), "objective.weight.gamma"),
        (lambda: EDM(False), "objective.weight.sigma_data"),
        (lambda: EDM(-0.5), "objective.weight.sigma_data"),
    ],
)
def test_wrong_numbers_are_refused(make, key):
    with pytest.raises(InputError) as error:
        make()
    assert error.value.key == key
