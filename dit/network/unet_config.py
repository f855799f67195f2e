"""The configuration of a convolutional U-Net, which builds and counts itself; imports torch only to build.

Legend: C channels of the data, W base width, c channels of a level, p its points, T = 4 W channels of the time vector.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from dit.condition import Classes, ConditionKind, Nothing
from dit.domain import Domain
from dit.errors import InputError, check_number
from dit.network.counting import Counts

if TYPE_CHECKING:
    from torch import Tensor

    from dit.network.unet import UNet


class Layer(NamedTuple):
    """What one layer adds to the counts: its group, trainable parameters, multiply-adds of one image."""

    group: str
    parameters: int
    macs: int = 0


@dataclass(frozen=True)
class UNetConfig:
    """The U-Net of DDPM or, with ``scale_shift``, of iDDPM and ADM, as diffusers' ``UNet2DModel`` builds it.

    Two residual convolutions a block, the time vector added between them (or scaling and shifting the second
    norm); a strided convolution down to each next level and a nearest-neighbour enlargement with a convolution back;
    self-attention behind the blocks of some levels, and between the two blocks in the middle.

    Args:
        width: W, channels of the first level.
        multipliers: channels of each level over W; each level halves the sides.
        blocks: residual blocks of a level on the way down; one more on the way up.
        attention: levels with attention, 0 the first; the middle always has it.
        head_dim: channels of one attention head; None makes one head.
        groups: of every group norm.
        scale_shift: whether the time scales and shifts, as in iDDPM and ADM, in place of being added.

    Raises:
        InputError: an impossible value.

    Source: DDPM 2006.11239, appendix B; iDDPM 2102.09672; ADM 2105.05233, section 3.
    """

    width: int
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (1,)
    head_dim: int | None = None
    groups: int = 32
    scale_shift: bool = False

    parametrization: ClassVar[str] = "standard"

    def __post_init__(self) -> None:
        check_number("network.width", self.width, low=2, integer=True)
        check_number("network.blocks", self.blocks, low=1, integer=True)
        check_number("network.groups", self.groups, low=1, integer=True)
        for name, low in (("multipliers", 1), ("attention", 0)):
            value = getattr(self, name)
            if isinstance(value, str) or not hasattr(value, "__iter__"):
                raise InputError(f"network.{name}", value, "a list of whole numbers")
            object.__setattr__(self, name, tuple(value))
            for each in getattr(self, name):
                check_number(f"network.{name}", each, low=low, integer=True)
        if not self.multipliers:
            raise InputError("network.multipliers", [], "one number per level")
        if any(level >= len(self.multipliers) for level in self.attention):
            raise InputError(
                "network.attention", list(self.attention), f"levels 0 to {len(self.multipliers) - 1}"
            )
        if not isinstance(self.scale_shift, bool):
            raise InputError("network.scale_shift", self.scale_shift, "true or false")
        if self.width % self.groups or self.width % 2:
            allowed = f"an even multiple of network.groups={self.groups}"
            raise InputError("network.width", self.width, allowed)
        if self.head_dim is not None:
            check_number("network.head_dim", self.head_dim, low=1, integer=True)
            attended = {self.channels[level] for level in (*self.attention, -1)}
            if any(channels % self.head_dim for channels in attended):
                allowed = f"a divisor of the {sorted(attended)} channels where there is attention"
                raise InputError("network.head_dim", self.head_dim, allowed)

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.width * multiplier for multiplier in self.multipliers)

    @property
    def facts(self) -> dict[str, Any]:
        """What a run's record says of its network."""
        return {"kind": "unet", **self.as_dict(), "depth": len(self.multipliers) * self.blocks}

    def as_dict(self) -> dict[str, Any]:
        """Every field by name, for records and files."""
        return dataclasses.asdict(self)

    def check_fits(self, domain: Domain, kind: ConditionKind) -> None:
        """Raises InputError unless the network fits these data."""
        if len(domain.sizes) != 2 or domain.vocabulary:
            allowed = f"dit for samples {domain.shape}: convolutions take numbers on two axes"
            raise InputError("network", "unet", allowed)
        if not isinstance(kind, (Classes, Nothing)):
            raise InputError(
                "network", "unet", "dit for such conditions", "A U-Net is told a class, or nothing."
            )
        factor = 2 ** (len(self.multipliers) - 1)
        if any(size % factor for size in domain.sizes):
            shown = "x".join(map(str, domain.sizes))
            allowed = f"few enough levels that 2^(levels - 1) divides the sides of the {shown} input"
            raise InputError("network.multipliers", list(self.multipliers), allowed)

    def lr_multiplier(self, name: str, parameter: "Tensor") -> float:
        """One learning rate for all."""
        return 1.0

    def decays(self, name: str, parameter: "Tensor") -> bool:
        """Whether weight decay acts: on matrices and kernels, not on vectors and the embedding of classes."""
        return parameter.ndim > 1 and "class_embedding" not in name

    def hidden_maps(self, name: str) -> int:
        """How many linear maps a parameter stacks for Muon: none, its kernels have no published rule here."""
        return 0

    def build(
        self, domain: Domain, kind: ConditionKind, out_channels: int | None = None, *, seed: int = 0
    ) -> "UNet":
        """The network for samples of one domain and conditions of one kind; ``DiTConfig.build`` has the arguments."""
        from dit.network.unet import UNet

        return UNet(self, domain, kind, out_channels, seed=seed)

    def count(self, domain: Domain, kind: ConditionKind, out_channels: int | None = None) -> Counts:
        """The parameters and multiply-adds of ``build``'s network; a token is a point of the input."""
        self.check_fits(domain, kind)
        parameters, macs = Counter[str](), Counter[str]()
        for layer in self._layers(domain, kind, domain.channels if out_channels is None else out_channels):
            parameters[layer.group] += layer.parameters
            macs[layer.group] += layer.macs
        macs = {group: n for group, n in macs.items() if n}
        return Counts(dict(parameters), 0, macs, domain.tokens((1, 1)))

    def _layers(self, domain: Domain, kind: ConditionKind, out_channels: int) -> Iterator[Layer]:
        points, channels, top = domain.tokens((1, 1)), self.channels, len(self.multipliers) - 1
        yield Layer("time_embedding", 20 * self.width**2 + 8 * self.width, 20 * self.width**2)  # W T + T T
        if isinstance(kind, Classes):
            yield Layer("label_embedding", (kind.n + 1) * 4 * self.width)
        yield _convolution(domain.channels, self.width, points)
        skips, c = [self.width], self.width
        for level, wide in enumerate(channels):
            at = points >> 2 * level
            for _ in range(self.blocks):
                yield from self._block(c, wide, at, attends=level in self.attention)
                c = wide
                skips.append(c)
            if level < top:
                yield _convolution(c, c, at >> 2)
                skips.append(c)
        at = points >> 2 * top
        yield from self._block(c, c, at, attends=True)
        yield from self._block(c, c, at, attends=False)
        for level in range(top, -1, -1):
            at, wide = points >> 2 * level, channels[level]
            for _ in range(self.blocks + 1):
                yield from self._block(c + skips.pop(), wide, at, attends=level in self.attention)
                c = wide
            if level:
                yield _convolution(c, c, at << 2)
        yield Layer("norms", 2 * c)
        yield _convolution(c, out_channels, points)

    def _block(self, c_in: int, c_out: int, points: int, *, attends: bool) -> Iterator[Layer]:
        """A residual block of two convolutions, and the attention behind it."""
        yield Layer("norms", 2 * c_in + 2 * c_out)
        yield _convolution(c_in, c_out, points)
        told = c_out * (2 if self.scale_shift else 1)
        yield Layer("modulation", (4 * self.width + 1) * told, 4 * self.width * told)
        yield _convolution(c_out, c_out, points)
        if c_in != c_out:
            yield Layer("convolutions", (c_in + 1) * c_out, c_in * c_out * points)  # 1x1, beside them
        if attends:
            yield Layer("norms", 2 * c_out)
            scores = 2 * points**2 * c_out
            yield Layer("attention", 4 * (c_out + 1) * c_out, 4 * c_out**2 * points + scores)


def _convolution(c_in: int, c_out: int, points: int) -> Layer:
    """A 3x3 convolution onto so many points."""
    return Layer("convolutions", (9 * c_in + 1) * c_out, 9 * c_in * c_out * points)
