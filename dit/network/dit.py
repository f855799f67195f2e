"""The diffusion transformer: patches in, the output F out, told the time and a condition.

Legend: B batch, C channels, P points of a patch along an axis, N tokens, M condition tokens, D width; L tokens of a
text, W channels of each.
"""

import math
from functools import reduce

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from dit.condition import NOTHING, Classes, Condition, ConditionKind, Text, find
from dit.domain import Domain
from dit.network.base import Network
from dit.network.blocks import Block, make_norm, modulate
from dit.network.embeddings import Grid, resize_positions, rope_table, sincos_table, time_features
from dit.network.options import N_TIME_FEATURES, DiTOptions, check_fits
from dit.network.parametrization import init_parameter


class PatchEmbedder(nn.Module):
    """Each patch of (B, C, ...) to a token (B, N, D); the papers' convolution as a matrix product."""

    def __init__(self, patch: tuple[int, ...], channels: int, width: int) -> None:
        super().__init__()
        points, lattice, within = _axes(patch)
        self.pattern = f"b c {points} -> b ({lattice}) (c {within})"
        self.sizes = _sizes("p", patch)
        self.proj = nn.Linear(channels * math.prod(patch), width)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(rearrange(x, self.pattern, **self.sizes))


class TokenEmbedder(nn.Module):
    """Tokens (B, 1, ...) of V values to vectors (B, N, D); -1 stands for a masked token, whose row is the first."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary + 1, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.table(x.flatten(1) + 1)


def _axes(patch: tuple[int, ...]) -> tuple[str, str, str]:
    """Axes in the words of einops: as points "(n0 p0) (n1 p1)", as tokens "n0 n1", within a patch "p0 p1"."""
    axes = range(len(patch))
    points, tokens, within = (
        " ".join(word.format(i) for i in axes) for word in ("(n{0} p{0})", "n{0}", "p{0}")
    )
    return points, tokens, within


def _sizes(name: str, sizes: tuple[int, ...]) -> dict[str, int]:
    """Sizes of axes by their names in ``_axes``."""
    return {f"{name}{axis}": size for axis, size in enumerate(sizes)}


class TimeEmbedder(nn.Module):
    """Time as shown to the network (B,) to a vector (B, D)."""

    def __init__(self, width: int, convention: str) -> None:
        super().__init__()
        self.convention = convention
        self.mlp = nn.Sequential(nn.Linear(N_TIME_FEATURES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        return self.mlp(time_features(t, self.convention).to(dtype))


class TextEmbedder(nn.Module):
    """Encoded tokens of a text (B, L, W) and their mask (B, L) to tokens (B, 1 + L, D) and theirs.

    The first is learned and always there: a text without tokens shows this one alone, and attention always has a key.

    Source: PixArt-alpha 2310.00426, whose two linear maps with a GELU these are. Its null condition is a learned text.
    """

    def __init__(self, kind: Text, width: int) -> None:
        super().__init__()
        self.null = nn.Parameter(torch.empty(width))
        self.fc1, self.fc2 = nn.Linear(kind.width, width), nn.Linear(width, width)

    def forward(self, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.fc2(F.gelu(self.fc1(text.to(self.fc1.weight.dtype)), approximate="tanh"))
        null = self.null.to(tokens.dtype).expand(len(text), 1, -1)
        return torch.cat([null, tokens], dim=1), F.pad(mask, (1, 0), value=True)


class FinalLayer(nn.Module):
    """Tokens (B, N, D) to patches of the output (B, N, P ... C_out), modulated where the blocks are."""

    def __init__(self, config: DiTOptions, patch_channels: int) -> None:
        super().__init__()
        self.norm = make_norm(config, config.width, affine=not config.is_modulated)
        self.modulation = nn.Linear(config.width, 2 * config.width) if config.is_modulated else None
        self.linear = nn.Linear(config.width, patch_channels)

    def forward(self, x: Tensor, vector: Tensor | None) -> Tensor:
        x = self.norm(x)
        if self.modulation is not None:
            x = modulate(x, *self.modulation(vector).unsqueeze(1).chunk(2, dim=-1))
        return self.linear(x)


class DiT(Network):
    """The network F(x, t, condition) of a configuration, for samples of one domain and conditions of one kind.

    Args:
        config: shape and options.
        domain: the samples it is built for; other sizes work too, see ``forward``.
        kind: what it is told besides the time.
        out_channels: channels of the output; None means those of the domain, of tokens one for each value.
        seed: of the initial weights, which do not depend on torch's global random state.

    Raises:
        InputError: the network does not fit the data; raised before anything is built.

    Source: 2212.09748, figure 3; options from 2209.12152, 2501.01423 and 2310.00426.
    """

    config: DiTOptions
    position_table: Tensor
    rope: Tensor | None

    def __init__(
        self,
        config: DiTOptions,
        domain: Domain,
        kind: ConditionKind,
        out_channels: int | None = None,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.domain, self.out_channels = domain, check_fits(config, domain, kind, out_channels)
        self.config, self.kind, self.n_extra_tokens = config, kind, config.n_extra_tokens(kind)
        self.turns_velocity = config.time_convention == "sit"
        self.is_modulated, self.attends, self.n_skips = config.is_modulated, config.attends, config.n_skips
        self.patch = config.patch(len(domain.sizes))
        self.grid: Grid = domain.lattice(self.patch)
        points, lattice, within = _axes(self.patch)
        self.unpatch = f"b ({lattice}) ({within} c) -> b c {points}"
        n_tokens = domain.tokens(self.patch)
        device = torch.get_default_device()
        with torch.device("meta"):  # torch's own initialisers cost time and draw from the global random state
            self.x_embedder = (
                TokenEmbedder(domain.vocabulary, config.width)
                if domain.vocabulary
                else PatchEmbedder(self.patch, domain.channels, config.width)
            )
            self.t_embedder = TimeEmbedder(config.width, config.time_convention)
            if classes := find(kind, Classes):
                self.y_embedder = nn.Embedding(classes.n + 1, config.width)
            if text := find(kind, Text):
                self.text_embedder = TextEmbedder(text, config.width)
                if text.pooled:
                    self.pooled_embedder = nn.Linear(text.pooled, config.width)
            first_join = config.depth - config.n_skips
            self.blocks = nn.ModuleList(
                Block(config, joins_skip=i >= first_join) for i in range(config.depth)
            )
            self.final_layer = FinalLayer(config, math.prod(self.patch) * self.out_channels)
            if config.positions == "learned":
                self.pos_embed = nn.Parameter(torch.empty(n_tokens, config.width))
            else:
                self.register_buffer("position_table", torch.empty(n_tokens, config.width), persistent=False)
            n_rotated = n_tokens + self.n_extra_tokens
            rope = torch.empty(2, n_rotated, config.head_dim // 2) if config.rope else None
            self.register_buffer("rope", rope, persistent=False)
        if device.type != "meta":
            self.to_empty(device=device)
            self.init_weights(torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Sets every parameter and table from the generator (on CPU) and the configuration alone.

        | parameter | initial value (standard) | with muP, m = 288/D |
        |---|---|---|
        | ``x_embedder.proj``, ``text_embedder.fc1``, ``pooled_embedder`` weights | Xavier | fan-out taken as 288 |
        | ``x_embedder.table`` of tokens | N(0, 0.02^2) | the same |
        | ``t_embedder.mlp.0`` weight, ``y_embedder``, learned ``pos_embed`` | N(0, 0.02^2) | the same |
        | ``t_embedder.mlp.2`` weight | N(0, 0.02^2) | N(0, m 0.02^2) |
        | ``attn``, ``cross_attn``, ``mlp``, ``text_embedder.fc2`` weights | Xavier, qkv as one matrix | the same |
        | ``modulation``, ``final_layer.linear`` weights | 0: silent blocks and output | the same |
        | ``cross_attn.proj`` weight under adaLN-Zero | 0: silent as the rest of the block | the same |
        | ``skip`` weight | identity on the stream, 0 on the skip | the same |
        | gains of norms | 1 | the same |
        | all biases, ``text_embedder.null`` | 0 | the same |

        (Xavier's uniform; its scale already falls as 1/sqrt(D).) Learning rates: ``parametrization.lr_multiplier``.
        Source: DiT 2212.09748 section 3.2 and its published initialisation; U-ViT draws its skips at random.
        """
        self.fill_tables()
        for name, parameter in self.named_parameters():
            init_parameter(name, parameter, self.config, generator)

    @torch.no_grad()
    def fill_tables(self) -> None:
        """Recomputes the tables no checkpoint stores; needed after ``to_empty`` of a network on meta."""
        if self.config.positions == "sincos":
            self.position_table.copy_(sincos_table(self.config.width, self.grid))
        if self.rope is not None:
            self.rope.copy_(rope_table(self.config.head_dim, self.grid, n_extra=self.n_extra_tokens))

    def forward(self, x: Tensor, t: Tensor, told: Condition = NOTHING) -> Tensor:
        """The output F.

        The residual stream has the dtype of matrix products: bfloat16 under such autocast, or where weights are so.

        Args:
            x: (B, C, ...) noised samples, integers where they are tokens; sizes any multiple of P: positions stretch
                with the lattice.
            t: (B,) time as shown to the network (0 to 1000 or so), float32: bfloat16 rounds it away.
            told: the condition; an empty one is the null condition.

        Returns:
            F (B, C_out, ...) in the dtype of x, float32 of tokens.
        """
        grid, dtype = self._lattice(x), self.final_layer.linear.weight.dtype
        tokens = self.x_embedder(x.to(dtype) if x.is_floating_point() else x)  # (B, N, D)
        tokens = tokens + self._positions(grid).to(tokens.dtype)
        vectors, extra, mask = self._embedded(t, told or self.kind.null(len(t), t.device), dtype)
        vector = attended = None
        if self.is_modulated:
            vector = F.silu(reduce(torch.add, vectors))  # (B, D); once here instead of once per block
        if self.attends:
            attended = torch.cat(extra, dim=1)  # (B, M, D)
        elif extra:
            tokens = torch.cat([*(one.to(tokens.dtype) for one in extra), tokens], dim=1)  # (B, M + N, D)
        tokens = self._through_blocks(tokens, vector, self._rotations(grid), attended, mask)
        patches = self.final_layer(tokens[:, self.n_extra_tokens :], vector)  # (B, N, P ... C_out)
        out = rearrange(patches, self.unpatch, **_sizes("n", grid), **_sizes("p", self.patch))
        if self.turns_velocity:  # it is d x / d (1 - t)
            out = -out
        return out.to(x.dtype if x.is_floating_point() else torch.float32)

    def _lattice(self, x: Tensor) -> Grid:
        """Tokens of x along each axis."""
        sizes = tuple(x.shape[2:])
        if sizes == self.domain.sizes:
            return self.grid
        return Domain(self.domain.channels, sizes, self.domain.vocabulary).lattice(self.patch)

    def _embedded(
        self, t: Tensor, told: Condition, dtype: torch.dtype
    ) -> tuple[list[Tensor], list[Tensor], Tensor | None]:
        """Time and condition: vectors (B, D) that modulate, tokens (B, m, D), and which of all tokens are there.

        adaLN takes the label as a vector too. Without modulation vectors are tokens, the first ones.
        """
        vectors, tokens, mask = [self.t_embedder(t, dtype)], list[Tensor](), None
        if "pooled" in told:
            vectors.append(self.pooled_embedder(told["pooled"].to(dtype)))
        if "label" in told:
            label = self.y_embedder(told["label"])
            if self.attends or not self.is_modulated:
                tokens.append(label.unsqueeze(1))
            else:
                vectors.append(label)
        if not self.is_modulated:
            tokens, vectors = [*(vector.unsqueeze(1) for vector in vectors), *tokens], []
        if "text" in told:
            text, mask = self.text_embedder(told["text"], told["text_mask"])
            mask = F.pad(mask, (sum(one.shape[1] for one in tokens), 0), value=True)
            tokens.append(text)
        return vectors, tokens, mask

    def _through_blocks(
        self,
        tokens: Tensor,
        vector: Tensor | None,
        rope: Tensor | None,
        told: Tensor | None,
        mask: Tensor | None,
    ) -> Tensor:
        skips: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            skip = skips.pop() if i >= len(self.blocks) - self.n_skips else None
            tokens = block(tokens, vector, rope, skip, told, mask)
            if i < self.n_skips:
                skips.append(tokens)
        return tokens

    def _positions(self, grid: Grid) -> Tensor:
        if self.config.positions == "learned":
            return self.pos_embed if grid == self.grid else resize_positions(self.pos_embed, self.grid, grid)
        if grid == self.grid:
            return self.position_table
        return sincos_table(self.config.width, grid, self.grid, self.position_table.device)

    def _rotations(self, grid: Grid) -> Tensor | None:
        if self.rope is None or grid == self.grid:
            return self.rope
        return rope_table(self.config.head_dim, grid, self.grid, self.n_extra_tokens, self.rope.device)
