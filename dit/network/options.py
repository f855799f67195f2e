"""What a diffusion transformer is made of, as one checked value; imports no torch, so planning stays fast.

Legend: C H W latent, P patch, D width, N tokens.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dit.condition import ConditionKind, Text, find
from dit.domain import Domain
from dit.errors import InputError, check_choice, check_number

CONDITIONINGS = ("adaln_zero", "adaln", "cross_attention", "in_context", "adaln_zero_cross_attention")
NORMS = ("layer", "rms")
MLPS = ("gelu", "swiglu")
POSITIONS = ("sincos", "learned")
PARAMETRIZATIONS = ("standard", "mup")
TIME_CONVENTIONS = ("dit", "diffusers", "sit", "reversed", "repa")

N_TIME_FEATURES = 256  # sines and cosines of t before the time MLP, in every published DiT
# Maps of a fixed number of inputs: patches, encoded tokens, pooled vectors.
FIXED_INPUTS = ("x_embedder", "text_embedder.fc1", "pooled_embedder")
MUP_BASE_WIDTH = 288  # here muP and the standard parametrization are the same network (2505.15270)


@dataclass(frozen=True)
class DiTOptions:
    """Shape and options of one network; the data's shape and number of classes are not part of it.

    Args:
        width: D, channels of a token.
        depth: number of transformer blocks.
        heads: attention heads; D must be a multiple of it.
        patch_size: P, points per token along every axis, or a number for each axis.
        mlp_ratio: hidden width of the GELU MLP over D; SwiGLU takes two thirds of it, which costs the same.
        conditioning: how time and condition enter: ``adaln_zero`` | ``adaln`` | ``cross_attention`` | ``in_context``
            (DiT section 3.2), or ``adaln_zero_cross_attention``: time modulates, and the condition's tokens are
            attended to (PixArt-alpha section 2.2). Texts need one of the two that attend.
        norm: ``layer`` | ``rms``. RMSNorm always has a learned gain, LayerNorm where nothing modulates it.
        mlp: ``gelu`` (tanh form) | ``swiglu``.
        positions: added to the tokens: ``sincos`` (a fixed table) | ``learned``.
        rope: rotate queries and keys as well, each axis turning its share of the pairs (RoPE).
        qk_norm: normalise queries and keys per head.
        long_skips: join block i to block depth-1-i as U-ViT does.
        parametrization: ``standard`` | ``mup`` (base width 288): initial scales and learning rates per width.
        time_convention: what time means to the weights; new ones use ``dit``. ``diffusers`` has slightly
            other frequencies. ``repa`` has time in [0, 1]; ``reversed`` has it from noise to data (noise or
            score of SiT), and ``sit`` as well (velocity of SiT and LightningDiT): a velocity, being a
            derivative by time, then has the other sign. The caller shows t in [0, 1000], rising with noise,
            to all of them.

    Raises:
        InputError: an impossible value; the key is the one a user writes, ``network.<field>``.

    Source: DiT 2212.09748, U-ViT 2209.12152, LightningDiT 2501.01423, PixArt-alpha 2310.00426, muP for DiT 2505.15270.
    """

    width: int
    depth: int
    heads: int
    patch_size: int | tuple[int, ...]
    mlp_ratio: float = 4.0
    conditioning: str = "adaln_zero"
    norm: str = "layer"
    mlp: str = "gelu"
    positions: str = "sincos"
    rope: bool = False
    qk_norm: bool = False
    long_skips: bool = False
    parametrization: str = "standard"
    time_convention: str = "dit"

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads"):
            check_number(f"network.{name}", getattr(self, name), low=1, integer=True)
        if isinstance(self.patch_size, Sequence) and not isinstance(self.patch_size, str):
            object.__setattr__(self, "patch_size", tuple(self.patch_size))
        if self.patch_size == ():
            raise InputError("network.patch_size", [], "a number, or one for each axis")
        for size in self.patch(1):
            check_number("network.patch_size", size, low=1, integer=True)
        check_number("network.mlp_ratio", self.mlp_ratio, above=0)
        check_choice("network.conditioning", self.conditioning, CONDITIONINGS)
        check_choice("network.norm", self.norm, NORMS)
        check_choice("network.mlp", self.mlp, MLPS)
        check_choice("network.positions", self.positions, POSITIONS)
        check_choice("network.parametrization", self.parametrization, PARAMETRIZATIONS)
        check_choice("network.time_convention", self.time_convention, TIME_CONVENTIONS)
        for name in ("rope", "qk_norm", "long_skips"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"network.{name}", getattr(self, name), "true or false")
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.width % self.heads:
            raise InputError("network.heads", self.heads, f"a divisor of network.width={self.width}")
        if self.positions == "sincos" and self.width % 4:
            raise InputError(
                "network.width",
                self.width,
                "a multiple of 4: sine and cosine of row and column",
            )
        if self.rope and self.head_dim % 4:
            raise InputError(
                "network.heads",
                self.heads,
                "a number that makes width/heads a multiple of 4: rope rotates pairs for row and column",
            )
        if self.mlp_width < 1:
            raise InputError("network.mlp_ratio", self.mlp_ratio, f"at least {1.5 / self.width:.4g}")
        if self.long_skips and self.depth < 3:
            raise InputError("network.depth", self.depth, ">= 3 with network.long_skips=true")

    def patch(self, n_axes: int) -> tuple[int, ...]:
        """Points per token along each axis."""
        return self.patch_size if isinstance(self.patch_size, tuple) else (self.patch_size,) * n_axes

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.width // self.heads

    @property
    def mlp_width(self) -> int:
        """Hidden channels of the MLP; for SwiGLU of each of its two halves."""
        hidden = int(self.width * self.mlp_ratio)
        return int(2 / 3 * hidden) if self.mlp == "swiglu" else hidden

    @property
    def is_modulated(self) -> bool:
        """Whether time scales and shifts normalised activations (adaLN and adaLN-Zero)."""
        return self.conditioning.startswith("adaln")

    @property
    def attends(self) -> bool:
        """Whether blocks attend to tokens of the condition."""
        return self.conditioning.endswith("cross_attention")

    @property
    def n_modulations(self) -> int:
        """Vectors of width D that each block regresses from what modulates it."""
        return 0 if not self.is_modulated else 4 if self.conditioning == "adaln" else 6

    def n_extra_tokens(self, kind: ConditionKind) -> int:
        """Condition tokens that go through the blocks beside those of the image."""
        return 1 + kind.n_tokens if self.conditioning == "in_context" else 0

    def n_attended_tokens(self, kind: ConditionKind) -> int:
        """Condition tokens that blocks attend to: without modulation also time and a text's pooled vector."""
        if not self.attends:
            return 0
        text = find(kind, Text)
        vectors = 0 if self.is_modulated else 1 + bool(text and text.pooled)
        return vectors + kind.n_tokens

    @property
    def n_skips(self) -> int:
        """Long skips: one per block of the second half (the middle of an odd depth has none)."""
        return self.depth // 2 if self.long_skips else 0

    def as_dict(self) -> dict[str, Any]:
        """Every field by name, for records and files."""
        return dataclasses.asdict(self)


