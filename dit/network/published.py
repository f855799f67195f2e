"""Reading weights that others published into a ``DiT``: DiT, SiT, REPA, LightningDiT and diffusers.

A file is never allowed to run code: pickles are read with ``weights_only``.
"""

import argparse
import dataclasses
import json
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dit.condition import Classes
from dit.domain import Domain
from dit.errors import InputError, check_choice
from dit.network.config import DiTConfig
from dit.network.dit import DiT
from dit.network.embeddings import sincos_table
from dit.network.layouts import (
    LAYOUTS,
    Description,
    Layout,
    Weights,
    check_expressible,
    describe,
    from_diffusers,
    from_dit,
    split_embedders,
    to_diffusers,
    to_dit,
)
from dit.network.presets import PRESETS

# what DataParallel, torch.compile, FSDP and activation checkpointing leave in names, of the whole or of each block
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_N_SHOWN = 6


def load_published(
    path: str | Path,
    layout: str,
    *,
    config: DiTConfig | None = None,
    weights: str = "ema",
    time_convention: str | None = None,
    heads: int | None = None,
    input_shape: tuple[int, int, int] | None = None,
) -> DiT:
    """The network stored in a published file, in float32 on the CPU.

    Args:
        path: a ``.pt`` or ``.safetensors`` file, or for ``diffusers`` the model's (or its pipeline's)
            directory.
        layout: ``dit`` | ``sit`` | ``repa`` | ``lightningdit`` | ``diffusers``, and for SiT's and LightningDiT's
            other predictions ``sit_noise``, ``sit_score``, ``lightningdit_noise`` and ``lightningdit_score``.
            No file says which of them it is; time and signs differ. What nobody reads when sampling (variance
            channels but DiT's, REPA's projectors) is dropped, and a warning names it.
        config: the network to load into; None reads it off the file.
        weights: ``ema`` | ``model``: which of the two a training checkpoint's weights are taken from. A plain
            file of weights has no such choice.
        time_convention: None takes that of the layout (see ``DiTConfig``). Weights that were trained with
            DiT's own code and converted to diffusers' format want ``dit``.
        heads: attention heads, where neither the file nor a preset of the same width and depth tells.
        input_shape: (C, H, W), for networks of a grid that is not square.

    Raises:
        InputError: the file is none of this, would run code, or does not fit ``config``; the message names
            the missing and the unexpected weights and the preset the file looks like.
    """
    check_choice("layout", layout, tuple(LAYOUTS))
    check_choice("weights", weights, ("ema", "model"))
    path, kind = Path(path), LAYOUTS[layout]
    stored, settings = _read_diffusers(path) if layout == "diffusers" else (_read(path, weights), {})
    stored = _without_training_only(path, stored, kind)
    stored, description = _without_variance(path, stored, _described(path, stored, layout), kind)
    shape = input_shape or _input_shape(path, description, settings)
    grid = tuple(side // max(description.patch_size, 1) for side in shape[1:])
    learned = layout != "diffusers" and not _is_sincos(stored.get("pos_embed"), (grid[0], grid[1]))
    if config is None:
        config = _config(path, description, heads or settings.get("num_attention_heads"), learned)
    elif learned and config.positions == "sincos":
        raise InputError("network.positions", "sincos", f"learned, as in {path.name}")
    config = dataclasses.replace(config, time_convention=time_convention or kind.time_convention)
    check_expressible(config, kind.names)
    model = config.build(Domain.of(shape), Classes(description.num_classes), description.out_channels)
    _check_fit(path, model, stored, kind, description)
    keep_positions = config.positions == "learned"
    named = (
        from_diffusers(stored) if layout == "diffusers" else from_dit(stored, keep_positions=keep_positions)
    )
    model.load_state_dict({name: tensor.float() for name, tensor in named.items()})
    return model


def _read(path: Path, weights: str) -> Weights:
    """The tensors of one file by name; never runs code from it."""
    if not path.is_file():
        raise InputError("path", str(path), "an existing file of weights")
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                return {_unwrapped(name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except SafetensorError as error:
            raise InputError("path", str(path), "a readable .safetensors file", str(error)) from error
    try:
        # DiT's training checkpoints hold their argparse.Namespace, a bag of attributes that runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            stored = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            "path", str(path), "a file of tensors, which runs no code when read", reason
        ) from error
    if isinstance(stored, Mapping) and any(name in stored for name in ("ema", "model")):
        if weights not in stored:
            raise InputError("weights", weights, f"one of {sorted(map(str, stored))} in {path.name}")
        stored = stored[weights]
    if not isinstance(stored, Mapping) or not all(isinstance(tensor, Tensor) for tensor in stored.values()):
        raise InputError("path", str(path), "a mapping of names to tensors")
    return {_unwrapped(str(name)): tensor for name, tensor in stored.items()}


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _read_diffusers(path: Path) -> tuple[Weights, dict[str, Any]]:
    """The weights and settings of a ``DiTTransformer2DModel`` directory, or of its pipeline's."""
    directory = path / "transformer" if (path / "transformer").is_dir() else path
    if not (directory / "config.json").is_file():
        raise InputError("path", str(path), "a diffusers directory with config.json")
    try:
        settings = json.loads((directory / "config.json").read_text())
    except ValueError as error:
        raise InputError("path", str(directory / "config.json"), "a file of JSON", str(error)) from error
    wanted = {
        "norm_type": ("ada_norm_zero",),
        "activation_fn": ("gelu-approximate",),
        "norm_elementwise_affine": (False,),
        "attention_bias": (True,),
        "norm_eps": (1e-6, 1e-5),  # the default 1e-5 is read as 1e-6, which changes less than 1e-5
    }
    for key, allowed in wanted.items():
        if key in settings and settings[key] not in allowed:
            raise InputError(f"{directory.name}/config.json: {key}", settings[key], f"one of {allowed}")
    for suffix in ("safetensors", "bin"):
        file = directory / f"diffusion_pytorch_model.{suffix}"
        if file.is_file():
            return _read(file, "model"), settings
    raise InputError("path", str(path), "a directory with diffusion_pytorch_model.safetensors or .bin")


def _without_training_only(path: Path, stored: Weights, layout: Layout) -> Weights:
    """The weights that sampling reads; says which others the file holds."""
    dropped = {name for name in stored if name.startswith(layout.beside)}
    if dropped:
        warnings.warn(
            f"{path.name}: left out, since only training reads them: {_listed(dropped)}.", stacklevel=3
        )
    return {name: tensor for name, tensor in stored.items() if name not in dropped}


def _described(path: Path, stored: Weights, layout: str) -> Description:
    """The description of the network behind the weights; raises InputError where no ``DiT`` can be it."""
    description = describe(stored)
    if not description.width or not description.depth or description.num_classes < 0:
        raise _misfit(path, "weights of a diffusion transformer", description, _common_names(), set(stored))
    if layout == "diffusers" and (different := split_embedders(stored)):
        raise InputError(
            str(path), different[0], "one time and label embedder", "Its blocks were trained with one each."
        )
    return description


def _without_variance(
    path: Path, stored: Weights, description: Description, layout: Layout
) -> tuple[Weights, Description]:
    """The weights without channels of the output that the repository's own code throws away (``learn_sigma``).

    Raises:
        InputError: the output has neither C nor 2 C channels.
    """
    c, p, out = description.channels, description.patch_size, description.out_channels
    if out not in (0, c, 2 * c):  # 0 where the file has none: _check_fit names it
        got = f"{path.name}, with {out} channels of output for {c} of input"
        raise InputError("path", got, f"{c}, or {2 * c} with a variance")
    if out != 2 * c or layout.reads_variance:
        return stored, description
    warnings.warn(f"{path.name}: channels {c} to {out - 1} of its output, which nobody reads, are left out.",
                  stacklevel=3)  # fmt: skip
    stored = dict(stored)
    for kind in ("weight", "bias"):
        both = stored[f"final_layer.linear.{kind}"]
        stored[f"final_layer.linear.{kind}"] = both.unflatten(0, (p * p, 2, c))[:, 0].flatten(0, 1)
    return stored, dataclasses.replace(description, out_channels=c)


def _input_shape(path: Path, description: Description, settings: Mapping[str, Any]) -> tuple[int, int, int]:
    side = settings.get("sample_size") or round(description.tokens**0.5) * description.patch_size
    is_square = bool(settings) or (side // description.patch_size) ** 2 == description.tokens
    if not isinstance(side, int) or side < 1 or not is_square:
        raise InputError(
            "input_shape",
            None,
            f"(C, H, W) for the {description.tokens} tokens of {path.name}, not a square grid",
        )
    return description.channels, side, side


def _is_sincos(table: Tensor | None, grid: tuple[int, int]) -> bool:
    if table is None:
        return True
    if table.shape[-1] % 4 or table.shape[-2] != grid[0] * grid[1]:
        return False
    return torch.allclose(table[0].float(), sincos_table(table.shape[-1], grid), atol=1e-5)


def _config(path: Path, description: Description, heads: int | None, learned: bool) -> DiTConfig:
    if heads is None and description.head_dim:
        heads = description.width // description.head_dim
    if heads is None:
        shape = (description.width, description.depth)
        heads = next((c.heads for c in PRESETS.values() if (c.width, c.depth) == shape), None)
    if heads is None:
        raise InputError("heads", None, f"the number of attention heads of {path.name}: {description}")
    ratio = description.mlp_hidden / description.width
    if description.swiglu:
        # Two thirds of mlp_ratio x width, rounded down: 4, or else the middle of what rounds so.
        four = int(2 / 3 * 4 * description.width) == description.mlp_hidden
        ratio = 4.0 if four else 1.5 * (description.mlp_hidden + 0.75) / description.width
    return DiTConfig(
        description.width,
        description.depth,
        heads,
        description.patch_size,
        mlp_ratio=ratio,
        norm="rms" if description.rms else "layer",
        mlp="swiglu" if description.swiglu else "gelu",
        positions="learned" if learned else "sincos",
        rope=description.rope,
        qk_norm=description.head_dim > 0,
    )


def _check_fit(path: Path, model: DiT, stored: Weights, layout: Layout, description: Description) -> None:
    """Raises InputError unless the file holds exactly the model's weights, as its layout names them."""
    ours = model.state_dict()
    channels = model.domain.channels
    if layout.names == "diffusers":
        expected = to_diffusers(ours, model.config, channels)
    else:
        expected = to_dit(ours, model.config, channels, model.grid)
    optional = {"pos_embed", "feat_rope.freqs_cos", "feat_rope.freqs_sin"}
    if model.config.positions == "learned":
        optional.discard("pos_embed")
    missing = {name for name in expected if name not in stored and name not in optional}
    unexpected = {name for name in stored if name not in expected}
    for name in expected.keys() & stored.keys():
        if expected[name].shape != stored[name].shape:
            missing.add(f"{name} {tuple(expected[name].shape)}")
            unexpected.add(f"{name} {tuple(stored[name].shape)}")
    if missing or unexpected:
        raise _misfit(path, f"weights of {describe(expected)}", description, missing, unexpected)


def _misfit(
    path: Path, allowed: str, description: Description, missing: set[str], unexpected: set[str]
) -> InputError:
    return InputError(
        "path",
        f"{path.name}, which looks like {description}",
        allowed,
        f"Missing: {_listed(missing)}. Unexpected: {_listed(unexpected)}.{_other_layout(unexpected)}",
    )


def _other_layout(unexpected: set[str]) -> str:
    for name, layout in LAYOUTS.items():
        if any(one.startswith(layout.beside) for one in unexpected):
            return f" The layout of files with {layout.beside[0]}* is {name}."
    return ""


def _listed(names: set[str]) -> str:
    shown = ", ".join(sorted(names)[:_N_SHOWN])
    return f"{shown} and {len(names) - _N_SHOWN} more" if len(names) > _N_SHOWN else shown or "none"


def _common_names() -> set[str]:
    """What any file of the layouts has, to name what a foreign file lacks."""
    return {"x_embedder.proj.weight", "y_embedder.embedding_table.weight", "blocks.0.attn.qkv.weight"}
