"""The values that the tests of this folder go through, and a network that needs no training."""

from functools import partial

import torch
from torch import Tensor, nn

from dit.condition import Condition
from dit.diffusion import paths, solvers, targets, times, weights

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

SOLVERS = {
    "euler": solvers.euler,
    "heun": solvers.heun,
    "ddim": solvers.ddim,
    "ddim_eta_1": partial(solvers.ddim, eta=1.0),
    "ddpm": solvers.ddpm,
    "ddpm_beta": partial(solvers.ddpm, variance="beta"),
    "edm_stochastic": solvers.edm_stochastic,
    "euler_maruyama": solvers.euler_maruyama,
    "heun_sde": solvers.heun_sde,
    "dpm_solver_1": partial(solvers.dpm_solver, order=1),
    "dpm_solver_2": partial(solvers.dpm_solver, order=2),
    "dpm_solver_3": partial(solvers.dpm_solver, order=3),
    "dpmpp_2s": solvers.dpmpp_2s,
    "dpmpp_2m": solvers.dpmpp_2m,
    "dopri5": solvers.dopri5,
}


def draw(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def inner_times(path: paths.Path, count: int = 97) -> Tensor:
    """Times of the path's inside, between the steps of a discrete one: (count,) float64."""
    unit = (torch.arange(count, dtype=torch.float64) + 0.37) / count
    return path.t_min + (path.t_max - path.t_min) * unit


class Noises:
    """A source of noise whose draws are the same each time it is made: for us, and for a reference."""

    def __init__(self, shape: tuple[int, ...], count: int = 200) -> None:
        self.values = [draw(shape, 1000 + i) for i in range(count)]
        self.used = 0

    def __call__(self, *_args, **_kwargs) -> Tensor:
        self.used += 1
        return self.values[self.used - 1]


class Stub(nn.Module):
    """A smooth function of the input, the time shown and the label, with one parameter in float64."""

    def __init__(self, channels_factor: int = 1) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
        self.channels_factor = channels_factor

    def forward(self, x: Tensor, t_shown: Tensor, condition: Condition) -> Tensor:
        shift = torch.sin(t_shown / 100 + condition["label"]).reshape(-1, *[1] * (x.ndim - 1))
        parts = [torch.tanh(self.gain * x + shift / (1 + i)) for i in range(self.channels_factor)]
        return torch.cat(parts, dim=1)
