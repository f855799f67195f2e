"""The denoiser: a network with the path and the target it was trained for.

Shapes: B batch; a sample has any number of axes behind its channels.
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from torch import Tensor, nn

from dit.condition import NOTHING, Condition
from dit.diffusion.paths import Path, at_least_float32, per_sample
from dit.diffusion.targets import Target, Velocity
from dit.errors import InputError


class Prediction(NamedTuple):
    """What a denoiser says of x_t.

    Attributes:
        x0: the data (B, ...).
        eps: the noise (B, ...); alpha x0 + sigma eps = x_t.
        output: the network's F (B, ...), at least float32.
        variance_fraction: where the log-variance of a reverse step lies between its two bounds, (B, ...):
            0 at the posterior's variance, 1 at beta; None unless the network has the channels for it.
    """

    x0: Tensor
    eps: Tensor
    output: Tensor
    variance_fraction: Tensor | None = None


class NetworkReader(nn.Module, ABC):
    """What a process makes of a network: its answers are read as predictions. The evaluations of such are counted.

    Args:
        network: what is trained.

    Attributes:
        path: of whose times a grid is made, a Path or a schedule of masking.
        target: the Target of what is no token.
    """

    path: Any
    target: Any

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @abstractmethod
    def extrapolated(self, strong: Any, weak: Any, t: Tensor, gain: Tensor) -> Any:
        """Of two predictions at times t (B,) the one that lies beyond ``strong``, away from ``weak``."""


class Denoiser(NetworkReader):
    """(x_t, t, condition) -> Prediction: what is trained, what a checkpoint stores and what a sampler consumes.

    Args:
        network: network(x (B, ...), t_shown (B,), condition) -> (B, ...), or (B, 2C, ...) with
            ``learned_variance``.
        path: the path on which x_t lies.
        target: what the network's output means.
        learned_variance: whether the second half of the output's channels is the variance of a reverse step.

    Raises:
        InputError: weights whose velocity runs the other way, with a target that is no velocity.
    """

    def __init__(
        self, network: nn.Module, path: Path, target: Target, learned_variance: bool = False
    ) -> None:
        super().__init__(network)
        if getattr(network, "turns_velocity", False) and not isinstance(target, Velocity):
            raise InputError(
                "network.time_convention",
                "sit",
                "'reversed' where the target is no velocity",
                "Published weights: layout sit_noise or sit_score.",
            )
        self.path = path
        self.target = target
        self.learned_variance = learned_variance

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = NOTHING) -> Prediction:
        """The prediction for x_t (B, ...) at times t (B,), told a condition.

        Everything but the network runs in at least float32, whatever the autocast.
        """
        x_t, t = at_least_float32(x_t), at_least_float32(t)
        scale = per_sample(self.target.input_scale(self.path, t), x_t)
        output = at_least_float32(self.network(scale * x_t, self.path.time_shown(t), condition))
        variance_fraction = None
        if self.learned_variance:
            output, variance = output.chunk(2, dim=1)
            variance_fraction = (variance + 1) / 2
        assert output.shape == x_t.shape, (
            f"the network returned {tuple(output.shape)} for an input of {tuple(x_t.shape)} "
            f"(learned_variance={self.learned_variance})"
        )
        x0, eps = self.target.decode(self.path, t, x_t, output)
        return Prediction(x0, eps, output, variance_fraction)

    def extrapolated(self, strong: Prediction, weak: Prediction, t: Tensor, gain: Tensor) -> Prediction:
        """Strong + gain (strong - weak); gain, which broadcasts to x0, is scale - 1 where guidance is on, else 0.

        A learned variance stays as it was.
        """
        x0, eps = (good + gain * (good - bad) for good, bad in ((strong.x0, weak.x0), (strong.eps, weak.eps)))
        return strong._replace(x0=x0, eps=eps, output=self.target.encode(self.path, t, x0, eps))
