"""What a study computes beside training: validation, samples and their features, encoding. Imports no torch.

All of it is forward passes: FLOPs are 2 x multiply-adds.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from dit.study.planned import Plan

# Calls of the network a step; a solver takes one into the clean end, so that K steps cost 1 + (K - 1) times that.
CALLS = {"heun": 2, "heun_sde": 2, "edm_stochastic": 2, "dpmpp_2s": 2}
ADAPTIVE = ("dopri5",)
# Multiply-adds of pretrained autoencoders for one pixel (encoder, decoder), counted by torch's FlopCounterMode on
# diffusers' networks at 256x256; at 512x512 attention adds 2 %.
AUTOENCODERS = {
    "stabilityai/sd-vae-ft-ema": (2.081e6, 4.747e6),
    "stabilityai/sd-vae-ft-mse": (2.081e6, 4.747e6),
    "madebyollin/taesd": (2.333e5, 2.696e5),
}
# The same of one that is trained on the spot, by its widths and latent channels.
TRAINED: dict[tuple[int, ...], tuple[float, float]] = {(16, 16, 32, 4): (1.026e4, 2.1945e4)}
# Multiply-adds of a feature extractor for one image: Inception v3 at 299x299 (1512.00567: 5 billion; 5.7 as counted),
# ViT-L/14 at 224x224 (12 D^2 a token and layer, and attention).
EXTRACTORS = {"digits": 2.99e6, "inception": 5.7e9, "dinov2": 8.1e10, "dinov2-pil": 8.1e10}


@dataclass(frozen=True)
class Protocol:
    """How samples are drawn and measured while a run trains.

    Args:
        at: ``read_points`` (each budget) or ``end`` (of a run).
        n: samples.
        calls: of the network for one sample, guidance's too; None where a solver chooses them.
    """

    at: str
    n: int
    calls: int | None


def calls(solver: str, n_steps: int, order: int = 1) -> int | None:
    """Calls of the network for an unguided sample; None where the solver's steps adapt.

    Args:
        solver: the name of its function in ``dit.diffusion.solvers``.
        n_steps: of the grid.
        order: of DPM-Solver.
    """
    if solver in ADAPTIVE:
        return None
    each = order if solver == "dpm_solver" else CALLS.get(solver, 1)
    return each * (n_steps - 1) + 1


def forward_flops(
    plan: Plan, n_draws: int, n_weights: int, protocols: Iterable[Protocol], macs_per_sample: float | None
) -> dict[str, float | None]:
    """FLOPs of validation, of sampling, and of decoding samples and measuring their features.

    Args:
        plan: its runs are read at their budgets, branches at their end.
        n_draws: stored draws that a reading validates on.
        n_weights: the raw weights and their averages.
        protocols: of samples.
        macs_per_sample: multiply-adds of a decoder and an extractor for one sample; None where unknown.

    Returns:
        A number for each; None where it is not known.
    """
    protocols = list(protocols)
    found: dict[str, float | None] = {"validation": 0.0, "sampling": 0.0, "features": 0.0}
    for run in plan.all_runs:
        readings, forward = len(run.readings), 2 * run.counts.macs_per_image
        found["validation"] = _sum(found["validation"], readings * n_draws * n_weights * forward)
        for one in protocols:
            samples = one.n * (readings if one.at == "read_points" else 1)
            cost = None if one.calls is None else samples * one.calls * forward
            found["sampling"] = _sum(found["sampling"], cost)
            features = None if macs_per_sample is None else samples * 2 * macs_per_sample
            found["features"] = _sum(found["features"], features)
    return found


def _sum(total: float | None, more: float | None) -> float | None:
    return None if total is None or more is None else total + more
