"""Solvers of the reverse SDE dx = (v - w score / 2) dt + sqrt(w) dW, score = -eps / sigma: SiT's family.

Every w(t) >= 0 has the same marginals; w = 0 is the probability-flow ODE. w = 2 D(t) with D one of `FORMS` times
``norm``, as SiT's code has it: REPA's 2 t is ``linear`` at norm 1, score SDE's reversed forward SDE is ``SBDM``.

Options of both solvers:
    diffusion: the form of D(t), a key of `FORMS`.
    norm: its factor, >= 0; in ``decreasing`` that of the cosine.
    last_step: the step into data, where the grid ends there, of size h from time t: tweedie (the data
        prediction, whatever h), mean (the SDE's drift and no noise: on Linear with ``sigma`` x0 - h eps), euler
        (the ODE's drift) or none (a step like all others, noise included).

Source: SiT, 2401.08740, section 2.4 and table 3; REPA, 2410.06940; score SDE, 2011.13456, equation 6.
"""

import math
import warnings
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from dit.condition import NOTHING, Condition
from dit.diffusion.paths import Path
from dit.diffusion.solvers.steps import DenoiserLike, Level, NoiseSource, levels, predict, required, velocity
from dit.errors import InputError, check_choice, check_number


def _sbdm(path: Path, at: Level) -> float:
    """Half the rate of the forward SDE: sigma sigma' - sigma^2 alpha' / alpha."""
    return -(at.sigma**2) * float(path.log_snr_dot(torch.tensor(at.t, dtype=torch.float64))) / 2


# D(t) at norm n, t = 1 at noise (SiT's time is 1 - t).
FORMS: dict[str, Callable[[Path, Level, float], float]] = {
    "constant": lambda _path, _at, n: n,
    "SBDM": lambda path, at, n: n * _sbdm(path, at),
    "sigma": lambda _path, at, n: n * at.sigma,
    "linear": lambda _path, at, n: n * at.t,
    "decreasing": lambda _path, at, n: (1 - n * math.cos(math.pi * at.t)) ** 2 / 4,
    "increasing-decreasing": lambda _path, at, n: n * math.sin(math.pi * at.t) ** 2,
}
_OF_UNIT_TIME = ("decreasing", "increasing-decreasing")
LAST_STEPS = ("tweedie", "mean", "euler", "none")
# w h / sigma^2 of a step: above the first its noise exceeds the level it stands at, above the second what it makes
# is 16 times as large and no network has seen the like.
_LARGE, _DIVERGES = 2.0, 256.0


def euler_maruyama(
    denoiser: DenoiserLike,
    x: Tensor,
    ts: Tensor,
    condition: Condition = NOTHING,
    *,
    noise: NoiseSource | None = None,
    diffusion: str = "sigma",
    norm: float = 1.0,
    last_step: str = "tweedie",
) -> Tensor:
    """Euler-Maruyama steps of the reverse SDE: order 1/2 for paths (1 for averages), one call a step.

    Options: see this module.

    Raises:
        InputError: a step so large that it would diverge (w h > 256 sigma^2); above 2 sigma^2 it warns.

    Source: SiT, 2401.08740; score SDE, 2011.13456, equation 6 and appendix E.
    """
    sde = _ReverseSDE(denoiser, condition, diffusion, norm, last_step)
    return sde.solve(x, levels(denoiser.path, ts), required(noise, "euler_maruyama"), sde.euler_step)


def heun_sde(
    denoiser: DenoiserLike,
    x: Tensor,
    ts: Tensor,
    condition: Condition = NOTHING,
    *,
    noise: NoiseSource | None = None,
    diffusion: str = "sigma",
    norm: float = 1.0,
    last_step: str = "tweedie",
) -> Tensor:
    """Heun steps of the reverse SDE, each after its noise: order 1 for averages, two calls a step but the last.

    Options: see this module; ``last_step`` none needs a grid that ends at noise, for the second call of a
    step is at its end.

    Raises:
        InputError: as `euler_maruyama`; or ``last_step`` none on a grid to data.

    Source: SiT's "Heun" (2401.08740), which freezes w over a step.
    """
    sde, grid = _ReverseSDE(denoiser, condition, diffusion, norm, last_step), levels(denoiser.path, ts)
    if grid[-1].sigma == 0 and last_step == "none":
        allowed = ", ".join(LAST_STEPS[:-1])
        raise InputError("solver.last_step", last_step, f"{allowed}, where the grid ends at data")
    return sde.solve(x, grid, required(noise, "heun_sde"), sde.heun_step)