def check_fits(
    options: DiTOptions, domain: Domain, kind: ConditionKind, out_channels: int | None = None
) -> int:
    """Raises InputError unless a network of ``options`` fits this data; counting and building both ask.

    Args:
        options: the network.
        domain: what one sample is.
        kind: what the network is told.
        out_channels: channels of the output; None means those of the domain, of tokens one for each value.

    Returns:
        The number of output channels.
    """
    n_axes = len(domain.sizes)
    out_channels = (domain.vocabulary or domain.channels) if out_channels is None else out_channels
    check_number("out_channels", out_channels, low=1, integer=True)
    domain.lattice(options.patch(n_axes))
    if options.positions == "sincos" and options.width < 2 * n_axes:
        raise InputError(
            "network.width", options.width, f"at least {2 * n_axes}: sine and cosine of {n_axes} axes"
        )
    if options.rope and options.head_dim < 2 * n_axes:
        allowed = f"heads of at least {2 * n_axes} channels: rope rotates pairs for each of {n_axes} axes"
        raise InputError("network.heads", options.heads, allowed)
    if options.positions == "learned" and n_axes > 3:
        raise InputError("network.positions", "learned", f"sincos for {n_axes} axes")
    if find(kind, Text) is not None and not options.attends:
        allowed = " or ".join(name for name in CONDITIONINGS if name.endswith("cross_attention"))
        raise InputError("network.conditioning", options.conditioning, f"{allowed}, for data with texts")
    if options.attends and not options.n_attended_tokens(kind):
        allowed = "adaln_zero, where the network is told nothing to attend to"
        raise InputError("network.conditioning", options.conditioning, allowed)
    return out_channels
