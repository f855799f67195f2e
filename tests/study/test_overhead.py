"""What is priced beside training: calls of a solver and multiply-adds against counts of what runs, prices by size."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch.utils.flop_counter import FlopCounterMode

from dit.config.instantiation import config_dir, instantiate
from dit.data.autoencoder import TrainedKL
from dit.data.autoencoder_training import build_kl
from dit.diffusion.sampling import sample
from dit.evaluation.features import DigitsExtractor
from dit.study import overhead
from dit.study.overhead import Protocol, calls, forward_flops
from dit.study.price import Price
from tests.study.test_plan import plan

SOLVERS = sorted(path.stem for path in Path(config_dir(), "solver").glob("*.yaml"))


class Silent(torch.nn.Module):
    """A network that answers 0."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels

    def forward(self, x, t, condition=None):
        return torch.zeros(len(x), self.channels, *x.shape[2:])


@pytest.mark.parametrize("n_steps", [2, 7])
@pytest.mark.parametrize("name", SOLVERS)
def test_calls_are_those_that_the_sampler_counts(name, n_steps):
    with initialize_config_dir(config_dir(), version_base="1.3"):
        objective = "masked" if name == "unmask" else "rectified_flow"
        cfg = compose(
            "bench", [f"solver={name}", f"objective={objective}", "grid=uniform", f"grid.n_steps={n_steps}"]
        )
    process = instantiate(cfg.objective).process
    denoiser = process.denoiser(Silent(process.out_channels(process.simplest)))
    solver, grid = instantiate(cfg.solver), instantiate(cfg.grid)
    counted = sample(denoiser, solver, grid, process.simplest.shape, [0]).nfe
    expected = calls(cfg.solver._target_.rpartition(".")[2], n_steps, cfg.solver.get("order", 1))
    assert expected == (None if name == "dopri5" else counted)


def macs(work):
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 2


def test_autoencoders_and_extractors_have_their_counted_multiply_adds():
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    (key, (encoder, decoder)) = next(iter(overhead.TRAINED.items()))
    with torch.device("meta"):
        small = build_kl(TrainedKL(key[:-1], key[-1], 1e-3, 1e-3, 32, 10), 32)
        stable = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=4,
        )
        for network, size, costs, reduction in (
            (small, 32, (encoder, decoder), 4),
            (stable, 256, overhead.AUTOENCODERS["stabilityai/sd-vae-ft-ema"], 8),
        ):
            pictures = torch.zeros(1, 3, size, size)
            latents = torch.zeros(1, 4, size // reduction, size // reduction)
            assert macs(lambda n=network, x=pictures: n.encode(x)) == pytest.approx(
                costs[0] * size**2, rel=1e-3
            )
            assert macs(lambda n=network, z=latents: n.decode(z)) == pytest.approx(
                costs[1] * size**2, rel=1e-3
            )
    digits = DigitsExtractor()
    pictures = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    assert macs(lambda: digits.outputs(pictures)) / 2 == pytest.approx(
        overhead.EXTRACTORS["digits"], rel=1e-2
    )


def test_every_reading_validates_and_every_end_samples():
    found = plan(budgets_flops=[1e18, 1e19], widths=[448, 512, 576])
    protocols = [Protocol("read_points", 1000, 25), Protocol("end", 500, 50)]
    costs = forward_flops(found, 4096, 2, protocols, 1e9)
    readings = [(run, reading) for run in found.runs for reading in run.readings]
    forward = sum(2 * run.counts.macs_per_image for run, _ in readings)
    ends = sum(2 * run.counts.macs_per_image for run in found.runs)
    assert costs["validation"] == pytest.approx(4096 * 2 * forward)
    assert costs["sampling"] == pytest.approx(1000 * 25 * forward + 500 * 50 * ends)
    assert costs["features"] == pytest.approx(2e9 * (1000 * len(readings) + 500 * len(found.runs)))
    assert forward_flops(found, 1, 1, [Protocol("end", 2, None)], None)["sampling"] is None


def test_the_price_of_a_network_lies_between_those_of_measured_ones():
    price = Price(1e10, 2, "measured", ((1e4, 1e10), (1e6, 1e12)))
    assert price.device_hours(3.6e13, 1e5) == pytest.approx(3.6e13 / 1e11 / 3600)  # by logarithms
    assert price.device_hours(3.6e13, 1e3) == pytest.approx(1.0)
    assert price.device_hours(3.6e13) == pytest.approx(1.0)
