"""The process that hides tokens, and the bound on the likelihood that a network learns by.

Shapes: B batch, L tokens of a sample, V values of a token; tokens and noise (B, 1, ...); times and losses (B,).
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dit.condition import Condition
from dit.diffusion.masked.denoiser import TokenDenoiser
from dit.diffusion.masked.schedules import MASKED, Schedule
from dit.diffusion.paths import at_least_float32, per_sample
from dit.diffusion.process import Loss
from dit.domain import Domain
from dit.errors import InputError, check_choice

ESTIMATORS = ("counts", "times")


@dataclass(frozen=True)
class Masked:
    """Tokens are hidden, and the network answers the odds of their values.

    The loss is a bound on -log p in nats per token. ``counts`` hides exactly k = ceil(t L) tokens and weighs the sum of
    their -log p by 1/k; with t uniform, k is uniform in {1, ..., L}. ``times`` hides each token with probability
    1 - alpha(t) and weighs by -alpha'(t) / (1 - alpha(t)) / L. Both have the same mean, which is free of the schedule;
    ``counts`` has the smaller variance, and no schedule in it.

    Args:
        masking: the schedule; samples are drawn along it, and ``times`` learns by it.
        estimator: ``counts`` | ``times``.

    Source: ``times`` MDLM, arXiv 2406.07524, equation 10; ``counts`` LLaDA, 2502.09992, equation 14; absorbing states
    D3PM, 2107.03006.
    """

    masking: Schedule
    estimator: str = "counts"
    unit: ClassVar[str] = "nats per token"
    simplest: ClassVar[Domain] = Domain(1, (1,), vocabulary=2)

    def __post_init__(self) -> None:
        if not isinstance(self.masking, Schedule):
            raise InputError("objective.masking", self.masking, "one of conf/masking/")
        check_choice("objective.estimator", self.estimator, ESTIMATORS)

    def out_channels(self, domain: Domain) -> int:
        """Channels of the network's output: the logits of V values.

        Raises:
            InputError: the data are no tokens.
        """
        if not domain.vocabulary:
            allowed = "an objective of numbers, such as objective=rectified_flow"
            raise InputError(
                "objective", "masked", allowed, "Data of tokens: data=sequences, data=digit_tokens."
            )
        return domain.vocabulary

    def denoiser(self, network: nn.Module) -> TokenDenoiser:
        """The network, whose logits are read."""
        return TokenDenoiser(network, self.masking)

    def corrupt(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """The tokens (B, 1, ...) with MASKED where they are hidden at times t (B,): those of lowest noise."""
        return torch.where(self._hidden(x0, t, eps), MASKED, x0)

    def loss_at(self, denoiser: nn.Module, x0: Tensor, condition: Condition, t: Tensor, eps: Tensor) -> Loss:
        """The weighted cross-entropy of the hidden tokens, in nats per token.

        Of these the network is asked; those that are not hidden carry over and cost nothing.
        """
        t = at_least_float32(t)
        hidden = self._hidden(x0, t, eps)
        log_p = denoiser(torch.where(hidden, MASKED, x0), t, condition).log_p
        nats = F.nll_loss(log_p, x0.squeeze(1), reduction="none")  # (B, ...)
        total = torch.where(hidden.squeeze(1), nats, 0).flatten(1).sum(1)
        n_hidden = hidden.flatten(1).sum(1)
        share = n_hidden / x0[0].numel()
        loss = total * self._weight(x0, t)
        return Loss(loss, t, 2 * torch.log((1 - share) / share), total / n_hidden.clamp(min=1))

    def validation_error(
        self, denoiser: nn.Module, x0: Tensor, condition: Condition, log_snr: Tensor, eps: Tensor
    ) -> Tensor:
        """The bound (B,) float64 in nats per token, by counts whatever the estimator of training.

        Levels are 2 ln((1 - t)/t) of uniform times t: the mean over all is the bound itself.
        """
        t = torch.sigmoid(-log_snr.double() / 2)
        return Masked(self.masking).loss_at(denoiser, x0, condition, t, eps).loss.double()

    def _hidden(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Which tokens are hidden, bool (B, 1, ...)."""
        if self.estimator == "times":
            return torch.special.ndtr(eps.double()) < per_sample(1 - self.masking.alpha(t).double(), x0)
        rank = eps.flatten(1).argsort(1).argsort(1).view_as(x0)
        return rank < per_sample(_count(x0, t), x0)

    def _weight(self, x0: Tensor, t: Tensor) -> Tensor:
        """Of the sum over hidden tokens, (B,)."""
        if self.estimator == "times":
            return -self.masking.alpha_dot(t) / (1 - self.masking.alpha(t)) / x0[0].numel()
        return 1 / _count(x0, t)


def _count(x0: Tensor, t: Tensor) -> Tensor:
    """How many tokens are hidden, k in {1, ..., L}, (B,): uniform where t is uniform."""
    n_tokens = x0[0].numel()
    return torch.ceil(t.double() * n_tokens).clamp(1, n_tokens).long()


@dataclass(frozen=True)
class MaskedObjective:
    """Masked tokens at uniform times. As a choice of values: conf/objective/masked.yaml.

    Args:
        masking, estimator: of the process, see ``Masked``.

    Attributes:
        process: made of them.
    """

    masking: Schedule
    estimator: str = "counts"
    process: Masked = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "process", Masked(self.masking, self.estimator))

    def loss(self, denoiser: nn.Module, x0: Tensor, condition: Condition, u: Tensor, eps: Tensor) -> Loss:
        """The loss of a batch, by one call of the network; differentiable.

        Args:
            denoiser: made by the process, wrapped or not.
            x0: tokens (B, 1, ...) int64.
            condition: what is known of each sample.
            u: uniform numbers in [0, 1), (B,), stratified or not; t = 1 - u is never 0.
            eps: standard normal noise (B, 1, ...).
        """
        return self.process.loss_at(denoiser, x0, condition, 1 - u, eps)
