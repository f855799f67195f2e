"""Guidance: one denoiser made out of two, or of one and a classifier. The result behaves as a Denoiser.

At fixed x_t the pair (x0, eps) is linear in the network's output, so extrapolating both by one scale is the
same as extrapolating the output, whatever the target: guided = strong + (scale - 1) (strong - weak). Scale 1
is the strong denoiser alone.

Where guidance is off (scale 1, or log-SNR outside the interval for the whole batch) the second evaluation is
not made.

Intervals are in **log-SNR** ln(alpha^2 / sigma^2), both ends included, so that one setting means the same on
every path; on VE (EDM) sigma = exp(-log_snr / 2), on Linear t = 1 / (1 + exp(log_snr / 2)). An open end is an
infinity. A time that misses an end by 2e-5 of itself, or by 1e-4 in log-SNR, lies on it: float32, a path that
stops 1e-5 before pure noise and a typed number of four decimals miss by less, and steps of grids are far longer.

Legend: B batch, C channels; a sample has any number of axes behind its channels.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Union

import torch
from torch import Tensor, nn

from dit.condition import NOTHING, Classes, Condition, ConditionKind, Nothing
from dit.diffusion.denoiser import Denoiser, Prediction
from dit.diffusion.paths import Path, per_sample
from dit.diffusion.targets import Target
from dit.errors import InputError, check_number

_SAME_TIME, _SAME_LOG_SNR = 2e-5, 1e-4
Interval = Sequence[float]
AnyDenoiser = Union[Denoiser, "Guided"]


def _check_interval(interval: Interval | None) -> tuple[float, float]:
    if interval is None:
        return -math.inf, math.inf
    ends = list(interval) if isinstance(interval, Sequence) else []
    numbers = all(isinstance(end, (int, float)) and not isinstance(end, bool) for end in ends)
    if len(ends) != 2 or not numbers or not ends[0] < ends[1]:
        raise InputError(
            "guidance.interval",
            interval,
            "[low, high] in log-SNR with low < high, an infinity for an open end",
            "Infinities are inf and -inf on the command line, .inf and -.inf in YAML.",
        )
    return float(ends[0]), float(ends[1])


def _kind_of(denoiser: "AnyDenoiser") -> ConditionKind:
    """What kind of condition the denoiser's network is told."""
    kind = getattr(denoiser.network, "kind", None)
    if kind is None or isinstance(kind, Nothing):
        allowed = "a network with a condition to guide away from (its ``kind``)"
        raise InputError("guidance", type(denoiser.network).__name__, allowed)
    return kind


class Guided(nn.Module):
    """A denoiser that wraps another: same path, target, network and call.

    Args:
        denoiser: the (strong) denoiser, itself guided or not.
        interval: [low, high] in log-SNR where guidance is on; None is everywhere.
    """

    def __init__(self, denoiser: AnyDenoiser, interval: Interval | None = None) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.interval = _check_interval(interval)

    @property
    def path(self) -> Path:
        """The path of the strong denoiser."""
        return self.denoiser.path

    @property
    def target(self) -> Target:
        """The target of the strong denoiser."""
        return self.denoiser.target

    @property
    def network(self) -> nn.Module:
        """The network of the strong denoiser."""
        return self.denoiser.network

    def is_on(self, t: Tensor) -> Tensor:
        """(B,) bool: log-SNR at ``t`` lies in the interval, or so near an end that it means the end."""
        if self.interval == (-math.inf, math.inf):
            return torch.ones_like(t, dtype=torch.bool)
        t = t.double()
        cleaner, noisier = t * (1 - _SAME_TIME), (t * (1 + _SAME_TIME)).clamp(max=self.path.noise_end)
        low, high = self.interval[0] - _SAME_LOG_SNR, self.interval[1] + _SAME_LOG_SNR
        return (self.path.log_snr(cleaner) >= low) & (self.path.log_snr(noisier) <= high)

    def is_off(self, on: Tensor) -> bool:
        """Whether no sample of the batch is guided; without an interval this needs no look at the device."""
        return self.interval != (-math.inf, math.inf) and not bool(on.any())

    def rewritten(self, strong: Prediction, t: Tensor, x0: Tensor, eps: Tensor) -> Prediction:
        """``strong`` with other data and noise; a learned variance stays as it was."""
        return strong._replace(x0=x0, eps=eps, output=self.target.encode(self.path, t, x0, eps))

    def extrapolated(self, strong: Prediction, weak: Prediction, t: Tensor, gain: Tensor) -> Prediction:
        """Strong + gain (strong - weak); gain, which broadcasts to x0, is scale - 1 where guidance is on, else 0."""
        x0, eps = (good + gain * (good - bad) for good, bad in ((strong.x0, weak.x0), (strong.eps, weak.eps)))
        return self.rewritten(strong, t, x0, eps)


def unguided(denoiser: AnyDenoiser) -> AnyDenoiser:
    """The denoiser as it is."""
    return denoiser


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
        return self.extrapolated(strong, weak, t, self._gain(on, strong.x0))

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
    fraction = (None, None) if both.variance_fraction is None else both.variance_fraction.chunk(2)
    pairs = zip(both.x0.chunk(2), both.eps.chunk(2), both.output.chunk(2), fraction)
    strong, weak = (Prediction(*values) for values in pairs)
    return strong, weak


class ClassifierFree(_TwoConditions):
    """Classifier-free guidance: away from the unconditional prediction of the same network.

    Args:
        denoiser: trained with dropout of its condition; its network's ``kind`` names the null condition.
        scale: guidance scale, 1 is off (DiT's and SiT's ``cfg_scale``; 1 + w of the paper).
        channels: guide the first k channels only, the others staying conditional; None guides all. DiT's
            released numbers guide 3 of 4: its 1.5 on 3 channels is about 1.375 on 4.
        interval: [low, high] in log-SNR where guidance is on; None is everywhere.

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
    ) -> None:
        super().__init__(denoiser, scale, _kind_of(denoiser).null, channels, interval)


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
        gain = per_sample((self.scale - 1) * on.to(strong.x0.dtype), strong.x0)
        return self.extrapolated(strong, self.weak(x_t, t, self._known(condition)), t, gain)

    def _known(self, condition: Condition) -> Condition:
        """The condition as the weak network knows it."""
        strong, weak = (getattr(one.network, "kind", None) for one in (self.denoiser, self.weak))
        if not condition or weak is None or weak == strong:
            return condition
        first = next(iter(condition.values()))
        return weak.null(len(first), first.device)


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
