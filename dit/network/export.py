"""Writing a ``DiT`` for others: DiT's layout, and safetensors with its configuration."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from dit.condition import Classes, kind_as_dict, kind_of_dict
from dit.domain import Domain
from dit.errors import InputError
from dit.files import whole
from dit.network.base import Network
from dit.network.config import DiTConfig
from dit.network.dit import DiT
from dit.network.layouts import Weights, check_expressible, to_dit

_FORMAT = "dit-network-1"


def save_dit(model: DiT, path: str | Path) -> None:
    """Writes the weights in the layout of DiT's repository, or of LightningDiT for its options.

    Raises:
        InputError: the layout has no such network (its conditioning is not adaLN-Zero, or it has long skips).
    """
    check_expressible(model.config, "dit")
    classes_of(model)
    with whole(Path(path)) as partial:
        torch.save(to_dit(weights_of(model), model.config, model.domain.channels, model.grid), partial)


def save_safetensors(model: DiT, path: str | Path, **said: str) -> None:
    """Writes the weights under our names, with all that ``load_safetensors`` needs to build the network.

    Args:
        model: the network.
        path: the file.
        said: what else its metadata says, such as the objective.
    """
    weights = weights_of(model)
    built = {
        **said,
        "format": _FORMAT,
        "config": json.dumps(model.config.as_dict()),
        "input_shape": json.dumps(model.domain.shape),
        **({"vocabulary": str(model.domain.vocabulary)} if model.domain.vocabulary else {}),
        "condition": json.dumps(kind_as_dict(model.kind)),
        "out_channels": str(model.out_channels),
    }
    built["sha256"] = _digest(weights, built)
    with whole(Path(path)) as partial:
        save_file(weights, partial, metadata=built)
        partial.chmod(0o644)  # safetensors keeps its files to the user


def load_safetensors(path: str | Path) -> DiT:
    """The network written by ``save_safetensors``, on the CPU and bit for bit.

    Raises:
        InputError: the file is not one of those.
    """
    built = read_metadata(path)
    try:
        domain = Domain.of(json.loads(built["input_shape"]), int(built.get("vocabulary", 0)))
        config = DiTConfig(**json.loads(built["config"]))
        said = built.get("condition") or json.dumps({"kind": "classes", "n": int(built["num_classes"])})
        kind, out_channels = kind_of_dict(json.loads(said)), int(built["out_channels"])
        told = config.count(domain, kind, out_channels).n_params_total
        if told > Path(path).stat().st_size:  # before so much memory is taken
            raise InputError(
                "path", f"({path}: its metadata promise {told} weights)", "a file that holds them"
            )
        model = config.build(domain, kind, out_channels)
        weights = load_file(path)
        if "sha256" in built and built["sha256"] != _digest(weights, built):
            raise InputError("path", f"({path}: not what was written)", "a file as dit export wrote it")
        dtype = next(iter(weights.values())).dtype
        model.to(dtype).load_state_dict(weights)
    except (
        SafetensorError,
        LookupError,
        TypeError,
        ValueError,
        RuntimeError,
        StopIteration,
        RecursionError,
    ) as error:
        if isinstance(error, InputError):
            raise
        shown = " ".join(str(error).split())[:300]
        allowed = "a file of dit export, whose metadata and tensors belong together"
        raise InputError("path", f"({path}: {type(error).__name__}: {shown})", allowed) from error
    return model


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata of a file of ``save_safetensors``: ``config``, ``objective`` and so on, as JSON texts.

    Raises:
        InputError: the file is not one of those.
    """
    try:
        with safe_open(path, framework="pt") as file:
            built = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InputError("path", str(path), "a readable .safetensors file", str(error)) from error
    if built.get("format") != _FORMAT:
        raise InputError(
            "path", str(path), f"a .safetensors file of format {_FORMAT}", "Others: load_published."
        )
    return built


def classes_of(model: DiT) -> int:
    """Number of classes of a network that is told classes, as those of other layouts are.

    Raises:
        InputError: it is told something else.
    """
    if len(model.domain.sizes) != 2:
        raise InputError(
            "format", f"(a network of {model.domain})", "safetensors: other layouts know pictures alone"
        )
    if not isinstance(model.kind, Classes):
        raise InputError(
            "format", f"(a network of {model.kind})", "safetensors: other layouts know classes alone"
        )
    return model.kind.n


def weights_of(model: Network) -> Weights:
    """The weights under our names, on the CPU and of no graph.

    Raises:
        InputError: it is no ``DiT``, whose layouts alone are written.
    """
    if not isinstance(model, DiT):
        raise InputError(
            "run", f"(a {type(model).__name__})", "a run of a transformer: others have no layout here"
        )
    return {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}


def _digest(weights: Weights, built: Mapping[str, str]) -> str:
    """One hash for tensors, their names, and what the metadata say besides."""
    said = {key: text for key, text in built.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for name in sorted(weights):
        digest.update(f"{name} {tuple(weights[name].shape)} {weights[name].dtype}\n".encode())
        digest.update(weights[name].contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
