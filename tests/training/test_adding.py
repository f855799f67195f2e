"""The method of docs/adding.md, outside the package: it trains, at the cost that it says, numbers and tokens alike."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dit.condition import Condition, Nothing
from dit.diffusion.masked import Linear as Masking
from dit.diffusion.masked import MaskedObjective
from dit.diffusion.objective import Objective
from dit.diffusion.paths import Linear
from dit.diffusion.targets import Velocity
from dit.diffusion.times import Uniform
from dit.diffusion.weights import Uniform as Plain
from dit.domain import Domain
from dit.network.config import DiTConfig
from dit.training.batches import Batch
from dit.training.methods import Fit
from dit.training.streams import Streams
from tests.training.test_methods import batch, module

ADDING = Path(__file__).parents[2] / "docs" / "adding.md"
OBJECTIVE = Objective(Linear(), Velocity(), Uniform(), Plain())


@pytest.fixture
def method() -> Any:
    (code,) = re.findall(
        r"```python\n(.*?)```", ADDING.read_text().split("## A method")[1].split("\n## ")[0], re.S
    )
    namespace: dict[str, Any] = {"__name__": "antithetic"}
    exec(compile(code, str(ADDING), "exec"), namespace)
    return namespace["Antithetic"]


def test_it_trains_through_the_module_as_it_is(method):
    made = module(method(OBJECTIVE, 0.1))
    found = []
    for step in range(40):
        part = made.method.parts(batch(step), Nothing(), made.streams, 1)[0]
        found.append(float(made.method.loss(made.denoiser, part).loss.mean().detach()))
        made.training_step(batch(step), 0)
    assert made.steps_done == 40 and sum(found[-8:]) < 0.9 * sum(found[:8])


def test_its_loss_is_the_mean_of_two_and_varies_less(method):
    made = module(method(OBJECTIVE, 0.1))
    part = made.method.parts(batch(0), Nothing(), Streams(0, 8), 1)[0]
    fit = Fit(OBJECTIVE, 0.1)
    one, other = (fit.loss(made.denoiser, part._replace(eps=eps)).loss for eps in (part.eps, -part.eps))
    torch.testing.assert_close(made.method.loss(made.denoiser, part).loss, (one + other) / 2)
    counts = DiTConfig(16, 1, 2, 2).count(Domain(3, (16,)), Nothing())
    cost = method.step_cost(counts)
    assert (
        replace(counts, train_macs_per_image=cost).train_flops_per_image == 2 * counts.train_flops_per_image
    )


def test_it_learns_tokens_as_well(method):
    domain = Domain(1, (12,), vocabulary=5)
    x0 = torch.randint(5, (8, 1, 12), generator=torch.Generator().manual_seed(0))
    learned = method(MaskedObjective(Masking()), 0.0)
    network = DiTConfig(16, 1, 2, 1).build(domain, Nothing())
    part = learned.parts(Batch(x0, Condition(), torch.arange(8), 0), Nothing(), Streams(0, 8), 1)[0]
    loss = learned.loss(learned.denoiser(network), part).loss
    # a network that starts silent gives every value the same odds, of hidden tokens k/L of them, weighed by 1/k
    torch.testing.assert_close(loss, torch.full((8,), 5.0).log(), rtol=1e-5, atol=0)
