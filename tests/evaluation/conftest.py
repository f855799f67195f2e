"""A small denoiser and codec in pixel space, and features of a known shape, for the evaluation's tests."""

import functools

import numpy as np
import pytest
import torch
from torch import nn

from dit.condition import Classes, Condition
from dit.data.codec import Autoencoder, Codec
from dit.diffusion import grids, solvers
from dit.diffusion.denoiser import Denoiser
from dit.diffusion.paths import Linear
from dit.diffusion.targets import Velocity
from dit.domain import Domain


class Pixels(nn.Module):
    """A convolution which also depends on the class: enough to tell labels and seeds apart."""

    domain = Domain(3, (32, 32))
    kind = Classes(10)

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.convolution = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
        return x - self.convolution(x) + 0.1 * condition["label"][:, None, None, None]


def make_denoiser() -> Denoiser:
    return Denoiser(Pixels().eval(), Linear(), Velocity())


def make_codec() -> Codec:
    return Codec(Autoencoder("identity", None), torch.zeros(3), torch.ones(3))


def make_images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (300, 3, 32, 32), dtype=torch.uint8, generator=generator)


SAMPLING = {"solver": solvers.euler, "grid": functools.partial(grids.uniform, n_steps=4)}


@pytest.fixture
def denoiser() -> Denoiser:
    return make_denoiser()


@pytest.fixture
def codec() -> Codec:
    return make_codec()


@pytest.fixture
def sampling() -> dict:
    return SAMPLING


@pytest.fixture
def images() -> torch.Tensor:
    return make_images()


def correlated(n: int, dim: int, seed: int, offset: float = 0.0) -> np.ndarray:
    """Features (n, dim) float32 with a full, uneven covariance."""
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(7 + seed).normal(size=(dim, dim)) / np.sqrt(dim)
    return (generator.normal(size=(n, dim)) @ mixing + offset).astype(np.float32)
