"""Names and shapes of a network's weights in other projects' files, and what such a file says of it.

Two ways of naming: that of facebookresearch/DiT, shared by SiT and REPA and extended by LightningDiT (RMSNorm
gains, SwiGLU, rotations), and that of diffusers' ``DiTTransformer2DModel``. A ``Layout`` adds what a file does not
say: what time means to its weights, and which of its tensors nobody reads when sampling.
Legend: D width, C channels, P patch, K classes, N tokens.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dit.errors import InputError
from dit.network.embeddings import rope_table, sincos_table
from dit.network.options import DiTOptions
from dit.network.presets import PRESETS

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """How a repository stores a network.

    Args:
        time_convention: of ``DiTOptions``; it differs by what was predicted, because the sign of a velocity turns
            with time, and those of noise and score do not.
        names: ``dit`` | ``diffusers``.
        reads_variance: whether the second half of an output of 2 C channels is a variance that samplers read;
            else it was never trained.
        beside: beginnings of the names of tensors that served training alone.
    """

    time_convention: str
    names: str = "dit"
    reads_variance: bool = False
    beside: tuple[str, ...] = ()


LAYOUTS = {
    "dit": Layout("dit", reads_variance=True),
    "sit": Layout("sit"),
    "sit_noise": Layout("reversed"),
    "sit_score": Layout("reversed"),
    "repa": Layout("repa", beside=("projectors.",)),
    "lightningdit": Layout("sit"),
    "lightningdit_noise": Layout("reversed"),
    "lightningdit_score": Layout("reversed"),
    "diffusers": Layout("diffusers", names="diffusers", reads_variance=True),
}

# (ours, theirs) in the layout of DiT; the last two only where the MLP is SwiGLU.
_DIT_NAMES = (
    ("y_embedder.weight", "y_embedder.embedding_table.weight"),
    (".modulation.", ".adaLN_modulation.1."),
    ("final_layer.norm.", "final_layer.norm_final."),
)
_SWIGLU_NAMES = ((".mlp.fc1.", ".mlp.w12."), (".mlp.fc2.", ".mlp.w3."))
_ROPE_BUFFERS = ("feat_rope.freqs_cos", "feat_rope.freqs_sin")

# diffusers -> ours, per block and for the rest. Its blocks each hold a copy of the time and label embedders.
_DIFFUSERS_BLOCK = {
    "norm1.linear": "modulation",
    "attn1.to_out.0": "attn.proj",
    "ff.net.0.proj": "mlp.fc1",
    "ff.net.2": "mlp.fc2",
}
_DIFFUSERS_EMBEDDERS = {
    "norm1.emb.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "norm1.emb.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "norm1.emb.class_embedder.embedding_table": "y_embedder",
}
_DIFFUSERS_REST = {
    "pos_embed.proj": "x_embedder.proj",
    "proj_out_1": "final_layer.modulation",
    "proj_out_2": "final_layer.linear",
}


_DIT_NEEDS: dict[str, tuple[object, ...]] = {"conditioning": ("adaln_zero",), "long_skips": (False,)}
_DIFFUSERS_NEEDS: dict[str, tuple[object, ...]] = {
    **_DIT_NEEDS,
    "norm": ("layer",),
    "mlp": ("gelu",),
    "mlp_ratio": (4.0,),
    "positions": ("sincos",),
    "rope": (False,),
    "qk_norm": (False,),
    "time_convention": ("dit", "diffusers"),
}


def check_expressible(config: DiTOptions, layout: str) -> None:
    """Raises InputError where the layout (``dit``, its relatives, or ``diffusers``) has no such network."""
    if not isinstance(config.patch_size, int):
        raise InputError(
            "network.patch_size", list(config.patch_size), f"one number in the layout of {layout}"
        )
    for field, allowed in (_DIFFUSERS_NEEDS if layout == "diffusers" else _DIT_NEEDS).items():
        if getattr(config, field) not in allowed:
            values = " or ".join(str(value).lower() for value in allowed)
            raise InputError(
                f"network.{field}", getattr(config, field), f"{values} in the layout of {layout}"
            )


def to_dit(
    weights: Mapping[str, Tensor], config: DiTOptions, channels: int, grid: tuple[int, ...]
) -> Weights:
    """Our weights in the layout of DiT, with the tables that its files store too."""
    names = _DIT_NAMES + (_SWIGLU_NAMES if config.mlp == "swiglu" else ())
    out: Weights = {}
    for name, tensor in weights.items():
        for ours, theirs in names:
            name = name.replace(ours, theirs)
        out[name] = tensor
    out["x_embedder.proj.weight"] = _as_convolution(weights["x_embedder.proj.weight"], channels)
    out["pos_embed"] = (
        weights["pos_embed"] if config.positions == "learned" else sincos_table(config.width, grid)
    ).unsqueeze(0)
    if config.rope:
        # One entry per channel, not per pair.
        tables = rope_table(config.head_dim, grid).repeat_interleave(2, dim=-1)
        out.update(zip(_ROPE_BUFFERS, tables, strict=True))
    return out


def from_dit(weights: Mapping[str, Tensor], *, keep_positions: bool) -> Weights:
    """Weights in the layout of DiT under our names; the fixed tables are dropped."""
    out: Weights = {}
    for name, tensor in weights.items():
        if name in _ROPE_BUFFERS or (name == "pos_embed" and not keep_positions):
            continue
        for ours, theirs in _DIT_NAMES + _SWIGLU_NAMES:
            name = name.replace(theirs, ours)
        out[name] = tensor.squeeze(0) if name == "pos_embed" else tensor
    out["x_embedder.proj.weight"] = out["x_embedder.proj.weight"].flatten(1)
    return out


def to_diffusers(weights: Mapping[str, Tensor], config: DiTOptions, channels: int) -> Weights:
    """Our weights in the layout of diffusers' DiT: q, k and v apart, embedders repeated in every block."""
    rest = {ours: theirs for theirs, ours in _DIFFUSERS_REST.items()}
    in_block = {ours: theirs for theirs, ours in _DIFFUSERS_BLOCK.items()}
    embedders = {ours: theirs for theirs, ours in _DIFFUSERS_EMBEDDERS.items()}
    out: Weights = {}
    for name, tensor in weights.items():
        stem, kind = name.rsplit(".", 1)
        block = re.fullmatch(r"blocks\.(\d+)\.(.+)", stem)
        if stem in rest:
            out[f"{rest[stem]}.{kind}"] = tensor
        elif stem in embedders:
            for i in range(config.depth):
                out[f"transformer_blocks.{i}.{embedders[stem]}.{kind}"] = tensor
        elif block and block[2] == "attn.qkv":
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                out[f"transformer_blocks.{block[1]}.attn1.to_{letter}.{kind}"] = part
        elif block:
            out[f"transformer_blocks.{block[1]}.{in_block[block[2]]}.{kind}"] = tensor
    out["pos_embed.proj.weight"] = _as_convolution(weights["x_embedder.proj.weight"], channels)
    return out


