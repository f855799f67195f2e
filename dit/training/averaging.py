"""Averages of the weights along the training path.

Several profiles may be followed at once; each is a shadow copy of the parameters, updated in place after every
optimizer step with one fused multi-tensor operation. Of a sharded network each rank averages its own pieces.
"""

import functools
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from dit.errors import InputError, check_number


class Profile(Protocol):
    """How much of the old average survives one step."""

    def decay(self, step: int, batch_size: int) -> float: ...


@dataclass(frozen=True)
class Constant:
    """Exponential average with a fixed half-life, the EMA of most papers.

    Decay per step 2^(-batch / half_life): .9999 at batch 256 is a half-life of 1.77 M images.

    Args:
        half_life_images: images after which a weight's influence has halved.
    """

    half_life_images: float

    def __post_init__(self) -> None:
        check_number("averages.half_life_images", self.half_life_images, above=0)

    def decay(self, step: int, batch_size: int) -> float:
        return 0.5 ** (batch_size / self.half_life_images)


@dataclass(frozen=True)
class Power:
    """Power-function average, whose width is a fixed share of the training so far.

    Decay at step t (counted from 1) is (1 - 1/t)^(gamma + 1). Because its length grows with training, every budget is
    read with the same relative amount of averaging, which a constant half-life cannot give.

    Args:
        sigma_rel: standard deviation of the averaging profile as a share of training time, in (0, .28).

    Source: Karras et al. 2024, arXiv 2312.02696, equations 1-2 and 126 (sigma_rel as a function of gamma).
    """

    sigma_rel: float

    def __post_init__(self) -> None:
        check_number("averages.sigma_rel", self.sigma_rel, above=0, below=0.28)

    @functools.cached_property
    def gamma(self) -> float:
        """Exponent with sqrt((gamma+1) / ((gamma+2)^2 (gamma+3))) = sigma_rel, by bisection (it falls with gamma)."""
        low, high = 0.0, 1 / self.sigma_rel
        for _ in range(60):
            middle = (low + high) / 2
            width = math.sqrt((middle + 1) / ((middle + 2) ** 2 * (middle + 3)))
            low, high = (middle, high) if width > self.sigma_rel else (low, middle)
        return low

    def decay(self, step: int, batch_size: int) -> float:
        return (1 - 1 / step) ** (self.gamma + 1)


class Averages:
    """Shadow copies of a network's parameters, one set per profile.

    Built once the parameters are where they will be trained, on their device and sharded: the copies are alike, and
    every later step works on each rank's own pieces, without a word between ranks.

    Args:
        network: the module to follow; buffers are not averaged.
        profiles: name -> profile; ``raw`` is the network itself and is not a name.
    """

    def __init__(self, network: nn.Module, profiles: Mapping[str, Profile]) -> None:
        if "raw" in profiles:
            raise InputError("averages", "raw", "another name", "raw is the network itself.")
        self.profiles = dict(profiles)
        self._parameters = dict(
            network.named_parameters()
        )  # once: asking costs more than averaging a small network
        self.shadows: dict[str, dict[str, torch.Tensor]] = {
            name: {key: value.detach().clone() for key, value in self._parameters.items()}
            for name in self.profiles
        }

    @torch.no_grad()
    def update(self, step: int, batch_size: int) -> None:
        """Moves every average towards the weights after optimizer step ``step`` (counted from 1)."""
        weights = shards(self._parameters.values())
        for name, profile in self.profiles.items():
            torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage] - no public name yet
                shards(self.shadows[name].values()), weights, 1 - profile.decay(step, batch_size)
            )

    @contextmanager
    def applied(self, name: str) -> Iterator[None]:
        """The network with the weights of average ``name`` (``raw``: as it is) for the length of a with-block.

        Not for a sharded network: what a forward call gathers there is not what its parameters point to.
        """
        if name == "raw":
            yield
            return
        parameters, shadow = self._parameters, self.shadows[name]
        kept = {key: parameter.data for key, parameter in parameters.items()}
        assert not any(isinstance(value, DTensor) for value in kept.values()), (
            "read a sharded network by a copy"
        )
        try:
            for key, parameter in parameters.items():
                parameter.data = shadow[key]
            yield
        finally:
            for key, parameter in parameters.items():
                parameter.data = kept[key]


def shard(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's piece of a tensor, sharded or not."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shards(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """This rank's pieces of tensors; the dispatch of DTensors would cost more than the average."""
    return [shard(tensor) for tensor in tensors]
