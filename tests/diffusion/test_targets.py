import math

import pytest
import torch
from torch.func import jacfwd, jvp

from dit.diffusion.paths import VE
from dit.diffusion.targets import Data, Karras, Noise, Velocity, VPrediction
from dit.errors import InputError
from tests.diffusion.values import PATHS, TARGETS, draw, inner_times

every_pair = pytest.mark.parametrize(
    ("path", "target"),
    [(path, target) for path in PATHS.values() for target in TARGETS.values()],
    ids=[f"{path}-{target}" for path in PATHS for target in TARGETS],
)


def on_path(path, t, x0, eps):
    return path.alpha(t).reshape(-1, 1, 1, 1) * x0 + path.sigma(t).reshape(-1, 1, 1, 1) * eps


@every_pair
def test_decode_undoes_encode_from_end_to_end(path, target):
    t = torch.cat([torch.tensor([path.t_min, path.t_max], dtype=torch.float64), inner_times(path, 30)])
    x0, eps = draw((len(t), 2, 3, 3), 0), draw((len(t), 2, 3, 3), 1)
    output = target.encode(path, t, x0, eps)
    got_x0, got_eps = target.decode(path, t, on_path(path, t, x0, eps), output)
    torch.testing.assert_close(got_x0, x0, rtol=0, atol=1e-10)
    torch.testing.assert_close(got_eps, eps, rtol=0, atol=1e-10)


@every_pair
def test_both_ends_stand_in_float32(path, target):
    """Nothing is infinite where one of the two equations is nearly singular, and both still hold."""
    t = torch.tensor([path.t_min, path.t_max], dtype=torch.float32)
    x0, eps = draw((2, 2, 3, 3), 0, torch.float32), draw((2, 2, 3, 3), 1, torch.float32)
    output = target.encode(path, t, x0, eps)
    x_t = on_path(path, t, x0, eps)
    got_x0, got_eps = target.decode(path, t, x_t, output)
    assert torch.isfinite(got_x0).all() and torch.isfinite(got_eps).all() and torch.isfinite(output).all()
    # What is nearly absent from x_t (x0 at the noisy end) cannot be told from it; the line itself must hold.
    torch.testing.assert_close(on_path(path, t, got_x0, got_eps), x_t, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        on_path(path, t, got_x0, 0 * eps), on_path(path, t, x0, 0 * eps), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(
        on_path(path, t, 0 * x0, got_eps), on_path(path, t, 0 * x0, eps), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_definitions(path):
    t = inner_times(path, 20)
    x0, eps = draw((20, 1, 2, 2), 0), draw((20, 1, 2, 2), 1)
    assert torch.equal(Noise().encode(path, t, x0, eps), eps)
    assert torch.equal(Data().encode(path, t, x0, eps), x0)
    _, moved = jvp(lambda s: on_path(path, s, x0, eps), (t,), (torch.ones_like(t),))
    torch.testing.assert_close(Velocity().encode(path, t, x0, eps), moved, rtol=1e-9, atol=1e-9)
    v = on_path(path, t, eps, -x0)
    torch.testing.assert_close(VPrediction().encode(path, t, x0, eps), v)
    # The score is the gradient of ln N(x; alpha x0, sigma^2), here by autograd.
    x_t = on_path(path, t, x0, eps).requires_grad_()
    alpha, sigma = (c(t).reshape(-1, 1, 1, 1) for c in (path.alpha, path.sigma))
    log_density = torch.distributions.Normal(alpha * x0, sigma).log_prob(x_t).sum()
    (score,) = torch.autograd.grad(log_density, x_t)
    torch.testing.assert_close(TARGETS["score"].encode(path, t, x0, eps), score, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("sigma_data", [0.5, 1.0, 0.13])
def test_karras_is_table_1_of_edm(sigma_data):
    path, target = VE(), Karras(sigma_data)
    sigma = torch.logspace(math.log10(0.002), math.log10(80), 40, dtype=torch.float64)
    x, raw = draw((40, 1, 2, 2), 0), draw((40, 1, 2, 2), 1)
    s = sigma.reshape(-1, 1, 1, 1)
    c_skip = sigma_data**2 / (s**2 + sigma_data**2)
    c_out = s * sigma_data / (s**2 + sigma_data**2) ** 0.5
    c_in = 1 / (s**2 + sigma_data**2) ** 0.5
    x0, _ = target.decode(path, sigma, x, raw)
    torch.testing.assert_close(x0, c_skip * x + c_out * raw, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(target.input_scale(path, sigma), c_in.flatten(), rtol=1e-12, atol=0)
    torch.testing.assert_close(path.time_shown(sigma), sigma.log() / 4, rtol=1e-12, atol=0)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_karras_has_unit_variance_on_every_path(path, sigma_data):
    t, target = inner_times(path), Karras(sigma_data)
    a, b = target.coefficients(path, t)
    one = torch.ones_like(t)
    torch.testing.assert_close((a * sigma_data) ** 2 + b**2, one)
    variance = (path.alpha(t) * sigma_data) ** 2 + path.sigma(t) ** 2
    torch.testing.assert_close(target.input_scale(path, t) ** 2 * variance, one)
    # The network sees the same F and the same input at the same log-SNR, whatever the path.
    at_sigma = VE(1e-12, 1e12).t_of_log_snr(path.log_snr(t))
    for ours, edms in zip((a, b), target.coefficients(VE(), at_sigma), strict=True):
        torch.testing.assert_close(ours, edms, rtol=1e-10, atol=1e-12)


@every_pair
def test_determinants_are_the_derivatives_at_fixed_x_t(path, target):
    t = inner_times(path, 7)

    def x0_of(output):
        x_t = torch.full((7, 1, 1, 1), 0.3, dtype=torch.float64)
        return target.decode(path, t, x_t, output.expand(7, 1, 1, 1))[0].flatten()

    slope = jacfwd(x0_of)(torch.zeros(1, dtype=torch.float64))[:, 0]
    ratio = Data().determinant(path, t) / target.determinant(path, t)
    torch.testing.assert_close(slope, ratio, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("sigma_data", [0, -0.5, math.nan, "0.5", True])
def test_wrong_numbers_are_refused(sigma_data):
    with pytest.raises(InputError, match=r"^objective\.target\.sigma_data"):
        Karras(sigma_data)
