"""Guidance away from the same network told another condition: the null condition or a named class."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from dit.condition import NOTHING, Classes, Condition, ConditionKind, Nothing
from dit.diffusion.denoiser import Prediction
from dit.diffusion.guidance.base import AnyDenoiser, Guided, Interval
from dit.diffusion.paths import per_sample
from dit.errors import InputError, check_number


def _kind_of(denoiser: AnyDenoiser) -> ConditionKind:
    """The kind of condition that the denoiser's network takes."""
    kind = getattr(denoiser.network, "kind", None)
    if kind is None or isinstance(kind, Nothing):
        allowed = "a network with a condition to guide away from (its ``kind``)"
        raise InputError("guidance", type(denoiser.network).__name__, allowed)
    return kind


class _TwoConditions(Guided):
    """Guidance away from what one and the same network says of another condition.

    Args:
        denoiser, scale, channels, interval: as of the classes below.
        other: (number of samples, device) -> the condition to keep away from.
    """

    def __init__(
        self,
        denoiser: AnyDenoiser,
        scale: float,
        other: Callable[[int, torch.device], Condition],
        channels: int | None,
        interval: Interval | None,
    ) -> None:
        super().__init__(denoiser, interval)
        check_number("guidance.scale", scale, low=0)
        if channels is not None:
            check_number("guidance.channels", channels, low=1, integer=True)
        self.scale, self.other, self.channels = scale, other, channels

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = NOTHING) -> Prediction:
        """The guided prediction: one pass over 2 B samples where guidance is on, over B where it is off."""
        if not condition:
            raise InputError("condition", "(nothing)", "what each sample shall be, such as its class")
        on = self.is_on(t)
        if self.scale == 1 or self.is_off(on):
            return self.denoiser(x_t, t, condition)
        pair = condition.beside(self.other(len(x_t), x_t.device))
        both = self.denoiser(torch.cat([x_t, x_t]), torch.cat([t, t]), pair)
        strong, weak = _halves(both)
        return self.extrapolated(strong, weak, t, self._gain(on, strong[0]))

    def _gain(self, on: Tensor, like: Tensor) -> Tensor:
        """Scale - 1 in the guided channels of samples inside the interval, else 0; (B, C or 1, 1, ...)."""
        gain = per_sample((self.scale - 1) * on.to(like.dtype), like)
        if self.channels is None:
            return gain
        n_channels = like.shape[1]
        if self.channels > n_channels:
            raise InputError(
                "guidance.channels", self.channels, f"at most {n_channels}, the latent's channels"
            )
        guided = torch.arange(n_channels, device=like.device) < self.channels
        return gain * per_sample(guided, like[0])  # (C, 1, ...), beside (B, 1, 1, ...)


def _halves(both: Prediction) -> tuple[Prediction, Prediction]:
    """The predictions of the first and of the second half of a batch, of whatever tensors they are made."""
    pairs = zip(*((None, None) if values is None else values.chunk(2) for values in both))
    strong, weak = (type(both)(*values) for values in pairs)
    return strong, weak


class ClassifierFree(_TwoConditions):
    """Classifier-free guidance: away from the unconditional prediction of the same network.

    Args:
        denoiser: trained with dropout of its condition; its network's ``kind`` names the null condition.
        scale: guidance scale, 1 is off (DiT's and SiT's ``cfg_scale``; 1 + w of the paper).
        channels: guide the first k channels only, the others staying conditional; None guides all. DiT's
            released numbers guide 3 of 4: its 1.5 on 3 channels is about 1.375 on 4.
        interval: [low, high] in log-SNR where guidance is on; None is everywhere.
        negative: the condition (1, ...) of one sample to keep away from, such as a text; None is the null condition.

    Raises:
        InputError: a value is out of range, or the network has no null condition.

    Source: 2207.12598, equation 6; the interval 2404.07724.
    """

    def __init__(
        self,
        denoiser: AnyDenoiser,
        scale: float = 1.5,
        channels: int | None = None,
        interval: Interval | None = None,
        negative: Condition | None = None,
    ) -> None:
        null = _kind_of(denoiser).null
        other = null if negative is None else partial(_repeated, negative)
        super().__init__(denoiser, scale, other, channels, interval)


def _repeated(condition: Condition, n: int, device: torch.device) -> Condition:
    """The condition of one sample for ``n`` of them."""
    return condition.to(device).part(torch.zeros(n, dtype=torch.int64, device=device))


class NegativeClass(_TwoConditions):
    """Guidance away from a named class instead of away from no class.

    Args:
        denoiser: any class-conditional denoiser.
        scale: guidance scale, 1 is off.
        negative_class: the class to keep away from.
        channels: guide the first k channels only; None guides all.
        interval: [low, high] in log-SNR where guidance is on; None is everywhere.

    Raises:
        InputError: a value is out of range.

    Source: negative conditioning, 2206.01714, in the form of 2207.12598.
    """

    def __init__(
        self,
        denoiser: AnyDenoiser,
        scale: float = 1.5,
        negative_class: int = 0,
        channels: int | None = None,
        interval: Interval | None = None,
    ) -> None:
        kind = _kind_of(denoiser)
        if not isinstance(kind, Classes):
            allowed = "a network that is told classes"
            raise InputError("guidance", "negative_class", allowed, "Use classifier_free.")
        check_number("guidance.negative_class", negative_class, low=0, high=kind.n, integer=True)
        super().__init__(denoiser, scale, partial(kind.all, negative_class), channels, interval)
