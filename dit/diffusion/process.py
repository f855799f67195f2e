"""The process: how data are corrupted, and how a network's answer about them is read.

Shapes: B batch; data, noise and outputs (B, ...), channels first; times, levels, losses and errors (B,).
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from dit.condition import Condition
from dit.diffusion.denoiser import Denoiser, NetworkReader
from dit.diffusion.paths import Discrete, Path, at_least_float32
from dit.diffusion.targets import Karras, Target
from dit.diffusion.vlb import reverse_log_variance, step_bits
from dit.diffusion.weights import EDM, Weight
from dit.domain import Domain
from dit.errors import InputError


class Loss(NamedTuple):
    """The loss of each sample, and where it was taken.

    Attributes:
        loss: what is minimised, (B,) float32 or wider.
        t: times, (B,).
        log_snr: ln(alpha^2/sigma^2) there, (B,).
        mse: the unweighted mean squared error of the output F, (B,); of tokens the mean cross-entropy of a hidden one.
        bound: the term of the variational bound in bits per dimension, (B,); None without a learned variance.
    """

    loss: Tensor
    t: Tensor
    log_snr: Tensor
    mse: Tensor
    bound: Tensor | None = None


class Process(Protocol):
    """A corruption of data, as training, validation and sampling use it.

    Attributes:
        unit: the unit of ``validation_error``. Errors of different units do not compare.
        simplest: the smallest data that it corrupts, on which settings are tried.
    """

    unit: ClassVar[str]
    simplest: ClassVar[Domain]

    def out_channels(self, domain: Domain) -> int:
        """Channels of the network's output for data of a domain.

        Raises:
            InputError: it does not corrupt such data.
        """
        ...

    def denoiser(self, network: nn.Module) -> NetworkReader:
        """The denoiser, which reads the network's answer."""
        ...

    def corrupt(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """The data (B, ...) as they are at times t (B,), given standard normal noise of their shape.

        Whatever is drawn at random is made of these normal numbers: which tokens are hidden, too.
        """
        ...

    def loss_at(self, denoiser: nn.Module, x0: Tensor, condition: Condition, t: Tensor, eps: Tensor) -> Loss:
        """The loss of each sample at given times t (B,), by one call of the network; differentiable.

        Args:
            denoiser: made by ``denoiser``, wrapped or not.
            x0: data (B, ...), unit variance.
            condition: what is known of each sample.
            t: times (B,).
            eps: the noise (B, ...).
        """
        ...

    def validation_error(
        self, denoiser: nn.Module, x0: Tensor, condition: Condition, log_snr: Tensor, eps: Tensor
    ) -> Tensor:
        """The error (B,) in ``unit`` at given levels (B,): one measure for whatever the network was trained on."""
        ...


@dataclass(frozen=True)
class Gaussian:
    """Data are mixed with normal noise, x_t = alpha x0 + sigma eps, and the network answers a F = a x0 + b eps.

    Args:
        path: where x_t lies.
        target: what the network is asked for.
        weight: how much an error counts.
        learned_variance: iDDPM's hybrid loss (arXiv 2102.09672, eq. 16), which is DiT's: adds channels for
            the variance of a reverse step, and the variational bound to the loss; needs a discrete path.
    """

    path: Path
    target: Target
    weight: Weight
    learned_variance: bool = False
    unit: ClassVar[str] = "squared velocity error per dimension"
    simplest: ClassVar[Domain] = Domain(1, (1, 1))

    def __post_init__(self) -> None:
        for name, kind in (("path", Path), ("target", Target), ("weight", Weight)):
            if not isinstance(getattr(self, name), kind):
                raise InputError(f"objective.{name}", getattr(self, name), f"one of conf/{name}/")
        if not isinstance(self.learned_variance, bool):
            raise InputError("objective.learned_variance", self.learned_variance, "true or false")
        if self.learned_variance and not isinstance(self.path, Discrete):
            raise InputError(
                "objective.learned_variance",
                self.learned_variance,
                f"false with path {type(self.path).__name__}",
                "A variance of reverse steps needs a discrete path, such as path@objective.path=ddpm_linear.",
            )
        target, weight = self.target, self.weight
        if isinstance(target, Karras) and isinstance(weight, EDM) and target.sigma_data != weight.sigma_data:
            raise InputError(
                "objective.weight.sigma_data",
                weight.sigma_data,
                f"the value of objective.target.sigma_data = {target.sigma_data:g}",
                "Set both.",
            )

    def out_channels(self, domain: Domain) -> int:
        """Channels of the network's output: twice those of the data where it has a variance to tell."""
        if domain.vocabulary:
            raise InputError("objective", "(a process of numbers)", "objective=masked: the data are tokens")
        return 2 * domain.channels if self.learned_variance else domain.channels

    def denoiser(self, network: nn.Module) -> Denoiser:
        """The network with the path and the target that give its output a meaning."""
        return Denoiser(network, self.path, self.target, self.learned_variance)

    def corrupt(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """x_t (B, ...)."""
        return self.path.corrupt(x0, t, eps)

    def loss_at(self, denoiser: nn.Module, x0: Tensor, condition: Condition, t: Tensor, eps: Tensor) -> Loss:
        """The weighted squared error of F, and the term of the variational bound where a variance is learned.

        A discrete path is read between its steps where t lies between them: a validation at chosen noise
        levels may ask for any t of the path.
        """
        x0, eps, t = at_least_float32(x0), at_least_float32(eps), at_least_float32(t)
        x_t = self.corrupt(x0, t, eps)
        prediction = denoiser(x_t, t, condition)
        error = prediction.output - self.target.encode(self.path, t, x0, eps)
        mse = torch.square(error).flatten(1).mean(1)
        loss = self.weight(self.path, self.target, t) * mse
        bound = None
        if self.learned_variance:
            assert isinstance(self.path, Discrete)
            # The mean learns from the squared error alone: the bound reaches the variance only.
            log_variance = reverse_log_variance(self.path, t, prediction.variance_fraction)
            bound = step_bits(self.path, t, x0, x_t, prediction.x0.detach(), log_variance)
            loss = loss + bound * (self.path.steps / 1000)
        return Loss(loss, t, self.path.log_snr(t), mse, bound)

    def validation_error(
        self, denoiser: nn.Module, x0: Tensor, condition: Condition, log_snr: Tensor, eps: Tensor
    ) -> Tensor:
        """The mean squared error (B,) float64 of the velocity of rectified flow, v = eps - x0.

        It does not depend on path, target or weight, but through what the network learned by them.
        """
        t = self.path.t_of_log_snr(log_snr)
        prediction = denoiser(self.corrupt(x0, t, eps), t, condition)
        velocity_error = (prediction.eps - prediction.x0) - (eps - x0)
        return velocity_error.double().square().flatten(1).mean(1)
