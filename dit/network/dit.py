"""The diffusion transformer: patches in, the output F out, time and label as the condition.

Legend: B batch, C H W latent, P patch, N = (H/P)(W/P) tokens, M condition tokens, D width.
"""

from functools import reduce

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from dit.condition import NOTHING, Classes, Condition, ConditionKind
from dit.errors import InputError
from dit.network.blocks import Block, make_norm, modulate
from dit.network.config import N_TIME_FEATURES, DiTConfig, check_fits
from dit.network.embeddings import Grid, resize_positions, rope_table, sincos_table, time_features
from dit.network.parametrization import init_parameter


class PatchEmbedder(nn.Module):
    """Each PxP patch of (B, C, H, W) to a token (B, N, D); the papers' convolution as a matrix product."""

    def __init__(self, patch_size: int, channels: int, width: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Linear(channels * patch_size**2, width)

    def forward(self, x: Tensor) -> Tensor:
        p = self.patch_size
        return self.proj(rearrange(x, "b c (h p) (w q) -> b (h w) (c p q)", p=p, q=p))


class TimeEmbedder(nn.Module):
    """Time as shown to the network (B,) to a vector (B, D)."""

    def __init__(self, width: int, convention: str) -> None:
        super().__init__()
        self.convention = convention
        self.mlp = nn.Sequential(nn.Linear(N_TIME_FEATURES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        return self.mlp(time_features(t, self.convention).to(dtype))


class FinalLayer(nn.Module):
    """Tokens (B, N, D) to patches of the output (B, N, P P C_out), modulated where the blocks are."""

    def __init__(self, config: DiTConfig, out_channels: int) -> None:
        super().__init__()
        self.norm = make_norm(config, config.width, affine=not config.is_modulated)
        self.modulation = nn.Linear(config.width, 2 * config.width) if config.is_modulated else None
        self.linear = nn.Linear(config.width, config.patch_size**2 * out_channels)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        x = self.norm(x)
        if self.modulation is not None:
            x = modulate(x, *self.modulation(condition).unsqueeze(1).chunk(2, dim=-1))
        return self.linear(x)


class DiT(nn.Module):
    """The network F(x, t, condition) of a configuration, for latents of one shape and conditions of one kind.

    Args:
        config: shape and options.
        input_shape: (C, H, W) of the latents it is built for; other H and W work too, see ``forward``.
        kind: what it is told besides the time.
        out_channels: channels of the output; None means C.
        seed: of the initial weights, which do not depend on torch's global random state.

    Raises:
        InputError: the network does not fit the data; raised before anything is built.

    Source: 2212.09748, figure 3; options from 2209.12152 and 2501.01423.
    """

    position_table: Tensor
    rope: Tensor | None

    def __init__(
        self,
        config: DiTConfig,
        input_shape: tuple[int, int, int],
        kind: ConditionKind,
        out_channels: int | None = None,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.input_shape, self.out_channels = check_fits(config, input_shape, out_channels)
        self.config, self.kind, self.n_extra_tokens = config, kind, config.n_extra_tokens(kind)
        channels, height, width = self.input_shape
        self.grid: Grid = (height // config.patch_size, width // config.patch_size)
        n_tokens = self.grid[0] * self.grid[1]
        device = torch.get_default_device()
        with torch.device("meta"):  # torch's own initialisers cost time and draw from the global random state
            self.x_embedder = PatchEmbedder(config.patch_size, channels, config.width)
            self.t_embedder = TimeEmbedder(config.width, config.time_convention)
            if isinstance(kind, Classes):
                self.y_embedder = nn.Embedding(kind.n + 1, config.width)
            first_join = config.depth - config.n_skips
            self.blocks = nn.ModuleList(
                Block(config, joins_skip=i >= first_join) for i in range(config.depth)
            )
            self.final_layer = FinalLayer(config, self.out_channels)
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

    @property
    def turns_velocity(self) -> bool:
        """Whether the weights predict a velocity by a time that runs the other way, which ``forward`` turns round."""
        return self.config.time_convention == "sit"

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Sets every parameter and table from the generator (on CPU) and the configuration alone.

        | parameter | initial value (standard) | with muP, m = 288/D |
        |---|---|---|
        | ``x_embedder.proj`` weight | Xavier uniform | fan-out taken as 288 |
        | ``t_embedder.mlp.0`` weight, ``y_embedder``, learned ``pos_embed`` | N(0, 0.02^2) | the same |
        | ``t_embedder.mlp.2`` weight | N(0, 0.02^2) | N(0, m 0.02^2) |
        | ``attn``, ``cross_attn``, ``mlp`` weights | Xavier uniform, qkv as one matrix | the same |
        | ``modulation``, ``final_layer.linear`` weights | 0: silent blocks and output | the same |
        | ``skip`` weight | identity on the stream, 0 on the skip | the same |
        | gains of norms | 1 | the same |
        | all biases | 0 | the same |

        (Xavier's scale already falls as 1/sqrt(D).) Learning rates: ``parametrization.lr_multiplier``.
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
            x: (B, C, H, W) noised latents; H and W any multiple of P: positions stretch with the grid.
            t: (B,) time as shown to the network (0 to 1000 or so), float32: bfloat16 rounds it away.
            told: the condition; an empty one is the null condition.

        Returns:
            F (B, C_out, H, W) in the dtype of x.
        """
        p, weight = self.config.patch_size, self.x_embedder.proj.weight
        if x.shape[2] % p or x.shape[3] % p:
            raise InputError(
                "network.patch_size", p, f"a divisor of both sides of the {tuple(x.shape[2:])} input"
            )
        grid = (x.shape[2] // p, x.shape[3] // p)
        tokens = self.x_embedder(x.to(weight.dtype))  # (B, N, D)
        tokens = tokens + self._positions(grid).to(tokens.dtype)
        vectors = self._embedded(t, told, weight.dtype)  # (B, D) each
        condition = None
        if self.config.is_modulated:
            condition = F.silu(reduce(torch.add, vectors))  # (B, D); once here instead of once per block
        elif self.config.conditioning == "cross_attention":
            condition = torch.stack(vectors, dim=1)  # (B, M, D)
        else:
            extra = torch.stack(vectors, dim=1).to(tokens.dtype)
            tokens = torch.cat([extra, tokens], dim=1)  # (B, M + N, D)
        tokens = self._through_blocks(tokens, condition, self._rotations(grid))
        patches = self.final_layer(tokens[:, self.n_extra_tokens :], condition)  # (B, N, P P C_out)
        out = rearrange(patches, "b (h w) (p q c) -> b c (h p) (w q)", h=grid[0], p=p, q=p)
        if self.turns_velocity:  # it is d x / d (1 - t)
            out = -out
        return out.to(x.dtype)

    def _embedded(self, t: Tensor, told: Condition, dtype: torch.dtype) -> list[Tensor]:
        """Time and what else the network is told, a vector (B, D) each."""
        vectors = [self.t_embedder(t, dtype)]
        if isinstance(self.kind, Classes):
            told = told or self.kind.null(len(t), t.device)
            vectors.append(self.y_embedder(told["label"]))
        return vectors

    def _through_blocks(self, tokens: Tensor, condition: Tensor | None, rope: Tensor | None) -> Tensor:
        skips: list[Tensor] = []
        n_skips = self.config.n_skips
        for i, block in enumerate(self.blocks):
            tokens = block(tokens, condition, rope, skips.pop() if i >= len(self.blocks) - n_skips else None)
            if i < n_skips:
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
