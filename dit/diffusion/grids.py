"""Grids: decreasing times ts (K + 1,) float64 from noise to data, (path, n_steps) -> ts. A solver takes K
steps along one.

**Ends.** A grid starts at the path's ``t_max`` or, where it is spaced in noise levels, at sigma / alpha 1000
if the path goes beyond (Linear and Cosine end in pure noise; 1000 is t = 0.999 on Linear, the end that SiT
leaves out). Its last time is the clean end `data_end`, into which every solver steps by its data prediction,
so that no network is asked about t below ``t_min``. Every time but the last is one at which the network is
called. `dit.diffusion.sampling.sample` moves a start at which the target cannot be solved for the data.

Legend: K steps; s = sigma / alpha, the noise level of EDM.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dit.diffusion.paths import Discrete, Path
from dit.errors import InputError, check_number

# ln(alpha^2 / sigma^2) of sigma / alpha 1000 and 1/1000, either way: beyond lies nothing that a sample shows.
LOG_SNR_LIMIT = 2 * math.log(1000)


def data_end(path: Path) -> float:
    """The time of clean data: 0, and on a discrete path one step before its first, which carries noise."""
    return -1 / path.steps if isinstance(path, Discrete) else 0.0


def _finish(path: Path, times: Tensor) -> Tensor:
    ts = torch.cat([times.to(torch.float64), torch.tensor([data_end(path)], dtype=torch.float64)])
    if bool((ts[1:] >= ts[:-1]).any()) or float(ts[-2]) < path.t_min:
        raise InputError("grid.n_steps", len(times), f"fewer steps: {path} has no room for them")
    return ts


def _tensor(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def uniform(path: Path, n_steps: int) -> Tensor:
    """Equal steps in t from ``t_max`` to data; on a discrete path the nearest whole steps (diffusers'
    "trailing").

    Source: rectified flow, 2209.03003; "trailing" of 2305.08891, table 2.
    """
    check_number("grid.n_steps", n_steps, low=1, integer=True)
    if isinstance(path, Discrete):
        # As np.arange(T, 0, -T / K) has them, its rounding included: many K land on halves, which go to even.
        stride = path.steps - (path.steps - path.steps / n_steps)
        counted_from_1 = path.steps - stride * torch.arange(n_steps, dtype=torch.float64)
        return _finish(path, (counted_from_1.round() - 1) / path.steps)
    return _finish(path, torch.linspace(path.t_max, data_end(path), n_steps + 1, dtype=torch.float64)[:-1])


def sit(
    path: Path,
    n_steps: int,
    start: float | None = None,
    last_step_size: float | None = 0.04,
    end: float | None = None,
) -> Tensor:
    """Equal steps in t from pure noise, then one to data of a size of its own: SiT's and REPA's SDE, 249 + 1.

    Args:
        path: where x_t lies.
        n_steps: K, the last step among them. SiT's ODE of "50 steps" has 49.
        start: first time; null is pure noise where the path has it (t = 1 on Linear and Cosine), else
            ``t_max``. SiT starts from 0.999 where the target is noise or score.
        last_step_size: of the step to data; null makes it like the others.
        end: a noisy time at which the grid stops, whose sample is returned as it is; null is data. SiT's ODE
            stops at 0.001 on VP, or where the target is noise or score.

    Source: SiT, 2401.08740, appendix; REPA, 2410.06940.
    """
    check_number(
        "grid.n_steps", n_steps, low=1 if last_step_size is None or end is not None else 2, integer=True
    )
    first = path.noise_end if start is None else start
    check_number("grid.start", first, above=path.t_min, high=path.noise_end)
    if end is not None:
        if last_step_size is not None:
            raise InputError("grid.last_step_size", last_step_size, "null where grid.end is given")
        check_number("grid.end", end, low=path.t_min, below=first)
        return _whole(path, torch.linspace(first, end, n_steps + 1, dtype=torch.float64))
    last = data_end(path)
    if last_step_size is None:
        return _finish(path, _whole(path, torch.linspace(first, last, n_steps + 1, dtype=torch.float64)[:-1]))
    check_number("grid.last_step_size", last_step_size, low=path.t_min - last, below=first - last)
    times = torch.linspace(first, last + last_step_size, n_steps, dtype=torch.float64)
    return _finish(path, _whole(path, times))


def _whole(path: Path, times: Tensor) -> Tensor:
    """Times, on a discrete path the nearest whole steps."""
    return path.nearest(times) if isinstance(path, Discrete) else times


def _log_snr_ends(path: Path, sigma_min: float | None, sigma_max: float | None) -> tuple[float, float]:
    """Log-SNR at the first and at the last network call."""
    reach = [float(path.log_snr(_tensor(t))) for t in (path.t_max, path.t_min)]
    ends = [max(reach[0], -LOG_SNR_LIMIT), min(reach[1], LOG_SNR_LIMIT)]
    for i, (key, sigma) in enumerate((("grid.sigma_max", sigma_max), ("grid.sigma_min", sigma_min))):
        if sigma is not None:
            check_number(key, sigma, above=0)
            ends[i] = -2 * math.log(sigma)
            if not reach[0] - 1e-6 <= ends[i] <= reach[1] + 1e-6:
                allowed = " to ".join(f"{math.exp(-log_snr / 2):.6g}" for log_snr in reversed(reach))
                raise InputError(key, sigma, f"the path's own range, {allowed}, or null for its end")
    if not ends[0] < ends[1]:
        raise InputError("grid.sigma_min", sigma_min, f"less than sigma_max = {math.exp(-ends[0] / 2):.6g}")
    return ends[0], ends[1]


def log_snr(
    path: Path, n_steps: int, sigma_min: float | None = None, sigma_max: float | None = None
) -> Tensor:
    """Equal steps in log-SNR, then the step to data: the grid DPM-Solver is made for.

    Args:
        path: where x_t lies.
        n_steps: K >= 2.
        sigma_min: sigma / alpha at the last network call; null is the path's end, at least 1/1000.
        sigma_max: sigma / alpha at the first network call; null is the path's end, at most 1000.

    Source: DPM-Solver, 2206.00927 (uniform logSNR).
    """
    check_number("grid.n_steps", n_steps, low=2, integer=True)
    first, last = _log_snr_ends(path, sigma_min, sigma_max)
    return _finish(path, path.t_of_log_snr(torch.linspace(first, last, n_steps, dtype=torch.float64)))


def karras(
    path: Path, n_steps: int, rho: float = 7.0, sigma_min: float | None = None, sigma_max: float | None = None
) -> Tensor:
    """Equal steps in s^(1 / rho), s = sigma / alpha, then the step to data.

    Args:
        path: where x_t lies.
        n_steps: K >= 2.
        rho: 7 in EDM; 1 is equal steps in s, infinity would be `log_snr`.
        sigma_min: sigma / alpha at the last network call; null is the path's end, at least 1/1000. EDM's is
            0.002.
        sigma_max: sigma / alpha at the first; null is the path's end, at most 1000. EDM's is 80.

    Source: EDM, 2206.00364, equation 5.
    """
    check_number("grid.n_steps", n_steps, low=2, integer=True)
    check_number("grid.rho", rho, above=0)
    first, last = (math.exp(-end / 2) for end in _log_snr_ends(path, sigma_min, sigma_max))
    s = torch.linspace(first ** (1 / rho), last ** (1 / rho), n_steps, dtype=torch.float64) ** rho
    return _finish(path, path.t_of_log_snr(-2 * s.log()))


def shifted(path: Path, n_steps: int, shift: float = 3.0) -> Tensor:
    """The uniform grid with every noise level moved by one factor: log-SNR less 2 ln(shift), as larger images
    want.

    On Linear this is t -> shift t / (1 + (shift - 1) t). On a path that ends before pure noise the uniform
    times are drawn from as much of it as stays inside when shifted, so that the grid still starts at
    ``t_max``.

    Args:
        path: where x_t lies.
        n_steps: K >= 1.
        shift: sqrt(m / n) for m pixels now and n in the reference; 3 in SD3; above 1 spends more steps on
            noise.

    Source: SD3, 2403.03206, equation 23.
    """
    check_number("grid.n_steps", n_steps, low=1, integer=True)
    check_number("grid.shift", shift, above=0)
    move = 2 * math.log(shift)
    # t_of_log_snr stays within [t_min, t_max], so that a start that would leave the path is held at its end.
    start = float(path.t_of_log_snr(path.log_snr(_tensor(path.t_max)) + move))
    times = torch.linspace(start, data_end(path), n_steps + 1, dtype=torch.float64)[:-1]
    return _finish(path, path.t_of_log_snr(path.log_snr(times) - move))


def respaced(path: Path, n_steps: int | Sequence[int]) -> Tensor:
    """IDDPM's respacing: n_steps of the discrete path's steps, first and last among them, rounded to whole
    ones.

    Args:
        path: a discrete path.
        n_steps: K, or one count for each of as many equal sections of the path, from data to noise ([10, 15,
            20]).

    Raises:
        InputError: the path is not discrete, or a section has fewer steps than asked for.

    Source: iDDPM, 2102.09672, section 4 (K evenly spaced numbers between 1 and T, rounded).
    """
    if not isinstance(path, Discrete):
        raise InputError(
            "grid", "respaced", "a discrete path", f"{path} has no steps to choose from: use grid=uniform."
        )
    counts = [n_steps] if isinstance(n_steps, int) else list(n_steps)
    steps: list[int] = []
    for i, count in enumerate(counts):
        size = path.steps // len(counts) + (i < path.steps % len(counts))
        check_number("grid.n_steps", count, low=1, high=size, integer=True)
        start = i * (path.steps // len(counts)) + min(i, path.steps % len(counts))
        stride = (size - 1) / (count - 1) if count > 1 else 1.0
        steps += [start + round(stride * j) for j in range(count)]
    return _finish(path, torch.tensor(steps[::-1], dtype=torch.float64) / path.steps)
