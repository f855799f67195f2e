"""What generation costs beyond the network: noise, solver, guidance, rounding; without an autoencoder's decoding.

    python benchmarks/generation_overhead.py             # a minute on one core

Latents 4x32x32, as those of 256x256 images. Expected (docs/evaluation.md): at most 3 %.
"""

import argparse
import functools
import time

import torch

from dit.condition import Classes
from dit.data.codec import Autoencoder, Codec
from dit.diffusion import grids, guidance, solvers
from dit.diffusion.denoiser import Denoiser
from dit.diffusion.paths import Linear
from dit.diffusion.targets import Velocity
from dit.domain import Domain
from dit.evaluation.generate import generate, sample_seeds
from dit.network.dit import DiT
from dit.network.presets import PRESETS


class Stopwatch:
    """The time spent inside a module, by hooks around its forward pass."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.seconds, self.calls, self._start = 0.0, 0, 0.0
        module.register_forward_pre_hook(self._begin)
        module.register_forward_hook(self._end)

    def _begin(self, *_: object) -> None:
        self._start = time.perf_counter()

    def _end(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._start
        self.calls += 1


def main() -> None:
    """Generates with one solver after another and prints the share of time outside the network."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="DiT-S/2")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    network = DiT(PRESETS[arguments.network], Domain(4, (32, 32)), Classes(1000)).eval()
    watch = Stopwatch(network)
    denoiser = guidance.ClassifierFree(Denoiser(network, Linear(), Velocity()), scale=1.5)
    codec = Codec(Autoencoder("identity", None), torch.zeros(4), torch.ones(4))
    labels, seeds = Classes(1000).drawn("balanced", 0, arguments.images), sample_seeds(0, arguments.images)
    for solver in (
        solvers.euler,
        solvers.heun,
        solvers.ddim,
        solvers.dpmpp_2m,
        solvers.dpmpp_2s,
        solvers.euler_maruyama,
    ):
        watch.seconds, watch.calls, start = 0.0, 0, time.perf_counter()
        grid = functools.partial(grids.uniform, n_steps=arguments.steps)
        for _ in generate(
            denoiser, codec, labels, seeds, solver=solver, grid=grid, batch_size=arguments.batch_size
        ):
            pass
        total = time.perf_counter() - start
        overhead = total / watch.seconds - 1
        print(f"{solver.__name__:15s} {watch.calls} calls, {total:.2f} s, {overhead:.2%} beyond the network")


if __name__ == "__main__":
    main()
