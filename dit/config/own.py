"""A user's own file of settings (``conf/experiment/pets.yaml``), held to what a command line is held to.

Hydra merges whatever such a file says, unknown keys too. Here what it says is found by composing the same options
without it: a key that these lack is unknown, a value is of the kind that stands there, and whole numbers written 1e6
are whole.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from dit.config.kinds import as_whole, check_kind
from dit.config.nodes import node_of
from dit.errors import InputError


@dataclass(frozen=True)
class Said:
    """One value that a file says.

    Attributes:
        key: the shortest that the shipped configuration lacks, or that holds another value there.
        value: plain, its interpolations unresolved.
        shipped: the node of that key without the file; None where there is none.
    """

    key: str
    value: Any
    shipped: Any


def said(with_file: DictConfig, shipped: DictConfig, above: str = "") -> Iterator[Said]:
    """The differences between a configuration with a file and the same one without it."""
    for name in with_file:
        key, node = f"{above}{name}", with_file._get_node(name)
        known = node_of(shipped, str(name))
        if _has_keys(node) and _has_keys(known):
            yield from said(node, known, f"{key}.")  # pyright: ignore[reportArgumentType]
        elif known is None or _plain(node) != _plain(known):
            yield Said(key, _plain(node), known)


def check_own(found: Iterable[Said], unknown: Callable[[str, Any], InputError | None]) -> list[str]:
    """The words of a command line that make whole numbers of a file whole.

    Args:
        found: what the file says.
        unknown: the error of a key that conf/ lacks; None where it is a setting all the same.

    Raises:
        InputError: an unknown key, or a value of another kind.
    """
    words = []
    for one in found:
        if one.shipped is None:
            error = unknown(one.key, one.value)
            if error is not None:
                raise error
            continue
        check_kind(one.key, one.shipped, one.value)
        whole = as_whole(one.key, one.shipped, one.value)
        if whole is not one.value:
            words.append(f"{one.key}={whole}".replace(" ", ""))
    return words


def _has_keys(node: Any) -> bool:
    return isinstance(node, DictConfig) and not (node._is_none() or node._is_missing())


def _plain(node: Any) -> Any:
    if isinstance(node, DictConfig | ListConfig) and not (node._is_none() or node._is_missing()):
        return OmegaConf.to_container(node, resolve=False)
    return node._value()
