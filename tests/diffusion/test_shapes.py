"""Samples of any number of axes: what acts on one sample's numbers acts on no other's.

The formulas are written sample by sample with plain numbers, where nothing can broadcast.
"""

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from dit.condition import Classes, Condition, labelled
from dit.diffusion import grids, solvers
from dit.diffusion.denoiser import Denoiser
from dit.diffusion.editing import image_to_image, inpaint
from dit.diffusion.guidance import Autoguidance, Classifier, ClassifierFree, NegativeClass
from dit.diffusion.likelihood import likelihood
from dit.diffusion.objective import Objective
from dit.diffusion.paths import Cosine, Discrete, Linear
from dit.diffusion.sampling import sample
from dit.diffusion.targets import Noise, Velocity
from dit.diffusion.times import Uniform
from dit.diffusion.vlb import reverse_log_variance, step_bits, variational_bound
from dit.diffusion.weights import Uniform as Plain
from tests.diffusion.values import Stub, draw

# an image, sequences, points without an axis; batches as long as another axis, and of one
SHAPES = [(4, 3, 8, 8), (1, 16, 40), (12, 3), (5, 5), (3, 3, 3, 3), (2, 4, 2, 3, 3)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


class Network(Stub):
    kind = Classes(10)


def denoiser_of(gain: float = 0.7, path=None, target=None) -> Denoiser:
    network = Network(2 if isinstance(path, Discrete) else 1)
    network.gain.data.fill_(gain)
    return Denoiser(network, path or Cosine(), target or Velocity(), isinstance(path, Discrete))


def values(shape) -> tuple[Tensor, Tensor, Condition]:
    """x_t, times of which every second is inside the interval that the tests use, and classes."""
    n = shape[0]
    t = torch.where(torch.arange(n) % 2 == 0, 0.2, 0.8).double() + torch.arange(n) / (100 * n)
    return draw(shape, 1), t, labelled(torch.arange(n) % 10)


INTERVAL = [0.0, math.inf]  # log-SNR of the cosine path is 0 at t = 1/2


def expected(strong, weak, t: Tensor, scale: float, channels: int | None) -> Tensor:
    """The guided x0: every sample by itself, every channel by itself."""
    made = []
    for x0, bad, time in zip(strong.x0, weak.x0, t):
        factor = scale if float(time) <= 0.5 else 1.0
        parts = [
            b + factor * (a - b) if channels is None or c < channels else a
            for c, (a, b) in enumerate(zip(x0, bad))
        ]
        made.append(torch.stack(parts))
    return torch.stack(made)


@shapes
@pytest.mark.parametrize("channels", [None, 1])
def test_guidance_by_the_null_class_and_by_another(shape, channels):
    denoiser, (x, t, y) = denoiser_of(), values(shape)
    strong = denoiser(x, t, y)
    for guided, other in (
        (ClassifierFree(denoiser, 2.5, channels=channels, interval=INTERVAL), 10),
        (NegativeClass(denoiser, 2.5, 4, channels=channels, interval=INTERVAL), 4),
    ):
        got = guided(x, t, y)
        weak = denoiser(x, t, Classes(10).all(other, len(x)))
        torch.testing.assert_close(got.x0, expected(strong, weak, t, 2.5, channels))
        torch.testing.assert_close(
            torch.stack([Cosine().corrupt(*each) for each in zip(got.x0, t, got.eps)]), x
        )


@shapes
def test_autoguidance(shape):
    denoiser, weak, (x, t, y) = denoiser_of(), denoiser_of(0.4), values(shape)
    got = Autoguidance(denoiser, weak, 2.5, INTERVAL)(x, t, y)
    torch.testing.assert_close(got.x0, expected(denoiser(x, t, y), weak(x, t, y), t, 2.5, None))


@shapes
def test_classifier_guidance(shape):
    """The classifier's logits are x . (class + 1) / 10, summed: its gradient is known."""
    denoiser, (x, t, y) = denoiser_of(), values(shape)

    def classifier(x: Tensor, _t: Tensor) -> Tensor:
        return x.flatten(1).sum(1)[:, None] * torch.arange(1, 11) / 10

    got, plain = Classifier(denoiser, classifier, 3.0, INTERVAL)(x, t, y), denoiser(x, t, y)
    for i, time in enumerate(t.tolist()):
        logits = x[i].sum() * torch.arange(1, 11, dtype=torch.float64) / 10
        push = (float(y["label"][i]) + 1) / 10 - float((logits.softmax(0) * torch.arange(1, 11) / 10).sum())
        change = 3.0 * push * math.sin(math.pi / 2 * time) if time <= 0.5 else 0.0
        torch.testing.assert_close(got.eps[i], plain.eps[i] - change)


@shapes
def test_corruption_and_loss(shape):
    x0, t, y = values(shape)
    eps, path = draw(shape, 2), Linear()
    objective = Objective(path, Velocity(), Uniform(), Plain())
    x_t = torch.stack([(1 - float(at)) * a + float(at) * b for a, b, at in zip(x0, eps, t)])
    torch.testing.assert_close(path.corrupt(x0, t, eps), x_t)
    torch.testing.assert_close(path.corrupt(x0, t[0], eps), (1 - float(t[0])) * x0 + float(t[0]) * eps)
    denoiser = denoiser_of(path=path)
    found = objective.process.loss_at(denoiser, x0, y, t, eps)
    output = denoiser.network(x_t, 1000 * t, y)
    errors = [float(((o - (b - a)) ** 2).mean().detach()) for o, a, b in zip(output, x0, eps)]
    assert found.loss.tolist() == pytest.approx(errors)


@shapes
def test_variational_bound(shape):
    """Each sample's terms are those it has alone."""
    path = Discrete("linear", steps=25)
    denoiser = denoiser_of(path=path, target=Noise())
    x0, _, y = values(shape)
    t = (torch.arange(len(x0)) % 25).double() / 25
    guess, x_t = 0.5 * x0, draw(shape, 3)
    for fraction in (None, torch.sigmoid(draw(shape, 4))):
        whole = step_bits(path, t, x0, x_t, guess, reverse_log_variance(path, t, fraction))
        for i in range(len(x0)):
            one = None if fraction is None else fraction[i : i + 1]
            part = slice(i, i + 1)
            alone = step_bits(
                path, t[part], x0[part], x_t[part], guess[part], reverse_log_variance(path, t[part], one)
            )
            torch.testing.assert_close(whole[part], alone)
    bound = variational_bound(denoiser, x0, y, torch.Generator().manual_seed(0))
    assert bound.steps.shape == (len(x0), 25) and bool(bound.total.isfinite().all())


@shapes
def test_sampling_editing_and_likelihood_keep_the_shape_and_each_sample_to_itself(shape):
    denoiser, (x0, _, y) = denoiser_of(path=Linear()), values(shape)
    guided, grid = ClassifierFree(denoiser, 2.0), partial(grids.log_snr, n_steps=4)
    seeds = list(range(len(x0)))
    alone = slice(len(x0) - 1, len(x0))
    known = x0 > 0

    def made(part: slice) -> list[Tensor]:
        y_part, seeds_part = y.part(part), seeds[part]
        drawn = sample(guided, solvers.heun, grid, shape[1:], seeds_part, y_part, dtype=torch.float64)
        near = image_to_image(guided, solvers.ddim, grid, x0[part], 0.5, seeds_part, y_part)
        filled = inpaint(guided, solvers.dpmpp_2m, grid, x0[part], known[part], seeds_part, y_part)
        bits = likelihood(guided, x0[part], grid, y_part, seeds=seeds_part).bits_per_dim
        return [drawn.x0, near.x0, filled.x0, bits]

    for whole, one in zip(made(slice(None)), made(alone)):
        assert whole.shape in (shape, shape[:1])
        torch.testing.assert_close(whole[alone], one)
