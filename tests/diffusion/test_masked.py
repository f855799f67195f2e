"""Masked tokens of distributions whose posterior is known: the bound is the entropy, samples have the distribution."""

import itertools
import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from dit.condition import NOTHING, Classes, labelled
from dit.diffusion import grids, solvers
from dit.diffusion.guidance import Autoguidance, ClassifierFree
from dit.diffusion.masked import MASKED, Cosine, Linear, Masked, MaskedObjective, Polynomial, unmask
from dit.diffusion.objective import Objective
from dit.diffusion.paths import Linear as Line
from dit.diffusion.sampling import NoiseStream, counted, rehearse, sample
from dit.diffusion.targets import Velocity
from dit.diffusion.times import Uniform
from dit.diffusion.weights import Uniform as Plain
from dit.domain import Domain
from dit.errors import InputError

SCHEDULES: dict[str, Any] = {"linear": Linear(), "cosine": Cosine(), "polynomial": Polynomial(2.0)}


class Exact(nn.Module):
    """The network that knows a distribution over all strings: its logits are the log-odds given what is not hidden.

    Args:
        p: (V, ..., V), one axis for each of L tokens.
    """

    def __init__(self, p: torch.Tensor) -> None:
        super().__init__()
        self.p, self.n_values, self.length = p, p.shape[0], p.ndim
        self.strings = torch.tensor(list(itertools.product(range(self.n_values), repeat=self.length)))
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor, t: torch.Tensor, condition) -> torch.Tensor:
        seen = x[:, 0, None]  # (B, 1, L)
        fits = ((seen == MASKED) | (seen == self.strings)).all(2).double() * self.p.flatten()  # (B, V^L)
        values = nn.functional.one_hot(self.strings, self.n_values).double()  # (V^L, L, V)
        odds = torch.einsum("bs,slv->bvl", fits, values)
        return (odds + 1e-300).log() + self.weight

    def draw(self, n: int, seed: int = 0) -> torch.Tensor:
        index = np.random.default_rng(seed).choice(len(self.strings), n, p=self.p.flatten().numpy())
        return self.strings[torch.from_numpy(index)][:, None]

    @property
    def entropy(self) -> float:
        return float(-(self.p * self.p.log()).sum())


def independent(length: int = 4) -> Exact:
    """Tokens of three values, each with odds of its own."""
    odds = torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(3), length))
    joint = odds[0]
    for one in odds[1:]:
        joint = joint[..., None] * one
    return Exact(joint)


def chain(length: int = 5) -> Exact:
    """A Markov chain of two states that stays where it is in nine of ten steps."""
    step = torch.tensor([[0.9, 0.1], [0.3, 0.7]], dtype=torch.float64)
    joint = torch.tensor([0.4, 0.6], dtype=torch.float64)
    for _ in range(length - 1):
        joint = joint[..., None] * step
    return Exact(joint)


