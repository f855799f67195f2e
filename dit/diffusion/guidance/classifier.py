"""Guidance along the gradient of a noisy classifier."""

from collections.abc import Callable

import torch
from torch import Tensor

from dit.condition import NOTHING, Condition
from dit.diffusion.denoiser import Prediction
from dit.diffusion.guidance.base import AnyDenoiser, Guided, Interval
from dit.diffusion.paths import per_sample
from dit.errors import InputError, check_number


class Classifier(Guided):
    """Classifier guidance: the gradient of a noisy classifier's log p(y | x_t, t) added to the score.

    eps - scale sigma grad and x0 + scale sigma^2 / alpha grad: x_t = alpha x0 + sigma eps still holds. Unlike
    the other guidances **scale 0 is off**, since the classifier is a factor of its own: 1 samples p(x) p(y |
    x). It is also off where alpha is 1e-3 or less: there x_t holds nothing to classify.

    Args:
        denoiser: conditional or not; called with the condition.
        classifier: (x_t (B, ...), t (B,)) -> logits (B, classes), differentiable in x_t.
        scale: strength, 0 is off.
        interval: [low, high] in log-SNR where guidance is on; None is everywhere.

    Raises:
        InputError: a value is out of range.

    Source: 2105.05233, equation 14 (algorithm 2).
    """

    def __init__(
        self,
        denoiser: AnyDenoiser,
        classifier: Callable[[Tensor, Tensor], Tensor],
        scale: float = 1.0,
        interval: Interval | None = None,
    ) -> None:
        super().__init__(denoiser, interval)
        check_number("guidance.scale", scale, low=0)
        self.classifier, self.scale = classifier, scale

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = NOTHING) -> Prediction:
        """The guided prediction; the classifier is called only where guidance is on."""
        if "label" not in condition:
            raise InputError("condition", "(no label)", "the class of each sample: label (B,)")
        prediction = self.denoiser(x_t, t, condition)
        alpha, sigma = (per_sample(c.to(x_t.dtype), x_t) for c in (self.path.alpha(t), self.path.sigma(t)))
        # Not where grids start either, at sigma / alpha 1000: float32 may put it on either side.
        on = per_sample(self.is_on(t), x_t) & (alpha > 1.001e-3)
        if self.scale == 0 or not bool(on.any()):
            return prediction
        push = torch.where(on, self.scale * self._gradient(x_t, t, condition["label"]), 0)
        x0 = prediction.x0 + sigma**2 / alpha.clamp(min=1e-3) * push
        return self.rewritten(prediction, t, x0, prediction.eps - sigma * push)

    def _gradient(self, x_t: Tensor, t: Tensor, label: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            log_probability = self.classifier(x, t).log_softmax(-1).gather(-1, label[:, None]).sum()
            return torch.autograd.grad(log_probability, x)[0]
