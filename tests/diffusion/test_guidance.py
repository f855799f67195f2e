import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from dit.condition import NOTHING, Classes, Condition, Nothing, labelled
from dit.diffusion import grids, solvers
from dit.diffusion.denoiser import Denoiser, Prediction
from dit.diffusion.guidance import Autoguidance, Classifier, ClassifierFree, NegativeClass, unguided
from dit.diffusion.paths import VE, VP, Cosine, Discrete, Linear, per_sample
from dit.diffusion.sampling import counted, sample
from dit.diffusion.targets import Karras, Noise, Velocity
from dit.domain import Domain
from dit.errors import InputError
from dit.network.config import DiTConfig
from dit.network.dit import DiT
from tests.diffusion.values import PATHS, TARGETS, Stub, draw, inner_times

SHAPE = (4, 4, 3, 3)
X, T, Y = (
    draw(SHAPE, 1),
    torch.tensor([0.2, 0.4, 0.6, 0.8], dtype=torch.float64),
    labelled(torch.tensor([0, 3, 5, 9])),
)
NULL = Classes(10).null(4)


class Network(Stub):
    """With the kind of its condition, as the transformer has it."""

    kind = Classes(10)


def denoiser_of(path=None, target=None, **options) -> Denoiser:
    return Denoiser(Network(**options), path or Linear(), target or Velocity(), "channels_factor" in options)


def times_of(path) -> Tensor:
    return inner_times(path)[[20, 40, 60, 80]]


def evaluations(guided: nn.Module, t: Tensor = T) -> int:
    with counted(guided) as count:
        guided(X, t, Y)
    return count.total // len(X)


def weak_of(denoiser: Denoiser) -> Denoiser:
    network = Network()
    network.gain.data *= 0.8
    return Denoiser(network, denoiser.path, denoiser.target)


def equal(a: Prediction, b: Prediction) -> bool:
    return all((u is None and v is None) or torch.equal(u, v) for u, v in zip(a, b))


ALL = {
    "classifier_free": ClassifierFree,
    "classifier_free_3": partial(ClassifierFree, channels=3),
    "negative_class": partial(NegativeClass, negative_class=2),
    "autoguidance": lambda denoiser, **options: Autoguidance(denoiser, weak_of(denoiser), **options),
}


@pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_scale_1_is_the_denoiser_itself_bit_for_bit_with_one_evaluation(make, path):
    denoiser, t = denoiser_of(path), times_of(path)
    guided = make(denoiser, scale=1)
    assert equal(guided(X, t, Y), denoiser(X, t, Y))
    assert evaluations(guided, t) == 1
    assert evaluations(make(denoiser, scale=1.5), t) == 2


@pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())
def test_outside_the_interval_it_is_the_denoiser_itself(make):
    denoiser = denoiser_of()
    low = float(denoiser.path.log_snr(T[1:2])) + 1e-3  # on for the first sample only
    guided = make(denoiser, scale=2.0, interval=[low, math.inf])
    whole, plain, on = guided(X, T, Y), denoiser(X, T, Y), make(denoiser, scale=2.0)(X, T, Y)
    torch.testing.assert_close(whole.x0[:1], on.x0[:1])
    assert torch.equal(whole.x0[1:], plain.x0[1:]) and torch.equal(whole.eps[1:], plain.eps[1:])
    assert evaluations(guided) == 2
    assert evaluations(guided, T[1:].repeat(2)[:4]) == 1


@pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())
def test_both_ends_of_the_interval_belong_to_it(make):
    denoiser = denoiser_of()
    here = float(denoiser.path.log_snr(T[0]))
    at = T[:1].expand(4)
    assert evaluations(make(denoiser, scale=2.0, interval=[here, here + 1]), at) == 2
    assert evaluations(make(denoiser, scale=2.0, interval=[here - 1, here]), at) == 2
    assert evaluations(make(denoiser, scale=2.0, interval=[here + 1e-3, math.inf]), at) == 1


