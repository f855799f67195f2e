"""Consistency training on Gaussian data, whose consistency function is known; its mapping, its cost, its sampler."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dit.condition import NOTHING, Classes, Nothing, labelled
from dit.diffusion import grids, solvers
from dit.diffusion.masked import Linear as Masking
from dit.diffusion.masked import MaskedObjective
from dit.diffusion.objective import Objective
from dit.diffusion.paths import VE, Discrete, Linear
from dit.diffusion.sampling import sample
from dit.diffusion.targets import Data, Karras, Noise, Velocity
from dit.diffusion.times import LogNormalSigma, Uniform
from dit.diffusion.weights import Uniform as Plain
from dit.domain import Domain
from dit.errors import InputError
from dit.network.config import DiTConfig
from dit.training.batches import Batch
from dit.training.methods import Consistency, Fit
from dit.training.methods.consistency import Part
from dit.training.streams import Streams

SPREAD = 0.5  # standard deviation of the data
ECT = Objective(VE(), Karras(SPREAD), LogNormalSigma(-1.1, 2.0), Plain())


class Exact(nn.Module):
    """The network whose data prediction on VE is slope x s0 / sqrt(s0^2 + t^2), at slope 1 the consistency function."""

    def __init__(self, slope: float = 1.0) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope, dtype=torch.float64))

    def forward(self, x: Tensor, shown: Tensor, condition: Any) -> Tensor:
        t = torch.exp(4 * shown).reshape(
            -1, *[1] * (x.ndim - 1)
        )  # VE shows ln(t)/4; x is x_t / r, r^2 = s0^2 + t^2
        r = torch.sqrt(t**2 + SPREAD**2)
        f = self.slope * x * SPREAD
        return (f - SPREAD**2 / r * x) / (SPREAD * t / r)  # D = c_skip x_t + c_out F


def part(gap: float, n: int = 20000) -> Part:
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, n, 2, generator=generator, dtype=torch.float64)
    return Part(SPREAD * x0, NOTHING, (torch.arange(n).double() + 0.5) / n, eps, gap)


def test_the_mapping_of_times_is_ects():
    """r/t = 1 - q^-ceil(i/d) (1 + k sigmoid(-b t)), at least 0: by the formula of the paper, examples as the clock."""
    method = Consistency(ECT, 0.1, doubling_examples=1000)
    t = torch.tensor([0.01, 0.5, 3.0, 40.0], dtype=torch.float64)
    streams = Streams(0, 100)
    batch = Batch(torch.zeros(100, 2), labelled(torch.zeros(100, dtype=torch.int64)), torch.arange(100), 0)
    for step, a in ((0, 0), (1, 1), (10, 1), (11, 2), (45, 5)):
        gap = method.parts(batch._replace(step=step), Classes(3), streams, 1)[0].gap
        wanted = [max(0.0, 1 - 2.0**-a * (1 + 8 / (1 + math.exp(one)))) * one for one in t.tolist()]
        wanted = [one if one > 0.002 else 0.0 for one in wanted]  # cleaner than the path
        torch.testing.assert_close(method.earlier(t, gap).tolist(), wanted, rtol=1e-12, atol=0)


def test_at_the_exact_function_two_points_of_one_trajectory_agree():
    """Along the probability flow of N(0, s0^2) x_t grows as sqrt(s0^2 + t^2); f of all is the point at time 0."""
    denoiser = ECT.process.denoiser(Exact())
    start = torch.randn(64, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for t in (0.01, 0.3, 2.0, 50.0):
        x_t = start * math.sqrt(SPREAD**2 + t**2) / SPREAD
        found = denoiser(x_t, torch.full((64,), t, dtype=torch.float64)).x0
        torch.testing.assert_close(found, start, rtol=1e-9, atol=1e-12)


def test_the_exact_function_is_where_the_gradient_vanishes_as_the_times_meet():
    """The mean gradient by the slope of f is there smaller by the gap, and far from there it is not."""
    found = {}
    for slope in (0.8, 1.0, 1.2):
        network = Exact(slope)
        method = Consistency(ECT, 0.0, k=0.0, huber=None)
        loss = method.loss(method.denoiser(network), part(2.0**-8)).loss.mean()
        (found[slope],) = torch.autograd.grad(loss, network.slope)
    assert found[0.8] < 0 < found[1.2]
    assert abs(found[1.0]) < 0.05 * min(-found[0.8], found[1.2])


def test_the_loss_of_data_in_one_point_is_zero_for_the_constant():
    """Where all data are 0, f = 0 is the consistency function: every distance is 0."""
    method = Consistency(ECT, 0.0)
    zero = part(0.25)._replace(x0=torch.zeros(20000, 2, dtype=torch.float64))
    found = method.loss(method.denoiser(Exact(0.0)), zero)
    torch.testing.assert_close(found.loss, torch.zeros_like(found.loss))


@pytest.mark.parametrize("huber", [None, 0.01])
def test_the_gradient_is_that_of_finite_differences_with_the_target_held(huber):
    method = Consistency(ECT, 0.0, huber=huber)
    given, network = part(0.25, 200), Exact(0.9)
    early = method.denoiser(Exact(0.9))

    class Held(nn.Module):
        """f with one slope where gradients are stopped and another where they are not."""

        def __init__(self, late: nn.Module) -> None:
            super().__init__()
            self.late = late

        def forward(self, x, t, condition):
            return (self.late if torch.is_grad_enabled() else early)(x, t, condition)

    (got,) = torch.autograd.grad(method.loss(method.denoiser(network), given).loss.mean(), network.slope)
    h, ends = 1e-5, []
    for slope in (0.9 + h, 0.9 - h):
        ends.append(float(method.loss(Held(method.denoiser(Exact(slope))), given).loss.mean().detach()))
    torch.testing.assert_close(float(got), (ends[0] - ends[1]) / (2 * h), rtol=1e-6, atol=0)


def test_with_the_whole_gap_it_is_the_error_of_the_data_itself():
    """At the first step r is 0: d(f, x0)/t."""
    method, given = Consistency(ECT, 0.0, huber=None), part(1.0, 50)
    found = method.loss(method.denoiser(Exact(0.7)), given)
    t = found.t[:, None]
    f = 0.7 * (given.x0 + t * given.eps) * SPREAD / torch.sqrt(SPREAD**2 + t**2)
    torch.testing.assert_close(found.loss, (f - given.x0).square().mean(1) / found.t, rtol=1e-6, atol=0)


@pytest.mark.parametrize("n_steps", [1, 2])
def test_samples_of_the_exact_function_are_the_data(n_steps):
    grid = partial(grids.uniform, n_steps=1)
    if n_steps == 2:
        grid = partial(grids.karras, n_steps=2, sigma_min=0.8)
    denoiser = ECT.process.denoiser(Exact())
    found = sample(denoiser, solvers.consistency, grid, (4,), range(2000), dtype=torch.float64)
    assert found.nfe == n_steps
    assert abs(float(found.x0.mean())) < 4 * SPREAD / math.sqrt(8000)
    assert abs(float(found.x0.std()) / SPREAD - 1) < 4 / math.sqrt(2 * 8000)


def test_a_real_step_costs_what_is_counted():
    """Forward of both times and backward of one: 4 passes; torch's counter sees them but for the input's gradient."""
    domain, n = Domain(4, (16, 16)), 2
    config, kind = DiTConfig(64, 4, 4, 2), Nothing()
    network, counts = config.build(domain, kind), config.count(domain, kind)
    objective = Objective(Linear(), Velocity(), Uniform(), Plain())
    batch = Batch(torch.randn(n, *domain.shape), NOTHING, torch.arange(n), 3)
    methods: list[tuple[Any, int]] = [(Consistency(objective, 0.1), 4), (Fit(objective, 0.1), 3)]
    for method, passes in methods:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            given = method.parts(batch, kind, Streams(0, n), 1)[0]
            method.loss(method.denoiser(network), given).loss.mean().backward()
        assert method.step_cost(counts) == passes * counts.macs_per_image
        assert counter.get_total_flops() / n == pytest.approx(2 * method.step_cost(counts), rel=0.01)
        trained = replace(counts, train_macs_per_image=method.step_cost(counts))
        assert trained.train_flops_per_image == 2 * passes * counts.macs_per_image


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Consistency(Objective(Linear(), Data(), Uniform(), Plain()), 0.1), "objective.target"),
        (lambda: Consistency(Objective(Discrete(), Noise(), Uniform(), Plain(), True), 0.1), "method"),
        (lambda: Consistency(MaskedObjective(Masking()), 0.1), "method"),
        (lambda: Consistency(ECT, 0.1, doubling_examples=0), "method.doubling_examples"),
        (lambda: Consistency(ECT, 0.1, q=1.0), "method.q"),
        (lambda: Consistency(ECT, 0.1, huber=0.0), "method.huber"),
    ],
)
def test_what_it_cannot_learn_is_refused(make, key):
    with pytest.raises(InputError) as error:
        make()
    assert error.value.key == key
