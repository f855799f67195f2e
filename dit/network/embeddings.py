"""Where a token stands and what time it is: tables of sines and cosines.

Legend: B batch, N tokens, D width. Tokens are in row-major order. Positions follow the grid: on a grid other
than the one a network was built for, coordinates are scaled so that they span the same interval, per axis.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dit.network.options import N_TIME_FEATURES

Grid = tuple[int, ...]  # tokens along each axis


def _coordinates(grid: Grid, base: Grid, device: torch.device | None) -> list[Tensor]:
    """Where each token stands along each axis, (N,) float64, in units of the base grid's tokens."""
    axes = [
        torch.arange(n, dtype=torch.float64, device=device) * (b / n) for n, b in zip(grid, base, strict=True)
    ]
    return [places.flatten() for places in torch.meshgrid(*axes, indexing="ij")]


def _phases(n_pairs: int, grid: Grid, base: Grid | None, device: torch.device | None) -> list[Tensor]:
    """Of each axis the angles (N, k) at which its share of the pairs stands: frequency j is 10000^(-j/k).

    The axes share the pairs equally; the first ones take what is left over.
    """
    share, rest = divmod(n_pairs, len(grid))
    angles = []
    for axis, places in enumerate(_coordinates(grid, base or grid, device)):
        k = share + (axis < rest)
        frequencies = 10_000.0 ** (-torch.arange(k, dtype=torch.float64, device=device) / k)
        angles.append(torch.outer(places, frequencies))
    return angles


def sincos_table(
    width: int, grid: Grid, base: Grid | None = None, device: torch.device | None = None
) -> Tensor:
    """The fixed position table (N, D), float32: sines, then cosines of each axis, the last axis first.

    On two axes these are quarters sin(column), cos(column), sin(row), cos(row) of frequencies 10000^(-4j/D).
    Computed in float64, as the published tables are.

    Source: Vaswani et al. 1706.03762 section 3.5, per axis as in MAE 2111.06377; DiT 2212.09748.
    """
    phases = _phases(width // 2, grid, base, device)
    waves = [wave for angles in reversed(phases) for wave in (angles.sin(), angles.cos())]
    return torch.cat(waves, dim=1).float()


def rope_table(
    head_dim: int, grid: Grid, base: Grid | None = None, n_extra: int = 0, device: torch.device | None = None
) -> Tensor:
    """Cosines and sines (2, n_extra + N, head_dim/2), float32, of the angle by which each pair turns.

    Each axis turns its share of the pairs, the first axis the first ones; on two axes frequency j of the
    head_dim/4 is 10000^(-4j/head_dim). The first ``n_extra`` tokens stand nowhere and do not turn.

    Source: RoFormer 2104.09864 eq. 15, per axis as in EVA-02 2303.11331 and LightningDiT 2501.01423.
    """
    angles = torch.cat(_phases(head_dim // 2, grid, base, device), dim=1)
    angles = F.pad(angles, (0, 0, n_extra, 0))  # angle 0 is no rotation
    return torch.stack([angles.cos(), angles.sin()]).float()


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turns neighbouring pairs of channels of x (B, N, heads, head_dim) by the angles of ``rope_table``."""
    cos, sin = table[0].unsqueeze(1), table[1].unsqueeze(1)  # (N, 1, head_dim/2)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


def resize_positions(learned: Tensor, base: Grid, grid: Grid) -> Tensor:
    """Learned positions (N_base, D) resized to another grid (N, D): bicubically on two axes, else linearly."""
    image = learned.float().unflatten(0, base).movedim(-1, 0).unsqueeze(0)
    mode = {1: "linear", 2: "bicubic", 3: "trilinear"}[len(grid)]
    image = F.interpolate(image, size=grid, mode=mode, antialias=mode == "bicubic")
    return image.squeeze(0).flatten(1).T.to(learned.dtype)


def time_features(t: Tensor, convention: str = "dit") -> Tensor:
    """Cosines, then sines of t (B,) at 128 frequencies from 1 down to about 1e-4: (B, 256) float32.

    Frequency i is 10000^(-i/128). With ``convention="diffusers"`` it is 10000^(-i/127), which is what its
    ``DiTTransformer2DModel`` computes, though the weights published in its format were trained with 128. With
    ``convention="repa"`` the features are those of t/1000, time in [0, 1]; with ``sit`` and ``reversed`` those
    of 1 - t/1000, which runs from noise to data.

    Source: DiT 2212.09748 (frequencies of 1706.03762); SiT 2401.08740; REPA 2410.06940.
    """
    half = N_TIME_FEATURES // 2
    last = half - 1 if convention == "diffusers" else half  # where the frequency would be 1/10,000
    steps = torch.arange(half, dtype=torch.float32, device=t.device)
    # In this order, as DiT rounds: t reaches 1000.
    frequencies = torch.exp(-math.log(10_000.0) * steps / last)
    t = t.float()
    if convention in ("sit", "reversed"):
        t = 1 - t / 1000
    elif convention == "repa":
        t = t / 1000
    angles = t[:, None] * frequencies  # (B, 128)
    return torch.cat([angles.cos(), angles.sin()], dim=1)
