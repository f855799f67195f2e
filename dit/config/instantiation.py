"""The parts that a configuration's ``_target_`` may build, namely those in ``conf/``; and the place of that folder.

``_target_`` names code, and the file that says it (a run's config.yaml, the metadata of exported weights) may be a
stranger's. So it is looked up in a list, by the place where it stands: a path belongs under ``path``, a source of
images under ``data``. What is not in the list is not even imported.
"""

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from dit.config.given import shadowed
from dit.config.networks import PUBLISHED
from dit.errors import InputError

# Choices of ``data.source._target_`` that no file of conf/ makes (docs/data.md).
SOURCES = (
    "dit.data.sources.folder.Zip",
    "dit.data.sources.vision.Torchvision",
    "dit.data.sources.webdataset.Tar",
)
_TARGET = re.compile(r"\b_target_: *(dit\.[\w.]+)")


def config_dir() -> str:
    """The folder of YAML files: inside the package in a wheel, at the top of a checkout otherwise."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf"
    return str(installed if installed.is_dir() else package.parent / "conf")


def instantiate(node: Any, **extra: Any) -> Any:
    """``hydra.utils.instantiate``, for parts of this project alone, each in its place; ``extra`` shadows its values."""
    key = node._get_full_key(None) if isinstance(node, DictConfig) else ""
    with shadowed(node, extra):
        check_parts(OmegaConf.to_container(node, resolve=True), re.split(r"[.\[\]]+", key) if key else [])
        return hydra.utils.instantiate(node, **extra, _convert_="all")


@functools.cache
def parts() -> dict[str, set[str]]:
    """Place (a folder of ``conf/``) -> the names that may stand there under ``_target_``."""
    found: dict[str, set[str]] = {"data": set(SOURCES), "network": {PUBLISHED}}
    for file in Path(config_dir()).glob("*/*.yaml"):
        found.setdefault(file.parent.name, set()).update(_TARGET.findall(file.read_text(encoding="utf-8")))
    return {place: names for place, names in found.items() if names}


def check_parts(node: Any, keys: Sequence[str] = ()) -> None:
    """Raises InputError where a plain node names what may not be built where it stands.

    Args:
        node: dicts, lists and values.
        keys: those that lead to it; the last of them that is a folder of ``conf/`` is its place. Without one, whatever
            any of them names may be built.
    """
    if isinstance(node, dict):
        place = next((key for key in reversed(keys) if key in parts()), None)
        allowed = parts()[place] if place is not None else set().union(*parts().values())
        target = node.get("_target_")
        if target is not None and not (isinstance(target, str) and target in allowed):
            shown = (
                f"one of {', '.join(sorted(allowed))}" if place is not None else "what a file of conf/ names"
            )
            remedy = "Name a class of your own in a file of conf/ first."
            raise InputError(".".join([*keys, "_target_"]), target, shown, remedy)
        for name, child in node.items():
            check_parts(child, [*keys, str(name)])
    elif isinstance(node, list):
        for child in node:
            check_parts(child, keys)
