"""Guidance away from a weaker denoiser."""

from torch import Tensor

from dit.condition import NOTHING, Condition
from dit.diffusion.denoiser import Prediction
from dit.diffusion.guidance.base import AnyDenoiser, Guided, Interval
from dit.diffusion.paths import per_sample
from dit.errors import InputError, check_number


class Autoguidance(Guided):
    """Guidance away from a weaker denoiser (smaller, less trained) of the same path.

    Args:
        denoiser: the strong one.
        weak: the weak one; called with the same x_t and t, and with the same condition where its network is told
            the same kind: one of another number of classes, or of none, is told its own null condition.
        scale: guidance scale, 1 is off.
        interval: [low, high] in log-SNR where guidance is on; None is everywhere.

    Raises:
        InputError: a value is out of range, or the two denoisers have different paths.

    Source: 2406.02507.
    """

    def __init__(
        self, denoiser: AnyDenoiser, weak: AnyDenoiser, scale: float = 2.0, interval: Interval | None = None
    ) -> None:
        super().__init__(denoiser, interval)
        check_number("guidance.scale", scale, low=0)
        if weak.path != denoiser.path:
            raise InputError("guidance.weak", weak.path, f"a denoiser on the path {denoiser.path}")
        self.weak, self.scale = weak, scale

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = NOTHING) -> Prediction:
        """The guided prediction; the weak denoiser is called only where guidance is on."""
        strong = self.denoiser(x_t, t, condition)
        on = self.is_on(t)
        if self.scale == 1 or self.is_off(on):
            return strong
        gain = per_sample((self.scale - 1) * on.to(strong[0].dtype), strong[0])
        return self.extrapolated(strong, self.weak(x_t, t, self._known(condition)), t, gain)

    def _known(self, condition: Condition) -> Condition:
        """The condition as the weak network knows it."""
        strong, weak = (getattr(one.network, "kind", None) for one in (self.denoiser, self.weak))
        if not condition or weak is None or weak == strong:
            return condition
        first = next(iter(condition.values()))
        return weak.null(len(first), first.device)
