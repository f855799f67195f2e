import pytest
import torch
from torch import nn

from dit.condition import labelled
from dit.diffusion.denoiser import Denoiser
from dit.diffusion.paths import VE, Discrete, Linear
from dit.diffusion.targets import Karras, Noise, Velocity
from tests.diffusion.values import PATHS, TARGETS, Stub, draw, inner_times


class Recorder(nn.Module):
    """Returns a fixed output and keeps what it was shown."""

    def __init__(self, output):
        super().__init__()
        self.output, self.seen = output, None

    def forward(self, x, t_shown, y):
        self.seen = (x, t_shown, y)
        return self.output


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_a_perfect_network_gives_back_data_and_noise(path, target):
    t = inner_times(path, 5)
    x0, eps, y = draw((5, 3, 2, 2), 0), draw((5, 3, 2, 2), 1), labelled(torch.arange(5))
    x_t = path.alpha(t).reshape(-1, 1, 1, 1) * x0 + path.sigma(t).reshape(-1, 1, 1, 1) * eps
    network = Recorder(target.encode(path, t, x0, eps))
    prediction = Denoiser(network, path, target)(x_t, t, y)
    torch.testing.assert_close(prediction.x0, x0, rtol=0, atol=1e-10)
    torch.testing.assert_close(prediction.eps, eps, rtol=0, atol=1e-10)
    assert prediction.variance_fraction is None
    x_shown, t_shown, y_shown = network.seen
    assert torch.equal(t_shown, path.time_shown(t)) and y_shown is y
    scale = target.input_scale(path, t).reshape(-1, 1, 1, 1)
    assert torch.equal(x_shown, scale * x_t)
    assert isinstance(target, Karras) or torch.equal(x_shown, x_t)


def test_second_half_of_the_channels_is_the_variance():
    out = draw((2, 6, 2, 2), 0)
    x_t, t = draw((2, 3, 2, 2), 1), torch.tensor([0.1, 0.7], dtype=torch.float64)
    prediction = Denoiser(Recorder(out), Discrete(), Noise(), learned_variance=True)(x_t, t, None)
    torch.testing.assert_close(prediction.eps, out[:, :3])
    assert prediction.variance_fraction is not None
    torch.testing.assert_close(prediction.variance_fraction * 2 - 1, out[:, 3:])


def test_a_network_may_be_read_between_the_steps():
    """Any log-SNR can be asked for: the network is shown a fractional step and x_t has that log-SNR."""
    path = Discrete("cosine")
    log_snr = torch.linspace(9.0, -9.0, 37, dtype=torch.float64)
    t = path.t_of_log_snr(log_snr)
    torch.testing.assert_close(path.log_snr(t), log_snr, rtol=0, atol=1e-9)
    network = Recorder(draw((37, 1, 2, 2), 0))
    Denoiser(network, path, Noise())(draw((37, 1, 2, 2), 1), t, None)
    assert network.seen is not None
    assert (network.seen[1] % 1 != 0).any() and (network.seen[1].diff() > 0).all()


@pytest.mark.parametrize(
    ("path", "target"), [(Linear(), Velocity()), (VE(), Karras()), (Discrete(), Noise())]
)
def test_only_the_network_runs_in_half_precision(path, target):
    network = nn.Conv2d(2, 2, 3, padding=1)
    dtypes = []

    class Shown(nn.Module):
        def forward(self, x, t_shown, y):
            out = network(x)
            dtypes.append((x.dtype, t_shown.dtype, out.dtype))
            return out

    x_t, t = draw((4, 2, 4, 4), 0, torch.float32), path.from_unit(torch.linspace(0.1, 0.9, 4))
    denoiser = Denoiser(Shown(), path, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prediction = denoiser(x_t, t, None)
    assert dtypes == [(torch.float32, torch.float32, torch.bfloat16)]
    assert prediction.x0.dtype == prediction.eps.dtype == prediction.output.dtype == torch.float32
    # The same output in float32 gives the same x0 and eps to the bit.
    again = Denoiser(Recorder(prediction.output), path, target)(x_t, t, None)
    assert torch.equal(again.x0, prediction.x0) and torch.equal(again.eps, prediction.eps)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert denoiser(x_t.bfloat16(), t, None).x0.dtype == torch.float32


def test_state_holds_the_network_alone():
    assert list(Denoiser(Stub(), Linear(), Velocity()).state_dict()) == ["network.gain"]


def test_an_output_of_the_wrong_shape_is_named():
    with pytest.raises(AssertionError, match="learned_variance=False"):
        Denoiser(Stub(2), Linear(), Velocity())(
            draw((1, 2, 2, 2), 0), torch.tensor([0.5]), labelled(torch.tensor([0]))
        )
