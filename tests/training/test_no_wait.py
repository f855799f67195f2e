"""A step hands its work to the device without waiting for any of it, and its numbers arrive one step later."""

import math
from dataclasses import replace
from pathlib import Path

import hydra
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from dit.condition import Classes
from dit.config.instantiation import config_dir
from dit.config.parts import Parts
from dit.domain import Domain
from dit.network.presets import ladder
from dit.training.averaging import Power
from dit.training.batches import Batch
from dit.training.methods import Fit
from dit.training.module import DiffusionModule
from dit.training.optimizers import AdamW, Muon
from dit.training.schedules import Constant, Rate
from dit.training.streams import Streams

NUMBERS, TOKENS = Domain(3, (8, 8)), Domain(1, (8, 8), vocabulary=17)
OBJECTIVES = sorted(path.stem for path in Path(config_dir(), "objective").glob("*.yaml"))


def test_a_fake_tensor_tells_who_waits():
    with FakeTensorMode(), pytest.raises(DataDependentOutputException):
        float(torch.randn(3).sum())


def module(name: str, optimizer: AdamW = AdamW(lr=0.01), **settings) -> DiffusionModule:  # noqa: B008 - frozen
    """A small network in training by an objective of conf/, its trainer's two services stood in for."""
    with hydra.initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = hydra.compose("train", [f"objective={name}"])
    parts = Parts(cfg)
    objective, domain = parts.objective, TOKENS if name == "masked" else NUMBERS
    told = replace(parts.settings, batch_size=4, warmup_images=0, **settings)
    made = DiffusionModule(
        Fit(objective, told.label_dropout),
        replace(ladder(16, aspect=16, head_dim=16), patch_size=1 if domain.vocabulary else 2).build(
            domain, Classes(10), objective.process.out_channels(domain)
        ),
        optimizer=optimizer,
        rate=Rate(Constant(), 1000, 0.01),
        profiles={"a": Power(0.05), "b": Power(0.1)},
        settings=told,
        streams=Streams(0, 4),
        edges=torch.linspace(-8, 8, 9),
    )
    made.configure_model()
    built = made.configure_optimizers()
    made.optimizers = lambda use_pl_optimizer=True: built
    made.manual_backward = lambda loss: loss.backward()
    return made


def batch(step: int, scale: float = 1.0, domain: Domain = NUMBERS) -> Batch:
    x0 = torch.randint(17, (4, 1, 8, 8)) if domain.vocabulary else scale * torch.randn(4, 3, 8, 8)
    return Batch(x0, Classes(10).all(0, 4), torch.arange(4), step)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_no_step_asks_for_a_value(name):
    found = module(name)
    with FakeTensorMode(allow_non_fake_inputs=True):
        found.training_step(batch(0, domain=found.network.domain), 0)
        assert found.steps_done == 1
        with pytest.raises(DataDependentOutputException):
            found.guards.settle()


def test_no_step_of_muon_asks_for_a_value():
    found = module("rectified_flow", Muon(lr=0.01))
    with FakeTensorMode(allow_non_fake_inputs=True):
        found.training_step(batch(0), 0)
    assert found.steps_done == 1


def test_numbers_are_read_a_step_later_or_when_they_are_asked_for():
    found = module("rectified_flow")
    found.training_step(batch(0), 0)
    assert found.meters.count == 0
    found.training_step(batch(1), 1)
    assert found.meters.count == 1
    found.guards.settle()
    found.guards.settle()
    assert found.meters.count == 2


@pytest.mark.parametrize("optimizer", [AdamW(lr=0.01), Muon(lr=0.01)])
def test_a_step_that_is_not_finite_moves_neither_weights_nor_optimizer(optimizer):
    found = module("rectified_flow", optimizer, on_nonfinite="skip")
    for step, scale in enumerate((1.0, 1.0, math.nan)):
        before = {name: value.clone() for name, value in found.state_tensors().items()}
        found.training_step(batch(step, scale), step)
    after = found.state_tensors()
    kept = [name for name in after if name.startswith(("network/", "optimizer/"))]
    assert len(kept) > 4 and all(torch.equal(after[name], before[name]) for name in kept)
    found.training_step(batch(3), 3)
    assert [(event["event"], event["step"]) for event in found.guards.events] == [("skipped", 3)]
    assert not torch.equal(found.state_tensors()[kept[0]], before[kept[0]])
    found.guards.settle()
    assert found.meters.count == 3 and math.isfinite(found.meters.loss)
