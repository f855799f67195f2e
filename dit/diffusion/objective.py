"""The objective: path, target, times and weight, and the loss they make.

Shapes: B batch, C H W latent.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dit.condition import Condition
from dit.diffusion.denoiser import Denoiser
from dit.diffusion.paths import Discrete, Path, at_least_float32
from dit.diffusion.targets import Karras, Target
from dit.diffusion.times import Times
from dit.diffusion.vlb import reverse_log_variance, step_bits
from dit.diffusion.weights import EDM, Weight
from dit.errors import InputError


class Loss(NamedTuple):
    """The loss of each sample, and where it was taken.

    Attributes:
        loss: what is minimised, (B,) float32 or wider.
        t: times, (B,).
        log_snr: ln(alpha^2/sigma^2) there, (B,).
        mse: the unweighted mean squared error of the output F, (B,).
        bound: the term of the variational bound in bits per dimension, (B,); None without a learned variance.
    """

    loss: Tensor
    t: Tensor
    log_snr: Tensor
    mse: Tensor
    bound: Tensor | None = None


@dataclass(frozen=True)
class Objective:
    """What is minimised. A paper is a choice of these values: conf/objective/.

    Args:
        path: where x_t lies.
        target: what the network is asked for.
        times: how t is drawn.
        weight: how much an error counts.
        learned_variance: iDDPM's hybrid loss (arXiv 2102.09672, eq. 16), which is DiT's: adds channels for
            the variance of a reverse step, and the variational bound to the loss; needs a discrete path.
    """

    path: Path
    target: Target
    times: Times
    weight: Weight
    learned_variance: bool = False

    def __post_init__(self) -> None:
        for name, kind in (("path", Path), ("target", Target), ("times", Times), ("weight", Weight)):
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

    def out_channels(self, channels: int) -> int:
        """Channels of the network's output for latents of ``channels`` channels."""
        return 2 * channels if self.learned_variance else channels

    def denoiser(self, network: nn.Module) -> Denoiser:
        """The denoiser that this objective trains."""
        return Denoiser(network, self.path, self.target, self.learned_variance)

    def loss(self, denoiser: nn.Module, x0: Tensor, condition: Condition, u: Tensor, eps: Tensor) -> Loss:
        """The loss of a batch, by one call of the network; differentiable.

        Args:
            denoiser: made by ``denoiser``, wrapped or not.
            x0: data (B, C, H, W), unit variance.
            condition: what is known of each sample.
            u: uniform numbers in [0, 1), (B,), stratified or not.
            eps: standard normal noise (B, C, H, W).
        """
        return self.loss_at(denoiser, x0, condition, self.times.from_uniform(u, self.path), eps)

    def loss_at(self, denoiser: nn.Module, x0: Tensor, condition: Condition, t: Tensor, eps: Tensor) -> Loss:
        """The loss at given times t (B,), for the same other arguments.

        A discrete path is read between its steps where t lies between them: a validation at chosen noise
        levels may ask for any t of the path.
        """
        x0, eps, t = at_least_float32(x0), at_least_float32(eps), at_least_float32(t)
        x_t = self.path.corrupt(x0, t, eps)
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