def from_diffusers(weights: Mapping[str, Tensor]) -> Weights:
    """Weights in the layout of diffusers' DiT under our names; unknown names stay as they are."""
    out: Weights = {}
    for name, tensor in weights.items():
        block = re.fullmatch(r"transformer_blocks\.(\d+)\.(.+)\.(weight|bias)", name)
        stem, kind = name.rsplit(".", 1) if "." in name else (name, "")
        if block and block[2] in _DIFFUSERS_BLOCK:
            out[f"blocks.{block[1]}.{_DIFFUSERS_BLOCK[block[2]]}.{block[3]}"] = tensor
        elif block and block[2] in _DIFFUSERS_EMBEDDERS:
            out.setdefault(f"{_DIFFUSERS_EMBEDDERS[block[2]]}.{block[3]}", tensor)
        elif block and block[2] == "attn1.to_q":
            parts = [weights.get(f"transformer_blocks.{block[1]}.attn1.to_{c}.{block[3]}") for c in "qkv"]
            if all(part is not None for part in parts):
                out[f"blocks.{block[1]}.attn.qkv.{block[3]}"] = torch.cat(parts)  # type: ignore[arg-type]
        elif block and block[2] in ("attn1.to_k", "attn1.to_v"):
            continue
        elif stem in _DIFFUSERS_REST:
            out[f"{_DIFFUSERS_REST[stem]}.{kind}"] = tensor.flatten(1) if tensor.ndim == 4 else tensor
        else:
            out[name] = tensor
    return out


