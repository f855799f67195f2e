"""The objective: a process and the times at which a network learns it.

Shapes: B batch; data and noise (B, ...), channels first.
"""

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn

from dit.condition import Condition
from dit.diffusion.paths import Path
from dit.diffusion.process import Gaussian, Loss, Process
from dit.diffusion.targets import Target
from dit.diffusion.times import Times
from dit.diffusion.weights import Weight
from dit.errors import InputError


class Learnable(Protocol):
    """An objective as training uses it: a process, and its loss at times made of uniform numbers."""

    @property
    def process(self) -> Process: ...

    def loss(self, denoiser: nn.Module, x0: Tensor, condition: Condition, u: Tensor, eps: Tensor) -> Loss: ...


@dataclass(frozen=True)
class Objective:
    """What is minimised. A paper is a choice of these values: conf/objective/.

    Args:
        path, target, weight, learned_variance: of the process, see ``Gaussian``.
        times: how t is drawn.

    Attributes:
        process: made of them.
    """

    path: Path
    target: Target
    times: Times
    weight: Weight
    learned_variance: bool = False
    process: Process = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        made = Gaussian(self.path, self.target, self.weight, self.learned_variance)
        object.__setattr__(self, "process", made)
        if not isinstance(self.times, Times):
            raise InputError("objective.times", self.times, "one of conf/times/")

    def loss(self, denoiser: nn.Module, x0: Tensor, condition: Condition, u: Tensor, eps: Tensor) -> Loss:
        """The loss of a batch, by one call of the network; differentiable.

        Args:
            denoiser: made by the process, wrapped or not.
            x0: data (B, ...), unit variance.
            condition: what is known of each sample.
            u: uniform numbers in [0, 1), (B,), stratified or not.
            eps: standard normal noise (B, ...).
        """
        return self.process.loss_at(denoiser, x0, condition, self.times.from_uniform(u, self.path), eps)
