"""Solvers: from noise to data along a grid of times, one function each, all with one signature.

    solver(denoiser, x, ts, y=None, *, noise=None, ...) -> x at ts[-1]

``x`` (B, C, H, W) lies at time ``ts[0]``, ``ts`` (K + 1,) decreases, ``y`` (B,) goes to the denoiser as it
is, and ``noise`` is called for every standard normal draw (B, C, H, W) that a stochastic solver needs;
randomness lives outside. Solvers take gradients or not as the caller has it (`dit.diffusion.sampling.sample`
switches them off).

**The clean end.** A last time at which sigma is 0, or one below the path's ``t_min``, means data (alpha 1,
sigma 0): the step into it is the denoiser's data prediction, for every solver. On Linear and VE this *is* the
Euler step, as in EDM, where Heun and DPM-Solver fall back to first order at sigma 0; on the others Euler's
would leave some noise behind. The denoiser is thus never called where eps is undefined. A grid may also end
at a noisy time; then the sample at that time is returned.

**The noise end.** Grids start at ``t_max``, where log-SNR is finite. A grid of your own may start at pure
noise (t = 1 on Linear, alpha 0) if the target says what the data is there; DPM-Solver's first step is then of
first order, the one that is finite.

**Precision.** Times and every coefficient of a step are float64 (Python floats); the state has the dtype of
``x``, float32 or float64.

Legend: B batch, C H W latent, K steps; a ``Level`` is one time of the grid with alpha, sigma and lam =
ln(alpha / sigma).
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from dit.diffusion.denoiser import Prediction
from dit.diffusion.grids import LOG_SNR_LIMIT
from dit.diffusion.paths import Path
from dit.errors import InputError, check_choice, check_number

NoiseSource = Callable[[], Tensor]


class DenoiserLike(Protocol):
    """What a solver needs: a Denoiser or anything that guides one."""

    @property
    def path(self) -> Path: ...

    def __call__(self, x_t: Tensor, t: Tensor, y: Tensor | None) -> Prediction: ...


class Level(NamedTuple):
    """One time of a grid in float64: t, alpha, sigma and lam = ln(alpha / sigma)."""

    t: float
    alpha: float
    sigma: float
    lam: float


def level(path: Path, t: float) -> Level:
    """The noise level of ``path`` at ``t``; below ``t_min`` it is clean data (alpha 1, sigma 0)."""
    if t < path.t_min:
        return Level(t, 1.0, 0.0, math.inf)
    at = torch.tensor(t, dtype=torch.float64)
    return Level(t, float(path.alpha(at)), float(path.sigma(at)), float(path.log_snr(at)) / 2)


def levels(path: Path, ts: Tensor) -> list[Level]:
    """The noise levels of a grid of times.

    Raises:
        InputError: ``ts`` is not a decreasing grid of two times or more.
    """
    times = ts.to("cpu", torch.float64).tolist()
    if len(times) < 2 or any(not late < early for early, late in pairwise(times)):
        raise InputError("grid", f"({len(times)} times)", "two or more strictly decreasing times")
    return [level(path, t) for t in times]


def _at_lam(path: Path, lam: float) -> Level:
    """The level whose ln(alpha / sigma) is ``lam``."""
    return level(path, float(path.t_of_log_snr(torch.tensor(2 * lam, dtype=torch.float64))))


def _predict(denoiser: DenoiserLike, x: Tensor, t: float, y: Tensor | None) -> Prediction:
    return denoiser(x, torch.full((x.shape[0],), t, dtype=x.dtype, device=x.device), y)


def velocity(path: Path, prediction: Prediction, t: float) -> Tensor:
    """dx/dt = alpha' x0 + sigma' eps of the probability-flow ODE, (B, C, H, W)."""
    at = torch.tensor(t, dtype=torch.float64)
    return float(path.alpha_dot(at)) * prediction.x0 + float(path.sigma_dot(at)) * prediction.eps


def _ddim_step(prediction: Prediction, end: Level) -> Tensor:
    """The first-order step: both predictions held fixed, put together again at another level."""
    if end.sigma == 0:
        return end.alpha * prediction.x0
    return end.alpha * prediction.x0 + end.sigma * prediction.eps


def _source(noise: NoiseSource | None, solver: str) -> NoiseSource:
    if noise is None:
        raise InputError("noise", None, "a callable that draws (B, C, H, W)", f"{solver} is stochastic.")
    return noise


def _forward_variance(now: Level, end: Level) -> float:
    """Var(x_t | x_s), s < t: sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2, the beta of a respaced DDPM."""
    return now.sigma**2 - (now.alpha / end.alpha) ** 2 * end.sigma**2


def euler(
    denoiser: DenoiserLike,
    x: Tensor,
    ts: Tensor,
    y: Tensor | None = None,
    *,
    noise: NoiseSource | None = None,
) -> Tensor:
    """Euler steps of the probability-flow ODE in t: order 1, one call a step.

    Source: rectified flow (2209.03003); EDM's Euler on VE (2206.00364).
    """
    for now, end in pairwise(levels(denoiser.path, ts)):
        prediction = _predict(denoiser, x, now.t, y)
        if end.sigma == 0:
            x = _ddim_step(prediction, end)
        else:
            x = x + (end.t - now.t) * velocity(denoiser.path, prediction, now.t)
    return x


def heun(
    denoiser: DenoiserLike,
    x: Tensor,
    ts: Tensor,
    y: Tensor | None = None,
    *,
    noise: NoiseSource | None = None,
) -> Tensor:
    """Heun steps (explicit trapezoid) of the probability-flow ODE in t: order 2, two calls a step but the
    last.

    Source: 2206.00364, algorithm 1.
    """
    for now, end in pairwise(levels(denoiser.path, ts)):
        x = _heun_step(denoiser, x, now, end, y)
    return x


def _heun_step(denoiser: DenoiserLike, x: Tensor, now: Level, end: Level, y: Tensor | None) -> Tensor:
    prediction = _predict(denoiser, x, now.t, y)
    if end.sigma == 0:
        return _ddim_step(prediction, end)
    slope = velocity(denoiser.path, prediction, now.t)
    guess = x + (end.t - now.t) * slope
    slope_at_end = velocity(denoiser.path, _predict(denoiser, guess, end.t, y), end.t)
    return x + (end.t - now.t) * (slope + slope_at_end) / 2


def ddim(
    denoiser: DenoiserLike,
    x: Tensor,
    ts: Tensor,
    y: Tensor | None = None,
    *,
    noise: NoiseSource | None = None,
    eta: float = 0.0,
) -> Tensor:
    """DDIM: order 1 in log-SNR, one call a step; eta 0 is deterministic, eta 1 ancestral.

    Options:
        eta: share of the ancestral noise, in [0, 1]. On any path the added variance is
            eta^2 (sigma_s / sigma_t)^2 (sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2).

    Source: 2010.02502, equations 12 and 16.
    """
    check_number("solver.eta", eta, low=0, high=1)
    for now, end in pairwise(levels(denoiser.path, ts)):
        prediction = _predict(denoiser, x, now.t, y)
        if eta == 0 or end.sigma == 0:
            x = _ddim_step(prediction, end)
            continue
        added = eta * end.sigma / now.sigma * math.sqrt(max(_forward_variance(now, end), 0.0))
        kept = math.sqrt(max(end.sigma**2 - added**2, 0.0))
        x = end.alpha * prediction.x0 + kept * prediction.eps + added * _source(noise, "ddim with eta > 0")()
    return x


def ddpm(
    denoiser: DenoiserLike,
    x: Tensor,
    ts: Tensor,
    y: Tensor | None = None,
    *,
    noise: NoiseSource | None = None,
    variance: str = "posterior",
) -> Tensor:
    """Ancestral sampling: each step draws from the Gaussian q(x_s | x_t, x0) at the predicted x0, one call a
    step.

    On a grid that skips steps this is iDDPM's respaced process. A network that learned its variance uses it,
    between the two bounds of the respaced step; the last step, to data, adds no noise.

    Options:
        variance: of a network without a learned one: posterior (beta-tilde, "fixed small") or beta ("fixed
            large").

    Source: DDPM, 2006.11239, equations 6-7; learned variance and respacing, 2102.09672, equation 15 and
    section 4.
    """
    check_choice("solver.variance", variance, ("posterior", "beta"))
    draw = _source(noise, "ddpm")
    for now, end in pairwise(levels(denoiser.path, ts)):
        prediction = _predict(denoiser, x, now.t, y)
        if end.sigma == 0:
            x = _ddim_step(prediction, end)
            continue
        beta = _forward_variance(now, end)
        posterior = beta * (end.sigma / now.sigma) ** 2
        mean = (end.alpha * beta / now.sigma**2) * prediction.x0 + (
            now.alpha / end.alpha * (end.sigma / now.sigma) ** 2
        ) * x
        if prediction.variance_fraction is not None:
            fraction = prediction.variance_fraction
            spread = torch.exp((fraction * math.log(beta) + (1 - fraction) * math.log(posterior)) / 2)
        else:
            spread = math.sqrt(beta if variance == "beta" else posterior)
        x = mean + spread * draw()
    return x


def edm_stochastic(
    denoiser: DenoiserLike,
    x: Tensor,
    ts: Tensor,
    y: Tensor | None = None,
    *,
    noise: NoiseSource | None = None,
    churn: float = 40.0,
    s_min: float = 0.05,
    s_max: float = 50.0,
    s_noise: float = 1.003,
) -> Tensor:
    """EDM's stochastic sampler: before each Heun step noise is added as if time had run back a little.

    On paths other than VE the noise level s = sigma / alpha is what rises by the factor 1 + gamma, held
    within the path.

    Options:
        churn: S_churn, the amount of noise over all steps; 0 is `heun`.
        s_min, s_max: S_tmin and S_tmax, the levels s = sigma / alpha between which noise is added.
        s_noise: S_noise, standard deviation of what is added.

    Source: 2206.00364, algorithm 2; the defaults are those for ImageNet-64 (table 5).
    """
    for name, value in (("churn", churn), ("s_min", s_min), ("s_max", s_max), ("s_noise", s_noise)):
        check_number(f"solver.{name}", value, low=0)
    grid = levels(denoiser.path, ts)
    gamma = min(churn / (len(grid) - 1), math.sqrt(2) - 1)
    for now, end in pairwise(grid):
        if gamma > 0 and s_min <= math.exp(-now.lam) <= s_max:
            back = _at_lam(denoiser.path, now.lam - math.log1p(gamma))
            if back.t > now.t:
                ratio = back.alpha / now.alpha
                added = math.sqrt(max(_forward_variance(back, now), 0.0))
                x = ratio * x + (s_noise * added) * _source(noise, "edm_stochastic with churn > 0")()
                now = back
        x = _heun_step(denoiser, x, now, end, y)
    return x


def euler_maruyama(
    denoiser: DenoiserLike,
    x: Tensor,
    ts: Tensor,
    y: Tensor | None = None,
    *,
    noise: NoiseSource | None = None,
    diffusion: str = "sigma",
) -> Tensor:
    """Euler-Maruyama steps of the reverse SDE dx = (v - w score / 2) dt + sqrt(w) dW, score = -eps / sigma.

    Every w(t) >= 0 has the same marginals; w = 0 is the ODE. Order 1/2 for paths (1 for averages), one call a
    step.

    Options:
        diffusion: w(t), one of sigma (w = sigma(t), SiT's best) and path (the forward SDE's own w = -sigma^2
            d log_snr / dt, score SDE; it has no bound where alpha goes to 0).

    Raises:
        InputError: a step is so large that its noise exceeds the level it stands at (w h > 2 sigma^2): it
            would diverge.

    Source: SiT, 2401.08740; score SDE, 2011.13456, equation 6 and appendix E.
    """
    check_choice("solver.diffusion", diffusion, ("sigma", "path"))
    path, draw = denoiser.path, _source(noise, "euler_maruyama")
    for now, end in pairwise(levels(path, ts)):
        prediction = _predict(denoiser, x, now.t, y)
        if end.sigma == 0:
            x = _ddim_step(prediction, end)
            continue
        h = now.t - end.t
        rate = -float(path.log_snr_dot(torch.tensor(now.t, dtype=torch.float64)))
        w = now.sigma if diffusion == "sigma" else now.sigma**2 * rate
        if w * h > 2 * now.sigma**2:
            raise InputError(
                "solver.diffusion",
                diffusion,
                f"a step from t = {now.t:.6g} of at most {2 * now.sigma**2 / w:.3g}, got {h:.3g}",
                "Take more steps, another grid or diffusion=sigma.",
            )
        drift = velocity(path, prediction, now.t) + (w / (2 * now.sigma)) * prediction.eps
        x = x - h * drift + math.sqrt(w * h) * draw()
    return x


def dpm_solver(
    denoiser: DenoiserLike,
    x: Tensor,
    ts: Tensor,
    y: Tensor | None = None,
    *,
    noise: NoiseSource | None = None,
    order: int = 3,
) -> Tensor:
    """DPM-Solver: exponential integrator of the ODE in lam = ln(alpha / sigma) on eps, single-step, ``order``
    calls a step.

    Steps at the two ends, where lam is infinite, are of first order (DDIM), with one call.

    Options:
        order: 1 (DDIM), 2 (r1 = 1/2) or 3 (r1 = 1/3, r2 = 2/3).

    Source: 2206.00927, equation 3.7 and algorithms 1 and 2.
    """
    check_choice("solver.order", order, (1, 2, 3))
    for now, end in pairwise(levels(denoiser.path, ts)):
        prediction = _predict(denoiser, x, now.t, y)
        x = _ddim_step(prediction, end)
        if order == 1 or math.isinf(end.lam - now.lam):
            continue
        h = end.lam - now.lam
        inner = _at_lam(denoiser.path, now.lam + h / order)
        r1 = (inner.lam - now.lam) / h  # what the path's inverse reached, 1 / order to rounding
        first = _predict(denoiser, _ddim_step(prediction, inner), inner.t, y).eps - prediction.eps
        if order == 2:
            x = x - end.sigma * math.expm1(h) / (2 * r1) * first
            continue
        outer = _at_lam(denoiser.path, now.lam + 2 * h / 3)
        r2 = (outer.lam - now.lam) / h
        guess = _ddim_step(prediction, outer) - outer.sigma * (r2 / r1) * _phi(r2 * h) * first
        second = _predict(denoiser, guess, outer.t, y).eps - prediction.eps
        x = x - end.sigma / r2 * _phi(h) * second
    return x


def _phi(h: float) -> float:
    """(e^h - 1) / h - 1."""
    return math.expm1(h) / h - 1


def dpmpp_2s(
    denoiser: DenoiserLike,
    x: Tensor,
    ts: Tensor,
    y: Tensor | None = None,
    *,
    noise: NoiseSource | None = None,
) -> Tensor:
    """DPM-Solver++(2S): exponential integrator on x0, single-step with a midpoint in lam; order 2, two calls
    a step.

    Source: 2211.01095, algorithm 1 with r = 1/2.
    """
    for now, end in pairwise(levels(denoiser.path, ts)):
        prediction = _predict(denoiser, x, now.t, y)
        if math.isinf(end.lam - now.lam):
            x = _ddim_step(prediction, end)
            continue
        inner = _at_lam(denoiser.path, (now.lam + end.lam) / 2)
        r = (inner.lam - now.lam) / (end.lam - now.lam)
        x0_inner = _predict(denoiser, _ddim_step(prediction, inner), inner.t, y).x0
        x = _data_step(x, prediction.x0 + (x0_inner - prediction.x0) / (2 * r), now, end)
    return x


def dpmpp_2m(
    denoiser: DenoiserLike,
    x: Tensor,
    ts: Tensor,
    y: Tensor | None = None,
    *,
    noise: NoiseSource | None = None,
) -> Tensor:
    """DPM-Solver++(2M): exponential integrator on x0, extrapolated from the step before; order 2, one call a
    step.

    Source: 2211.01095, algorithm 2.
    """
    grid = levels(denoiser.path, ts)
    previous: Tensor | None = None
    h_previous = math.inf
    for now, end in pairwise(grid):
        x0 = _predict(denoiser, x, now.t, y).x0
        h = end.lam - now.lam
        extrapolated = x0
        if previous is not None and math.isfinite(h) and math.isfinite(h_previous):
            extrapolated = x0 + h / (2 * h_previous) * (x0 - previous)
        x = _data_step(x, extrapolated, now, end)
        previous, h_previous = x0, h
    return x


def _data_step(x: Tensor, x0: Tensor, now: Level, end: Level) -> Tensor:
    """The exponential step in lam with the data held fixed: (sigma_s / sigma_t) x - alpha_s (e^-h - 1) x0."""
    if end.sigma == 0:
        return end.alpha * x0
    return (end.sigma / now.sigma) * x - end.alpha * math.expm1(now.lam - end.lam) * x0


def dopri5(
    denoiser: DenoiserLike,
    x: Tensor,
    ts: Tensor,
    y: Tensor | None = None,
    *,
    noise: NoiseSource | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Tensor:
    """Adaptive Dormand-Prince 5(4) of the probability-flow ODE in t, from the first time of ``ts`` to its
    last.

    The times between are not used. Towards data it integrates to sigma / alpha 1/1000, or to ``t_min`` if
    that is noisier, and ends with the data prediction. Step sizes are chosen for the batch as a whole: a
    sample agrees between batch sizes to the tolerance only.

    Options:
        rtol, atol: relative and absolute tolerance of a step.

    Raises:
        InputError: torchdiffeq is not installed.

    Source: Dormand and Prince (1980), as torchdiffeq has it; used by score SDE (2011.13456) and SiT
    (2401.08740).
    """
    check_number("solver.rtol", rtol, above=0)
    check_number("solver.atol", atol, above=0)
    try:
        from torchdiffeq import odeint
    except ImportError:
        raise InputError(
            "solver",
            "dopri5",
            "a solver that is installed",
            "Install the extra: pip install 'dit-scaling[ode]'.",
        ) from None
    grid = levels(denoiser.path, ts)
    start, end = grid[0], grid[-1]
    stop = _at_lam(denoiser.path, LOG_SNR_LIMIT / 2) if end.sigma == 0 else end
    if start.t > stop.t:
        times = torch.tensor([start.t, stop.t], dtype=torch.float64, device=x.device)

        def slope(t: Tensor, state: Tensor) -> Tensor:
            at = min(max(float(t), stop.t), start.t)  # the probe for the first step may look past the end
            return velocity(denoiser.path, _predict(denoiser, state, at, y), at)

        # Without step_t torchdiffeq 0.2 steps past the last time, where the path may end, and interpolates.
        options = {"step_t": times[1:]}
        trajectory = odeint(slope, x, times, rtol=rtol, atol=atol, method="dopri5", options=options)
        assert isinstance(trajectory, Tensor)
        x = trajectory[-1]
    return _predict(denoiser, x, stop.t, y).x0 if end.sigma == 0 else x
