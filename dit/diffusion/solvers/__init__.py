"""Solvers: from noise to data along a grid of times, one function each, all with one signature.

    solver(denoiser, x, ts, condition=NOTHING, *, noise=None, ...) -> x at ts[-1]

``x`` (B, ...) lies at time ``ts[0]``, ``ts`` (K + 1,) decreases, ``condition`` goes to the denoiser as it
is, and ``noise`` is called for every standard normal draw (B, ...) that a stochastic solver needs;
randomness lives outside. Solvers take gradients or not as the caller has it (`dit.diffusion.sampling.sample`
switches them off).

**The clean end.** A last time at which sigma is 0, or one below the path's ``t_min``, means data (alpha 1,
sigma 0): the step into it is the denoiser's data prediction, for every solver (those of the SDE have others to
choose from). On Linear and VE this *is* the Euler step, as in EDM, where Heun and DPM-Solver fall back to first
order at sigma 0; on the others Euler's would leave some noise behind. The denoiser is thus never called where
eps is undefined. A grid may also end at a noisy time; then the sample at that time is returned.

**The noise end.** Grids start at ``t_max``, where log-SNR is finite. A grid of your own may start at pure
noise (t = 1 on Linear, alpha 0) if the target says what the data is there; DPM-Solver's first step is then of
first order, the one that is finite.

**Precision.** Times and every coefficient of a step are float64 (Python floats); the state has the dtype of
``x``, float32 or float64.

Legend: B batch, K steps; a ``Level`` is one time of the grid with alpha, sigma and lam =
ln(alpha / sigma).
"""

from dit.diffusion.solvers.exponential import dpm_solver, dpmpp_2m, dpmpp_2s
from dit.diffusion.solvers.ode import dopri5, euler, heun
from dit.diffusion.solvers.sde import euler_maruyama, heun_sde
from dit.diffusion.solvers.steps import DenoiserLike, Level, NoiseSource, level, levels, velocity
from dit.diffusion.solvers.stochastic import consistency, ddim, ddpm, edm_stochastic

__all__ = [
    "DenoiserLike",
    "Level",
    "NoiseSource",
    "consistency",
    "ddim",
    "ddpm",
    "dopri5",
    "dpm_solver",
    "dpmpp_2m",
    "dpmpp_2s",
    "edm_stochastic",
    "euler",
    "euler_maruyama",
    "heun",
    "heun_sde",
    "level",
    "levels",
    "velocity",
]
