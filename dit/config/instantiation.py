"""What a configuration's ``_target_`` may build, and where the YAML files lie."""

import importlib
from pathlib import Path
from typing import Any

import hydra
from omegaconf import OmegaConf

from dit.errors import InputError

# The packages that hold what a configuration puts together.
PARTS = ("dit.data", "dit.diffusion", "dit.network", "dit.training")


def config_dir() -> str:
    """The folder of YAML files: inside the package in a wheel, at the top of a checkout otherwise."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf"
    return str(installed if installed.is_dir() else package.parent / "conf")


def instantiate(node: Any, **extra: Any) -> Any:
    """``hydra.utils.instantiate``, for parts of this project only: ``_target_`` is code, maybe a stranger's."""
    _refuse_foreign_targets(OmegaConf.to_container(node, resolve=True))
    return hydra.utils.instantiate(node, **extra, _convert_="all")


def _refuse_foreign_targets(node: Any, key: str = "") -> None:
    if isinstance(node, dict):
        target = node.get("_target_")
        if target is not None and not _is_part(str(target)):
            allowed = f"a class or function of {', '.join(PARTS)}"
            raise InputError(f"{key}_target_", target, allowed, "Put your code in a module of theirs.")
        for name, child in node.items():
            _refuse_foreign_targets(child, f"{key}{name}.")
    elif isinstance(node, list):
        for child in node:
            _refuse_foreign_targets(child, key)


def _is_part(target: str) -> bool:
    """Whether a name leads to something made in PARTS: ``dit.training.strategy.torch.load`` would unpickle a file."""
    module, _, name = target.rpartition(".")
    if not f"{module}.".startswith(tuple(f"{part}." for part in PARTS)):
        return False
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return False
    return str(getattr(found, "__module__", "")).startswith("dit.")
