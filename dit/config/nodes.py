"""Ways about a configuration that resolve nothing: its keys, the node of a key."""

from collections.abc import Iterable
from typing import Any

from omegaconf import DictConfig, ListConfig

# Maps whose keys are names that a user gives, with the keys of each entry; None: those of its target.
NAMED = {"averages": None, "evaluation.protocols": ("at", "n", "seed", "labels", "guidance_scale", "preview")}


def keys_of(node: Any, above: str = "") -> Iterable[str]:
    """Every key of a configuration, the leaves' and the nodes'."""
    for name in node:
        if not str(name).startswith("_"):
            yield f"{above}{name}"
        child = node._get_node(name)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
            yield from keys_of(child, f"{above}{name}.")


def node_of(cfg: Any, key: str) -> Any:
    """The node of a key; None where there is none."""
    node = cfg
    for name in filter(None, key.split(".")):
        if (
            isinstance(node, DictConfig)
            and not (node._is_none() or node._is_missing())
            and name in {*node}  # not in the node itself, which would leave missing values out
        ):
            node = node._get_node(name)
        elif isinstance(node, ListConfig) and name.isdigit() and int(name) < len(node):
            node = node._get_node(int(name))
        else:
            return None
    return node


def namesakes(cfg: DictConfig, key: str) -> list[str]:
    """The keys whose last part is or contains that of another: ``guidance_scale`` for ``scale``; shortest way first."""
    name = key.rpartition(".")[2]
    found = [
        one for one in keys_of(cfg) if name in (one.rpartition(".")[2], *one.rpartition(".")[2].split("_"))
    ]
    return sorted(found, key=lambda one: one.count("."))


def listed(value: Any) -> list[Any]:
    """A list, or one value as a list of one; null is none."""
    return list(value) if isinstance(value, ListConfig) else [] if value is None else [value]