def split_embedders(weights: Mapping[str, Tensor]) -> list[str]:
    """Names of a diffusers file's embedders that differ from block 0's; a DiT has one for all blocks."""
    different = []
    for name, tensor in weights.items():
        first = re.sub(r"^transformer_blocks\.\d+\.norm1\.emb\.", "transformer_blocks.0.norm1.emb.", name)
        if first != name and (first not in weights or not torch.equal(weights[first], tensor)):
            different.append(name)
    return different


def _as_convolution(weight: Tensor, channels: int) -> Tensor:
    patch_size = round((weight.shape[1] / channels) ** 0.5)
    return weight.reshape(weight.shape[0], channels, patch_size, patch_size)


@dataclass(frozen=True)
class Description:
    """What a file's weights (in either layout) say of their network; 0 where they say nothing."""

    width: int
    depth: int
    patch_size: int
    channels: int
    out_channels: int
    num_classes: int
    tokens: int
    mlp_hidden: int
    head_dim: int
    swiglu: bool
    rms: bool
    rope: bool

    def preset(self) -> str | None:
        """The published size with this shape."""
        for name, config in PRESETS.items():
            same = (config.width, config.depth, config.patch_size) == (
                self.width,
                self.depth,
                self.patch_size,
            )
            if same and (config.norm == "rms") == self.rms and (config.mlp == "swiglu") == self.swiglu:
                return name
        return None

    def __str__(self) -> str:
        shape = f"width {self.width}, depth {self.depth}, patch {self.patch_size}, {self.num_classes} classes"
        return f"{self.preset() or 'no preset'} ({shape})" if self.width else "no diffusion transformer"


def describe(weights: Mapping[str, Tensor]) -> Description:
    """Reads the shapes of a file's weights in the layout of DiT or of diffusers."""

    def size(name: str, axis: int) -> int:
        return weights[name].shape[axis] if name in weights and weights[name].ndim > axis else 0

    diffusers = "pos_embed.proj.weight" in weights
    patches = "pos_embed.proj.weight" if diffusers else "x_embedder.proj.weight"
    first = "transformer_blocks.0" if diffusers else "blocks.0"
    labels = f"{first}.norm1.emb.class_embedder" if diffusers else "y_embedder"
    blocks = {
        int(m[1]) for m in (re.match(r"(?:transformer_)?blocks\.(\d+)\.", name) for name in weights) if m
    }
    patch_size = size(patches, 2)
    swiglu = f"{first}.mlp.w12.weight" in weights
    hidden = max(size(f"{first}.{name}.weight", 0) for name in ("mlp.w12", "mlp.fc1", "ff.net.0.proj"))
    out = size("proj_out_2.weight" if diffusers else "final_layer.linear.weight", 0)
    return Description(
        width=size(patches, 0),
        depth=max(blocks, default=-1) + 1,
        patch_size=patch_size,
        channels=size(patches, 1),
        out_channels=out // patch_size**2 if patch_size else 0,
        num_classes=size(f"{labels}.embedding_table.weight", 0) - 1,
        tokens=size("pos_embed", 1),
        mlp_hidden=hidden // 2 if swiglu else hidden,
        head_dim=size(f"{first}.attn.q_norm.weight", 0),
        swiglu=swiglu,
        rms=f"{first}.norm1.weight" in weights,
        rope=any(name in weights for name in _ROPE_BUFFERS),
    )