class _ReverseSDE:
    """The drift and the noise of one denoiser's reverse SDE, and its last step."""

    def __init__(
        self, denoiser: DenoiserLike, condition: Condition, diffusion: str, norm: float, last_step: str
    ) -> None:
        check_choice("solver.diffusion", diffusion, FORMS)
        check_number("solver.norm", norm, low=0)
        check_choice("solver.last_step", last_step, LAST_STEPS)
        if diffusion in _OF_UNIT_TIME and denoiser.path.t_max > 1:
            allowed = ", ".join(form for form in FORMS if form not in _OF_UNIT_TIME)
            raise InputError("solver.diffusion", diffusion, f"{allowed} on a path whose times exceed 1")
        self.denoiser, self.condition, self.norm = denoiser, condition, norm
        self.diffusion, self.last_step = diffusion, last_step

    def solve(self, x: Tensor, grid: list[Level], draw: NoiseSource, step: Callable[..., Tensor]) -> Tensor:
        """X (B, ...) carried along the grid by ``step`` (x, now, end, noise), and into data by `last`."""
        deviations = self.deviations(grid)
        for now, end, deviation in zip(grid, grid[1:], deviations):
            if self.is_last(end):
                return self.last(x, now, end)
            x = step(x, now, end, deviation * draw())
        return x

    def euler_step(self, x: Tensor, now: Level, end: Level, noise: Tensor) -> Tensor:
        """A step of Euler and Maruyama."""
        return x + (end.t - now.t) * self.drift(x, now) + noise

    def heun_step(self, x: Tensor, now: Level, end: Level, noise: Tensor) -> Tensor:
        """The noise of a step, then a trapezoid in the drift."""
        h, x = end.t - now.t, x + noise
        slope = self.drift(x, now)
        return x + h / 2 * (slope + self.drift(x + h * slope, end))

    def w(self, at: Level) -> float:
        """The square of what multiplies dW, 2 D(t)."""
        return 2 * FORMS[self.diffusion](self.denoiser.path, at, self.norm)

    def is_last(self, end: Level) -> bool:
        """Whether the step to ``end`` is one into data that is taken in a way of its own."""
        return end.sigma == 0 and self.last_step != "none"

    def drift(self, x: Tensor, at: Level) -> Tensor:
        """The SDE's own, velocity - w score / 2, (B, ...)."""
        prediction = predict(self.denoiser, x, at.t, self.condition)
        return velocity(self.denoiser.path, prediction, at.t) + self.w(at) / (2 * at.sigma) * prediction.eps

    def last(self, x: Tensor, now: Level, end: Level) -> Tensor:
        """Data (B, ...) from x at the last noisy time."""
        if self.last_step == "mean":
            return x + (end.t - now.t) * self.drift(x, now)
        prediction = predict(self.denoiser, x, now.t, self.condition)
        if self.last_step == "euler":
            return x + (end.t - now.t) * velocity(self.denoiser.path, prediction, now.t)
        return prediction.x0

    def deviations(self, grid: list[Level]) -> list[float]:
        """sqrt(w h) of every step: what multiplies its draw; checked before the first call of the network."""
        deviations = []
        for now, end in pairwise(grid):
            h = now.t - end.t
            variance = 0.0 if self.is_last(end) else self.w(now) * h
            deviations.append(math.sqrt(self._checked(variance, now, h)))
        return deviations

    def _checked(self, variance: float, now: Level, h: float) -> float:
        """``variance`` of a step's noise.

        Raises:
            InputError: it is far beyond the level at which the step stands.
        """
        if not variance > _LARGE * now.sigma**2:
            return variance
        at_most = (
            f"a step from t = {now.t:.6g} of at most {h * _LARGE * now.sigma**2 / variance:.3g}, got {h:.3g}"
        )
        remedy = "Take more steps, a later grid.start, a smaller norm or diffusion=sigma."
        if not variance <= _DIVERGES * now.sigma**2:
            raise InputError("solver.diffusion", self.diffusion, at_most, remedy)
        warnings.warn(
            f"solver.diffusion={self.diffusion} asks for {at_most}: samples suffer. {remedy}", stacklevel=4
        )
        return variance
