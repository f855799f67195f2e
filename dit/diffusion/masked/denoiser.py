"""The denoiser of masked tokens: a network whose logits are the odds of each hidden token's values.

Shapes: B batch, V values of a token; tokens (B, 1, ...), log-probabilities (B, V, ...).
"""

from typing import NamedTuple

from torch import Tensor, nn

from dit.condition import NOTHING, Condition
from dit.diffusion.denoiser import NetworkReader
from dit.diffusion.masked.schedules import MASKED, Schedule
from dit.diffusion.paths import at_least_float32
from dit.errors import InputError


class TokenPrediction(NamedTuple):
    """What a denoiser says of tokens.

    Attributes:
        log_p: log-probabilities (B, V, ...) of the values of each token, at least float32. They mean something where
            x_t is masked; the loss and the solver carry all other tokens over.
    """

    log_p: Tensor


class TokenDenoiser(NetworkReader):
    """(x_t, t, condition) -> TokenPrediction.

    The network is shown the share of hidden tokens of each sample in place of t. That follows from x_t, so that its
    answer does not depend on the schedule; the exact answer depends on x_t alone (RADD, arXiv 2406.03736).

    Args:
        network: network(x (B, 1, ...) int64 with MASKED for a hidden token, time (B,), condition) -> logits
            (B, V, ...).
        masking: the schedule.
    """

    target = None

    def __init__(self, network: nn.Module, masking: Schedule) -> None:
        super().__init__(network)
        self.path = masking

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = NOTHING) -> TokenPrediction:
        """The prediction for tokens x_t (B, 1, ...), told a condition; ``t`` (B,) is not used."""
        hidden = (x_t == MASKED).flatten(1).float().mean(1)
        logits = at_least_float32(self.network(x_t, 1000 * hidden, condition))
        return TokenPrediction(logits.log_softmax(1))

    def extrapolated(
        self, strong: TokenPrediction, weak: TokenPrediction, t: Tensor, gain: Tensor
    ) -> TokenPrediction:
        """Guidance on logits: log p_strong + gain (log p_strong - log p_weak), normalised.

        Source: arXiv 2412.10193, equation 8; classifier-free guidance of discrete diffusion.
        """
        if gain.shape[1:].numel() > 1:
            raise InputError("guidance.channels", "(a number)", "null: tokens are guided as a whole")
        return TokenPrediction((strong.log_p + gain * (strong.log_p - weak.log_p)).log_softmax(1))