def losses(objective: MaskedObjective, network: Exact, n: int = 10000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    x0, u = network.draw(n), torch.rand(n, generator=generator, dtype=torch.float64)
    eps = torch.randn(x0.shape, generator=generator)
    with torch.no_grad():
        return objective.loss(objective.process.denoiser(network), x0, NOTHING, u, eps).loss


@pytest.mark.parametrize("estimator", ["counts", "times"])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("make", [independent, chain])
def test_the_bound_of_the_exact_network_is_the_entropy_whatever_the_schedule(make, schedule, estimator):
    network = make()
    found = losses(MaskedObjective(SCHEDULES[schedule], estimator), network)
    error = float(found.std()) / math.sqrt(len(found))
    assert error < 0.03
    assert abs(float(found.mean()) - network.entropy / network.length) < 3 * error


@pytest.mark.parametrize("make", [independent, chain])
def test_counts_vary_less_than_times(make):
    by_counts, by_times = (
        losses(MaskedObjective(Linear(), name), make()).var() for name in ("counts", "times")
    )
    assert by_counts < by_times


def test_counts_sum_over_all_k_is_the_bound_itself():
    """With every k and every choice of k tokens once, no sampling error is left."""
    network = chain(4)
    process, total = Masked(Cosine()), 0.0
    x0, p = network.strings[:, None], network.p.flatten()
    for k in range(1, 5):
        choices = list(itertools.combinations(range(4), k))
        for hidden in choices:
            eps = torch.tensor([-1.0 if place in hidden else 1.0 for place in range(4)]).expand(x0.shape)
            t = torch.full((len(x0),), k / 4, dtype=torch.float64)
            found = process.loss_at(process.denoiser(network), x0, NOTHING, t, eps)
            assert torch.equal(
                (process.corrupt(x0, t, eps) == MASKED).flatten(1).sum(1), torch.full((len(x0),), k)
            )
            total += float((found.loss * p).sum().detach()) / len(choices) / 4
    assert total == pytest.approx(network.entropy / 4, rel=1e-6)


def test_the_validation_error_is_the_bound_by_counts():
    """At levels 2 ln((1 - t)/t) of stratified t the errors average to the entropy, whatever training estimates by."""
    network, n = chain(), 10000
    t = (torch.arange(n) + 0.5) / n
    x0, eps = network.draw(n), torch.randn(n, 1, 5, generator=torch.Generator().manual_seed(2))
    log_snr = 2 * torch.log((1 - t) / t)
    found = {}
    for estimator in ("counts", "times"):
        process = Masked(Polynomial(3.0), estimator)
        with torch.no_grad():
            found[estimator] = process.validation_error(process.denoiser(network), x0, NOTHING, log_snr, eps)
    assert torch.equal(found["counts"], found["times"]) and found["counts"].dtype == torch.float64
    error = float(found["counts"].std()) / math.sqrt(n)
    assert abs(float(found["counts"].mean()) - network.entropy / 5) < 3 * error
    assert Masked.unit == "nats per token"


def chi_square(network: Exact, found: torch.Tensor) -> float:
    place = (found.flatten(1) * network.n_values ** torch.arange(network.length - 1, -1, -1)).sum(1)
    seen = torch.bincount(place, minlength=len(network.strings)).double().numpy()
    return float(stats.chisquare(seen, len(found) * network.p.flatten().numpy()).pvalue)


@pytest.mark.parametrize(
    ("make", "order", "n_steps"),
    [
        (independent, "ancestral", 4),  # independent tokens may be drawn together
        (partial(chain, 4), "random", 4),  # one token a step
        (partial(chain, 3), "ancestral", 300),  # hardly ever two
    ],
)
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_sampler_leaves_the_distribution_of_the_exact_network(make, order, n_steps, schedule):
    network, n = make(), 3000
    masking: Any = Linear() if order == "random" else SCHEDULES[schedule]
    denoiser = Masked(masking).denoiser(network)
    stream = NoiseStream(range(n), (1, network.length))
    ts = grids.uniform(masking, n_steps)
    with torch.no_grad():
        found = unmask(denoiser, masking.start(ts[0], stream()), ts, noise=stream, order=order)
    assert not bool((found == MASKED).any())
    assert chi_square(network, found) > 1e-3
    assert chi_square(network, torch.zeros_like(found)) < 1e-3  # the test can fail


@pytest.mark.parametrize("order", ["ancestral", "random", "confidence"])
def test_a_seed_means_a_sample_and_a_step_a_call(order):
    network = chain()
    denoiser = Masked(Cosine()).denoiser(network)
    arguments = (denoiser, partial(unmask, order=order), partial(grids.uniform, n_steps=3), (1, 5))
    whole, part = sample(*arguments, range(8)), sample(*arguments, [3, 5])
    assert torch.equal(whole.x0[[3, 5]], part.x0) and whole.x0.dtype == torch.int64
    assert whole.nfe == 3


def test_grids_of_noise_levels_take_a_schedule():
    for masking in SCHEDULES.values():
        ts = grids.log_snr(masking, 5, sigma_min=0.1, sigma_max=10)
        torch.testing.assert_close(
            masking.log_snr(ts[:-1]).exp().rsqrt()[[0, -1]], torch.tensor([10, 0.1]).double()
        )
        t = torch.linspace(0.05, 0.95, 7, dtype=torch.float64, requires_grad=True)
        torch.testing.assert_close(masking.t_of_alpha(masking.alpha(t)), t)
        (slope,) = torch.autograd.grad(masking.alpha(t).sum(), t)
        torch.testing.assert_close(masking.alpha_dot(t.detach()), slope)
        ends = masking.alpha(torch.tensor([0.0, 1.0], dtype=torch.float64))
        torch.testing.assert_close(ends, torch.tensor([1.0, 0.0], dtype=torch.float64))


class Told(nn.Module):
    """Logits by class; class 2 is the null class."""

    kind = Classes(2)

    def forward(self, x, t, condition):
        rows = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0], [0.5, 0.5, 0.0]])
        return rows[condition["label"]][..., None].expand(-1, -1, x.shape[-1])


def test_guidance_adds_logits():
    """p^s / p_null^(s - 1), normalised; scale 1 is the network; a guided call counts two."""
    denoiser = Masked(Linear()).denoiser(Told())
    x, t, told = torch.full((2, 1, 4), MASKED), torch.ones(2), labelled(torch.tensor([0, 1]))
    guided = ClassifierFree(denoiser, scale=3.0)
    with counted(guided) as evaluations:
        got = guided(x, t, told).log_p
    assert evaluations.per_sample(2) == 2
    strong, weak = denoiser(x, t, told).log_p, denoiser(x, t, Told.kind.null(2)).log_p
    odds = strong.exp() ** 3 / weak.exp() ** 2
    torch.testing.assert_close(got.exp(), odds / odds.sum(1, keepdim=True))
    assert torch.equal(ClassifierFree(denoiser, scale=1.0)(x, t, told).log_p, strong)
    unlike = Masked(Linear()).denoiser(Told())
    by_weaker = Autoguidance(denoiser, unlike, scale=3.0)(x, t, told)  # a weak network that says the same
    torch.testing.assert_close(by_weaker.log_p, strong)
    off = ClassifierFree(denoiser, scale=3.0, interval=[0.0, math.inf])(
        x, t, told
    )  # at t = 1 nothing is left
    assert torch.equal(off.log_p, strong)
    with pytest.raises(InputError, match=r"guidance.channels"):
        ClassifierFree(denoiser, scale=2.0, channels=2)(x, t, told)


GAUSSIAN = Objective(Line(), Velocity(), Uniform(), Plain()).process


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Masked(Line()), "objective.masking"),  # type: ignore[arg-type]
        (lambda: Masked(Linear(), "both"), "objective.estimator"),
        (lambda: Polynomial(0.0), "objective.masking.power"),
        (lambda: Masked(Linear()).out_channels(Domain(3, (8, 8))), "objective"),
        (lambda: GAUSSIAN.out_channels(Domain(1, (8,), 5)), "objective"),
        (lambda: rehearse(Masked(Linear()), solvers.euler, partial(grids.uniform, n_steps=2)), "solver"),
        (lambda: rehearse(GAUSSIAN, unmask, partial(grids.uniform, n_steps=2)), "solver"),
        (
            lambda: rehearse(Masked(Linear()), partial(unmask, order="x"), partial(grids.uniform, n_steps=2)),
            "solver.order",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, key):
    with pytest.raises(InputError) as error:
        make()
    assert error.value.key == key
