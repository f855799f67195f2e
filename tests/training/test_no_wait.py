"""A step's forward, loss, backward, meters and averages hand work to the device without waiting for its results."""

from pathlib import Path

import hydra
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from dit.network.dit import DiT
from dit.network.presets import ladder
from dit.training.averaging import Averages, Power
from dit.training.watching import bin_totals
from dit.verbs.app import config_dir, instantiate

OBJECTIVES = sorted(path.stem for path in Path(config_dir(), "objective").glob("*.yaml"))


def test_a_fake_tensor_tells_who_waits():
    with FakeTensorMode(), pytest.raises(DataDependentOutputException):
        float(torch.randn(3).sum())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_nothing_asks_for_a_value(name):
    with hydra.initialize_config_dir(config_dir(), version_base="1.3"):
        objective = instantiate(hydra.compose("train", [f"objective={name}"]).objective)
    network = DiT(ladder(16, aspect=16, head_dim=16), (3, 8, 8), 10, objective.out_channels(3))
    denoiser, averages = objective.denoiser(network), Averages(network, {"a": Power(0.05), "b": Power(0.1)})
    with FakeTensorMode(allow_non_fake_inputs=True):
        x0, eps, u = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8), torch.rand(4)
        found = objective.loss(denoiser, x0, torch.zeros(4, dtype=torch.int64), u, eps)
        found.loss.mean().backward()
        bin_totals(found.loss, found.log_snr, torch.linspace(-8, 8, 9))
        averages.update(2, 4)
