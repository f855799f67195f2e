"""The values that the tests of this folder go through, and a network that needs no training."""

import torch
from torch import Tensor, nn

from dit.diffusion import paths, targets, times, weights

PATHS = {
    "linear": paths.Linear(),
    "cosine": paths.Cosine(),
    "vp": paths.VP(),
    "ve": paths.VE(),
    "ddpm_linear": paths.Discrete("linear"),
    "ddpm_scaled_linear": paths.Discrete("scaled_linear"),
    "ddpm_cosine": paths.Discrete("cosine"),
    "ddpm_sigmoid": paths.Discrete("sigmoid"),
    "ddpm_50_steps": paths.Discrete("linear", steps=50),
}
TARGETS = {
    "noise": targets.Noise(),
    "data": targets.Data(),
    "velocity": targets.Velocity(),
    "v_prediction": targets.VPrediction(),
    "score": targets.Score(),
    "karras": targets.Karras(),
    "karras_unit": targets.Karras(sigma_data=1.0),
}
TIMES = {
    "uniform": times.Uniform(),
    "logit_normal": times.LogitNormal(),
    "log_normal_sigma": times.LogNormalSigma(),
    "shifted": times.Shifted(),
    "shifted_logit_normal": times.Shifted(2.0, times.LogitNormal(0.3, 0.8)),
}
WEIGHTS = {
    **{f"uniform_{space}": weights.Uniform(space) for space in weights.SPACES},
    "min_snr": weights.MinSNR(),
    "soft_min_snr": weights.SoftMinSNR(),
    "edm": weights.EDM(),
    "elbo": weights.ELBO(),
}


def draw(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def inner_times(path: paths.Path, count: int = 97) -> Tensor:
    """Times of the path's inside, between the steps of a discrete one: (count,) float64."""
    unit = (torch.arange(count, dtype=torch.float64) + 0.37) / count
    return path.t_min + (path.t_max - path.t_min) * unit


class Stub(nn.Module):
    """A smooth function of the input, the time shown and the label, with one parameter in float64."""

    def __init__(self, channels_factor: int = 1) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
        self.channels_factor = channels_factor

    def forward(self, x: Tensor, t_shown: Tensor, y: Tensor) -> Tensor:
        shift = torch.sin(t_shown / 100 + y).reshape(-1, 1, 1, 1)
        parts = [torch.tanh(self.gain * x + shift / (1 + i)) for i in range(self.channels_factor)]
        return torch.cat(parts, dim=1)