INTERVAL_GRIDS = {
    "uniform": partial(grids.uniform, n_steps=50),
    "log_snr": partial(grids.log_snr, n_steps=50),
    "karras": partial(grids.karras, n_steps=50),
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
@pytest.mark.parametrize("grid", INTERVAL_GRIDS.values(), ids=INTERVAL_GRIDS.keys())
@pytest.mark.parametrize("decimals", [16, 4])
def test_an_interval_between_two_times_of_the_grid_guides_both(path, grid, decimals):
    """Steps 11 to 40 of 50 are 30 steps, though float32 puts a time on either side of the interval's end."""
    try:
        ts = grid(path)
    except InputError:
        pytest.skip("the path has fewer steps")
    low, high = (round(float(path.log_snr(ts[k])), decimals) for k in (10, 39))
    guided = ClassifierFree(denoiser_of(path).float(), 1.5, interval=[low, high])
    on = guided.is_on(ts[:-1].to(torch.float32)).tolist()
    assert on == [10 <= k <= 39 for k in range(50)]


def test_times_of_an_interval_are_those_of_whoever_counts_from_pure_noise():
    """t in [0.3, 0.7] is 21 of 50 steps, also on the grid that stops 1e-5 before 1."""
    interval = [2 * math.log(0.3 / 0.7), 2 * math.log(0.7 / 0.3)]
    guided = ClassifierFree(denoiser_of().float(), 1.5, interval=interval)
    for ts in (grids.uniform(Linear(), 50), torch.linspace(1, 0, 51)):
        assert int(guided.is_on(ts[:-1].float()).sum()) == 21
    everywhere = ClassifierFree(denoiser_of(), 1.5, interval=[-math.inf, 50.0])
    assert everywhere.is_on(torch.tensor([1.0, Linear().t_max])).all()


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
def test_guiding_data_and_noise_is_guiding_the_output(path, target):
    """2207.12598, equation 6, on the network's output: F_null + scale (F - F_null)."""
    denoiser, t = denoiser_of(path, target), times_of(path)
    strong, weak = denoiser(X, t, Y).output, denoiser(X, t, NULL).output
    expected = weak + 2.5 * (strong - weak)
    got = ClassifierFree(denoiser, 2.5)(X, t, Y)
    x0, eps = target.decode(path, t, X, expected)
    torch.testing.assert_close(got.output, expected, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(got.x0, x0, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(got.eps, eps, rtol=1e-8, atol=1e-8)


def test_three_channels_are_guided_as_in_the_released_numbers_of_dit():
    """The first three channels of eps are guided, the fourth and the variance are those of the class."""
    path = Discrete()
    denoiser, t = denoiser_of(path, Noise(), channels_factor=2), times_of(path)
    shown = path.time_shown(t)
    strong, weak = denoiser.network(X, shown, Y), denoiser.network(X, shown, NULL)
    eps = torch.cat([weak[:, :3] + 1.5 * (strong[:, :3] - weak[:, :3]), strong[:, 3:4]], 1)
    got = ClassifierFree(denoiser, 1.5, channels=3)(X, t, Y)
    torch.testing.assert_close(got.eps, eps)
    torch.testing.assert_close(got.variance_fraction, (strong[:, 4:] + 1) / 2)
    torch.testing.assert_close(got.output, eps)


@pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())
def test_data_and_noise_still_make_the_sample(make):
    denoiser = denoiser_of(Cosine())
    got = make(denoiser, scale=3.0)(X, T, Y)
    alpha, sigma = (per_sample(c, X) for c in (Cosine().alpha(T), Cosine().sigma(T)))
    torch.testing.assert_close(alpha * got.x0 + sigma * got.eps, X)


def test_scale_0_is_the_weak_one():
    denoiser = denoiser_of()
    torch.testing.assert_close(ClassifierFree(denoiser, 0)(X, T, Y).x0, denoiser(X, T, NULL).x0)
    negative = NegativeClass(denoiser, 0, negative_class=2)(X, T, Y)
    torch.testing.assert_close(negative.x0, denoiser(X, T, Classes(10).all(2, 4)).x0)
    weak = weak_of(denoiser)
    torch.testing.assert_close(Autoguidance(denoiser, weak, 0)(X, T, Y).x0, weak(X, T, Y).x0)


def test_the_null_condition_is_the_networks():
    denoiser = denoiser_of()
    null = NegativeClass(denoiser, negative_class=10)
    assert equal(ClassifierFree(denoiser)(X, T, Y), null(X, T, Y))
    denoiser.network.kind = Nothing()
    for told_nothing in (denoiser, Denoiser(Stub(), Linear(), Velocity())):
        for guided in (ClassifierFree, NegativeClass):
            with pytest.raises(InputError, match=r"guidance: .*a condition to guide away from"):
                guided(told_nothing)


def test_autoguidance_takes_two_targets_on_one_path():
    strong = denoiser_of(VE(), Karras())
    weak = Denoiser(Network(), VE(), Noise())
    got = Autoguidance(strong, weak, 2.0)(X, T, Y)
    a, b = strong(X, T, Y), weak(X, T, Y)
    torch.testing.assert_close(got.x0, b.x0 + 2 * (a.x0 - b.x0))
    torch.testing.assert_close(Karras().decode(VE(), T, X, got.output)[0], got.x0)
    with pytest.raises(InputError, match=r"guidance.weak.*VE"):
        Autoguidance(strong, denoiser_of(Linear()), 2.0)


@pytest.mark.parametrize("kind", [Classes(0), Classes(4), Classes(12), Nothing()], ids=str)
def test_autoguidance_shows_a_network_of_other_classes_its_null_class(kind):
    """EDM2 (2312.02696) guides class-conditional networks by smaller unconditional ones."""
    config = DiTConfig(16, 1, 2, 1)
    strong = Denoiser(DiT(config, Domain.of(SHAPE[1:]), Classes(10)).double(), Linear(), Velocity())
    weak = Denoiser(DiT(config, Domain.of(SHAPE[1:]), kind, seed=1).double(), Linear(), Velocity())
    for part in (*strong.parameters(), *weak.parameters()):
        part.data += 0.1 * torch.randn(part.shape, generator=torch.Generator().manual_seed(0))
    got = Autoguidance(strong, weak, 3.0)(X, T, Y)
    a, b = strong(X, T, Y), weak(X, T)
    torch.testing.assert_close(got.x0, b.x0 + 3 * (a.x0 - b.x0))
    inside = Autoguidance(ClassifierFree(strong, 2.0), weak, 3.0)(X, T, Y)
    torch.testing.assert_close(inside.x0, b.x0 + 3 * (ClassifierFree(strong, 2.0)(X, T, Y).x0 - b.x0))


class TwoClusters(Denoiser):
    """Exact denoiser of two clusters, N(-2, 0.5^2) and N(2, 0.5^2) in every dimension, or of one alone."""

    spread, centre = 0.5, 2.0

    def __init__(self, path) -> None:
        super().__init__(nn.Identity(), path, Velocity())

    def logits(self, x_t: Tensor, t: Tensor) -> Tensor:
        alpha, variance = self.path.alpha(t), self.variance(t)
        distances = [
            ((x_t - per_sample(alpha, x_t) * sign * self.centre) ** 2).flatten(1).sum(1) for sign in (-1, 1)
        ]
        return -torch.stack(distances, 1) / (2 * variance[:, None])

    def variance(self, t: Tensor) -> Tensor:
        return (self.path.alpha(t) * self.spread) ** 2 + self.path.sigma(t) ** 2

    def of_classes(self, x_t: Tensor, t: Tensor, shares: Tensor) -> Prediction:
        alpha, sigma, variance = (
            per_sample(c, x_t) for c in (self.path.alpha(t), self.path.sigma(t), self.variance(t))
        )
        x0 = torch.zeros_like(x_t)
        for share, sign in zip(shares.unbind(1), (-1, 1)):
            mean = sign * self.centre
            x0 = x0 + per_sample(share, x_t) * (
                mean + alpha * self.spread**2 / variance * (x_t - alpha * mean)
            )
        eps = (x_t - alpha * x0) / sigma
        return Prediction(x0, eps, self.target.encode(self.path, t, x0, eps))

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = NOTHING) -> Prediction:
        return self.of_classes(x_t, t, self.logits(x_t, t).softmax(1))


@pytest.mark.parametrize("path", [Linear(), Cosine(), VP(), VE()])
def test_classifier_guidance_is_bayes_rule(path):
    """An exact classifier turns the exact denoiser of all data into that of one class."""
    denoiser, y = TwoClusters(path), labelled(torch.tensor([0, 1, 1, 0]))
    t = times_of(path)
    got = Classifier(denoiser, denoiser.logits)(X, t, y)
    expected = denoiser.of_classes(X, t, torch.eye(2, dtype=torch.float64)[y["label"]])
    torch.testing.assert_close(got.x0, expected.x0, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(got.eps, expected.eps, rtol=1e-8, atol=1e-8)


def test_the_classifier_is_asked_only_where_it_says_something():
    denoiser, y = TwoClusters(Linear()), labelled(torch.tensor([0, 1, 1, 0]))
    calls = []

    def classifier(x: Tensor, t: Tensor) -> Tensor:
        calls.append(len(x))
        return denoiser.logits(x, t)

    plain = denoiser(X, T, y)
    assert equal(Classifier(denoiser, classifier, scale=0)(X, T, y), plain)
    assert equal(Classifier(denoiser, classifier, interval=[50.0, math.inf])(X, T, y), plain)
    at_noise = torch.full_like(T, 0.9995)
    assert equal(Classifier(denoiser, classifier)(X, at_noise, y), denoiser(X, at_noise, y))
    assert not calls
    with torch.no_grad():  # as inside sample()
        assert not equal(Classifier(denoiser, classifier)(X, T, y), plain)
    assert calls == [4]


def test_guidance_nests():
    denoiser = denoiser_of()
    inner = ClassifierFree(denoiser, 2.0)
    outer = Autoguidance(inner, weak_of(denoiser), 1.5)
    assert (outer.path, outer.target, outer.network) == (denoiser.path, denoiser.target, denoiser.network)
    assert evaluations(outer) == 3
    assert evaluations(Autoguidance(inner, ClassifierFree(weak_of(denoiser), 2.0), 1.5)) == 4


def test_nfe_counts_every_evaluation_of_a_guided_sample():
    denoiser, y = denoiser_of(), Y
    grid = partial(grids.uniform, n_steps=10)

    def nfe(guided, solver=solvers.euler) -> int:
        return sample(guided, solver, grid, SHAPE[1:], [1, 2, 3, 4], y, dtype=torch.float64).nfe

    assert nfe(unguided(denoiser)) == 10
    assert nfe(denoiser, solvers.heun) == 19
    assert nfe(ClassifierFree(denoiser, 1.0)) == 10
    assert nfe(ClassifierFree(denoiser, 1.5)) == 20
    assert nfe(ClassifierFree(denoiser, 1.5), solvers.heun) == 38
    # log-SNR of t = 0.2, 0.3 and 0.4 lies within
    assert nfe(ClassifierFree(denoiser, 1.5, interval=[0.5, 3.0])) == 13


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: ClassifierFree(d, -1), "guidance.scale: got -1"),
        (lambda d: ClassifierFree(d, float("nan")), "guidance.scale: got nan"),
        (lambda d: ClassifierFree(d, True), "guidance.scale: got True"),
        (lambda d: ClassifierFree(d, "1.5"), "guidance.scale: got '1.5'"),
        (lambda d: ClassifierFree(d, channels=0), "guidance.channels: got 0"),
        (lambda d: ClassifierFree(d, channels=5)(X, T, Y), "guidance.channels: got 5; allowed: at most 4"),
        (lambda d: ClassifierFree(d, interval=[1.0]), "guidance.interval: got .*low, high"),
        (lambda d: ClassifierFree(d, interval=5), "guidance.interval: got 5; allowed: .low, high"),
        (lambda d: ClassifierFree(d, interval="ab"), "guidance.interval: got 'ab'"),
        (lambda d: ClassifierFree(d, interval=[2.0, 1.0]), "guidance.interval"),
        (lambda d: ClassifierFree(d, interval=[float("nan"), 1.0]), "guidance.interval"),
        (lambda d: ClassifierFree(d, interval=[False, 1.0]), "guidance.interval"),
        (lambda d: ClassifierFree(d)(X, T), r"condition: got .nothing"),
        (lambda d: NegativeClass(d, negative_class=1.0), "guidance.negative_class: got 1.0"),
        (lambda d: NegativeClass(d, negative_class=77), "guidance.negative_class: got 77; allowed: .* <= 10"),
        (lambda d: Autoguidance(d, d, -2.0), "guidance.scale: got -2.0"),
        (lambda d: Classifier(d, d, -2.0), "guidance.scale: got -2.0"),
        (lambda d: Classifier(d, d)(X, T), r"condition: got .no label"),
    ],
)
def test_values_are_checked(make, message):
    with pytest.raises(InputError, match=message):
        make(denoiser_of())
