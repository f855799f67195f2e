"""The network of docs/adding.md, outside the package: it counts itself, learns, and its own optimizer groups hold."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dit.condition import Classes, Nothing, labelled
from dit.diffusion.objective import Objective
from dit.diffusion.paths import Linear
from dit.diffusion.targets import Velocity
from dit.diffusion.times import Uniform
from dit.diffusion.weights import Uniform as EqualWeight
from dit.domain import Domain
from dit.training.optimizers import AdamW

ADDING = Path(__file__).parents[2] / "docs" / "adding.md"


@pytest.fixture(scope="module")
def mixer():
    text = ADDING.read_text().split("## A network")[1]
    (code,) = re.findall(r"```python\n(.*?)```", text.split("\n## ")[0], re.S)
    scope = {"__name__": "adding"}
    exec(compile(code, str(ADDING), "exec"), scope)
    return scope["MixerConfig"]


@pytest.mark.parametrize("kind", [Classes(2), Nothing()])
def test_it_counts_itself(mixer, kind):
    config, domain = mixer(width=8), Domain(2, (3, 4))
    network, counts = config.build(domain, kind, 4), config.count(domain, kind, 4)
    with FlopCounterMode(display=False) as counter:
        assert network(torch.randn(1, 2, 3, 4), torch.zeros(1)).shape == (1, 4, 3, 4)
    assert counter.get_total_flops() == 2 * counts.macs_per_image
    assert counts.n_params_total == sum(parameter.numel() for parameter in network.parameters())


def test_it_learns_an_objective(mixer):
    objective = Objective(Linear(), Velocity(), Uniform(), EqualWeight())
    network = mixer(width=32).build(Domain(1, (4,)), Classes(2), seed=1)
    optimizer = AdamW(lr=0.02).build(network)
    generator, losses = torch.Generator().manual_seed(0), []
    for _ in range(50):
        label = torch.randint(2, (64,), generator=generator)
        x0 = (2.0 * label - 1)[:, None, None].expand(-1, 1, 4)
        u, eps = torch.rand(64, generator=generator), torch.randn(64, 1, 4, generator=generator)
        loss = objective.loss(objective.process.denoiser(network), x0, labelled(label), u, eps).loss.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])
