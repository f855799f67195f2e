"""The transformer block and its parts.

Legend: B batch, N tokens, M condition tokens, D width. What modulates (adaLN, adaLN-Zero) is one vector (B, D),
already through its SiLU; what is attended to are M tokens (B, M, D).
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from dit.network.embeddings import rotate
from dit.network.options import DiTOptions

NORM_EPS = 1e-6


def make_norm(config: DiTOptions, channels: int, *, affine: bool) -> nn.Module:
    """The configured normalisation; RMSNorm keeps its gain even where LayerNorm is not ``affine``."""
    if config.norm == "rms":
        return nn.RMSNorm(channels, eps=NORM_EPS)
    return nn.LayerNorm(channels, eps=NORM_EPS, elementwise_affine=affine)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """``x (1 + scale) + shift`` for x (B, N, D), shift and scale (B, 1, D), as one fused operation."""
    return torch.addcmul(shift, x, 1 + scale)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention of q (B, N, heads, head_dim) to k and v (B, M, heads, head_dim), heads joined: (B, N, D).

    Heads stay behind tokens in memory, so that joining them again is no copy. ``mask`` (B, M) marks the keys that are
    there, at least one for each sample; None is all.
    """
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    seen = None if mask is None else mask[:, None, None]  # (B, 1, 1, M)
    return rearrange(F.scaled_dot_product_attention(q, k, v, seen), "b h n d -> b n (h d)")


class Attention(nn.Module):
    """Multi-head attention of tokens among themselves, by torch's SDPA."""

    def __init__(self, config: DiTOptions) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.q_norm = make_norm(config, config.head_dim, affine=True) if config.qk_norm else None
        self.k_norm = make_norm(config, config.head_dim, affine=True) if config.qk_norm else None
        self.proj = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, rope: Tensor | None) -> Tensor:
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b n h d", three=3, h=self.heads).unbind(0)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if rope is not None:
            rope = rope.to(q.dtype)
            q, k = rotate(q, rope), rotate(k, rope)
        return self.proj(attend(q, k, v))


class CrossAttention(nn.Module):
    """Multi-head attention of tokens (B, N, D) to condition tokens (B, M, D), of which ``mask`` (B, M) are there."""

    def __init__(self, config: DiTOptions) -> None:
        super().__init__()
        self.heads = config.heads
        self.q = nn.Linear(config.width, config.width)
        self.kv = nn.Linear(config.width, 2 * config.width)
        self.q_norm = make_norm(config, config.head_dim, affine=True) if config.qk_norm else None
        self.k_norm = make_norm(config, config.head_dim, affine=True) if config.qk_norm else None
        self.proj = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        q = rearrange(self.q(x), "b n (h d) -> b n h d", h=self.heads)
        k, v = rearrange(self.kv(tokens), "b m (two h d) -> two b m h d", two=2, h=self.heads).unbind(0)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        return self.proj(attend(q, k, v, mask))


class GeluMLP(nn.Module):
    """Two linear maps with a tanh-form GELU between them."""

    def __init__(self, config: DiTOptions) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.width, config.mlp_width)
        self.fc2 = nn.Linear(config.mlp_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class SwiGLU(nn.Module):
    """``fc2(silu(a) * b)`` where fc1 gives a and b. Source: Shazeer 2002.05202."""

    def __init__(self, config: DiTOptions) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.width, 2 * config.mlp_width)
        self.fc2 = nn.Linear(config.mlp_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.fc1(x).chunk(2, dim=-1)
        return self.fc2(F.silu(gate) * value)


class Block(nn.Module):
    """One transformer block: attention, cross-attention where configured, MLP, each added to the stream.

    Args:
        config: the network.
        joins_skip: whether the block also reads the output of an early block (U-ViT's long skips).
    """

    def __init__(self, config: DiTOptions, *, joins_skip: bool = False) -> None:
        super().__init__()
        self.conditioning, self.is_modulated = config.conditioning, config.is_modulated
        self.attends = config.attends
        affine = not config.is_modulated
        self.skip = nn.Linear(2 * config.width, config.width) if joins_skip else None
        self.norm1 = make_norm(config, config.width, affine=affine)
        self.attn = Attention(config)
        if config.attends:
            self.norm_cross = make_norm(config, config.width, affine=affine)
            self.cross_attn = CrossAttention(config)
        self.norm2 = make_norm(config, config.width, affine=affine)
        self.mlp = SwiGLU(config) if config.mlp == "swiglu" else GeluMLP(config)
        if config.is_modulated:
            self.modulation = nn.Linear(config.width, config.n_modulations * config.width)

    def forward(
        self,
        x: Tensor,
        vector: Tensor | None,
        rope: Tensor | None = None,
        skip: Tensor | None = None,
        told: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The stream after this block.

        Args:
            x: (B, N, D).
            vector: (B, D) that modulates, or None where nothing does.
            rope: (2, N, head_dim/2) rotations, or None.
            skip: (B, N, D) output of the early block joined here, or None.
            told: (B, M, D) condition tokens to attend to, or None.
            mask: (B, M), which of them are there; None is all.
        """
        if self.skip is not None:
            assert skip is not None, "this block joins a long skip and was given none"
            x = self.skip(torch.cat([x, skip], dim=-1))
        if self.conditioning == "adaln":
            shift1, scale1, shift2, scale2 = self.modulation(vector).unsqueeze(1).chunk(4, dim=-1)
            x = x + self.attn(modulate(self.norm1(x), shift1, scale1), rope)
            return x + self.mlp(modulate(self.norm2(x), shift2, scale2))
        if self.is_modulated:
            modulation = self.modulation(vector).unsqueeze(1)  # (B, 1, 6D)
            shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, dim=-1)
            x = torch.addcmul(x, gate1, self.attn(modulate(self.norm1(x), shift1, scale1), rope))
            x = self._attended(x, told, mask)
            return torch.addcmul(x, gate2, self.mlp(modulate(self.norm2(x), shift2, scale2)))
        x = self._attended(x + self.attn(self.norm1(x), rope), told, mask)
        return x + self.mlp(self.norm2(x))

    def _attended(self, x: Tensor, told: Tensor | None, mask: Tensor | None) -> Tensor:
        """The stream with what cross-attention adds to it; PixArt-alpha 2310.00426 has no norm in front of it."""
        if not self.attends:
            return x
        assert told is not None, "cross-attention needs the condition's tokens"
        return x + self.cross_attn(self.norm_cross(x), told, mask)
