"""Averages of any width, made after training from the stored averages of one or two widths.

A power-function average of exponent gamma at clock T weighs the weights at clock t by p(t) = (gamma + 1)/T (t/T)^gamma,
0 <= t <= T. Snapshots of such averages are a basis of profiles; the profile that is asked for is approached in it by
least squares, and the same combination of the snapshots' tensors is its average.

Source: Karras et al. 2024, arXiv 2312.02696, section 3.2 and appendix C. Where we differ: the coefficients are made to
add up to exactly 1, as every profile's weights do, so that weights that stand still (gains, most of a bias) are
reproduced exactly; with few snapshots the plain least squares misses them by per cents.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from dit.errors import InputError
from dit.training.averaging import Power, Profile
from dit.training.checkpoint import Checkpoint

# A larger error of the profile means that it is another one: too few snapshots, or too far from the clock asked for.
LARGEST_ERROR = 0.3


class Snapshot(NamedTuple):
    """The profile of one stored average: its clock and its exponent."""

    images_seen: int
    gamma: float


class Synthesis(NamedTuple):
    """An average made from others.

    Attributes:
        tensors: parameter name -> its average, float32.
        error: how far its profile is from the one asked for: L2 norm of the difference over that of the profile.
    """

    tensors: dict[str, Tensor]
    error: float


def synthesize(
    checkpoints: Iterable[Checkpoint],
    profiles: Mapping[str, Profile],
    parameters: Iterable[str],
    sigma_rel: float,
    images_seen: int,
) -> Synthesis:
    """The power-function average of width ``sigma_rel`` at clock ``images_seen``, from the checkpoints up to there.

    Adds up in float64, and reads one tensor at a time.

    Args:
        checkpoints: of one run.
        profiles: the averages that the run followed, by name; those that are ``Power`` are used.
        parameters: names of the network's parameters.
        sigma_rel: width of the average, in (0, .28).
        images_seen: clock at which it ends.

    Raises:
        InputError: no width of a power-function average, nothing to make one from, or too little to come near it.
    """
    target = Snapshot(images_seen, Power(sigma_rel).gamma)
    powers = {name: profile.gamma for name, profile in profiles.items() if isinstance(profile, Power)}
    stored = [
        (Snapshot(checkpoint.images_seen, gamma), checkpoint, name)
        for checkpoint in checkpoints
        if 0 < checkpoint.images_seen <= images_seen
        for name, gamma in powers.items()
    ]
    if not stored:
        raise InputError(
            "averages",
            f"(no snapshots of a power-function average up to {images_seen} images)",
            "a run with averages=power or averages=post_hoc and a kept checkpoint",
        )
    factors, error = coefficients([snapshot for snapshot, _, _ in stored], target)
    if error > LARGEST_ERROR:
        clocks = sorted({snapshot.images_seen for snapshot, _, _ in stored})
        raise InputError(
            "sigma_rel",
            sigma_rel,
            f"a width that the snapshots at {clocks} images come within {LARGEST_ERROR:.0%} of at {images_seen} images",
            f"They miss it by {error:.0%}: ask for a width near {', '.join(powers)}, or keep more checkpoints.",
        )
    names = list(parameters)
    sums: dict[str, Tensor] = {}
    for factor, (_, checkpoint, profile) in zip(factors, stored, strict=True):
        tensors = checkpoint.tensors()
        for name in names:
            term = factor * tensors[f"average/{profile}/{name}"].double()
            sums[name] = sums[name].add_(term) if name in sums else term
    return Synthesis({name: value.float() for name, value in sums.items()}, error)


def coefficients(snapshots: Sequence[Snapshot], target: Snapshot) -> tuple[list[float], float]:
    """The combination of snapshots, adding up to 1, whose profile is nearest to the target's; and its error.

    Least squares under one condition: the normal equations bordered by a Lagrange multiplier, on profiles of unit norm.
    """
    gram = np.array([[_product(one, other) for other in snapshots] for one in snapshots])
    right = np.array([_product(one, target) for one in snapshots])
    scale = 1 / np.sqrt(np.diag(gram))
    n = len(snapshots)
    system = np.zeros((n + 1, n + 1))
    system[:n, :n] = gram * np.outer(scale, scale)
    system[:n, n] = system[n, :n] = scale
    # lstsq, not solve: the profiles of near snapshots are almost the same, and the same ones may be given twice
    found = scale * np.linalg.lstsq(system, np.append(scale * right, 1.0), rcond=None)[0][:n]
    norm = _product(target, target)
    squared_error = norm - 2 * found @ right + found @ gram @ found
    return found.tolist(), float(np.sqrt(max(squared_error, 0.0) / norm))


def _product(one: Snapshot, other: Snapshot) -> float:
    """The integral of the product of two profiles over time (2312.02696, appendix C.2)."""
    early, late = sorted((one, other))
    ratio = early.images_seen / late.images_seen
    exponents = (early.gamma + 1) * (late.gamma + 1) / (early.gamma + late.gamma + 1)
    return exponents * ratio**late.gamma / late.images_seen
