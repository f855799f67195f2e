"""The kind of a value against that of the shipped one: groups, lists, numbers, switches and texts; whole numbers."""

import re
from typing import Any

from omegaconf import DictConfig, ListConfig

from dit.config.nodes import NAMED, node_of
from dit.config.texts import NAMES, PATHS
from dit.errors import InputError

ONE_OR_MORE = ("at_flops", "compare", "where")  # lists that may be one value
PER_AXIS = ("network.patch_size",)  # numbers that may be lists, one for each axis
NAMED_OR_NUMBERED = ("labels",)  # texts that may be numbers, or lists of either
LISTS = ("latent_shape", "metrics", "protocols", "models", "interval")  # null in conf/, and lists where given
EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE]\+?\d+")
MEASURED = ("flops", "flops_per_second", "surface.n_opt")  # null in conf/, and no counts
EXACT = 2**53  # whole floats up to here are integers


def _shipped(node: Any) -> Any:
    """The value of a node, a mapping or list as itself; None where it is null, missing or made from others."""
    if node._is_none() or node._is_missing() or node._is_interpolation():
        return None
    return node if isinstance(node, DictConfig | ListConfig) else node._value()


def check_kind(key: str, node: Any, value: Any) -> None:
    """Raises InputError where a value is of another kind than the shipped one: a number for a group, ..."""
    known = _shipped(node)
    if key.rpartition(".")[2] == "_partial_" and value != known:
        raise InputError(key, value, str(known).lower(), "It says how the part is made, and is no setting.")
    if isinstance(value, str) and "${" in value:
        return
    if isinstance(known, DictConfig):
        if not isinstance(value, dict) and not (value is None and key in NAMED):
            child = "directory" if "directory" in known else next(iter(known), "key")
            raise InputError(
                key, value, f"its keys, such as {key}.{child}", f"For that one, write {key}.{child}=..."
            )
        for name, child in (value or {}).items():
            if (below := node_of(node, name)) is not None:
                check_kind(f"{key}.{name}", below, child)
    elif isinstance(known, ListConfig):
        if not isinstance(value, list) and key not in ONE_OR_MORE:
            raise InputError(key, value, "a list", f"Write {key}=[{'' if value is None else value}].")
    elif isinstance(value, dict) or value == []:
        raise InputError(key, value, "one value" if known is not None else "a value or a list")
    elif isinstance(value, list) and node._is_none() and not _may_be_list(key):
        raise InputError(key, value, "one value, or null")
    elif known is not None and value is not None:
        _check_scalar(key, known, value)


def _may_be_list(key: str) -> bool:
    """Whether a value that conf/ leaves null may be a list."""
    return key.rpartition(".")[2] in (*LISTS, *ONE_OR_MORE) or key.startswith("sweep.")


def _check_scalar(key: str, known: Any, value: Any) -> None:
    if isinstance(value, list) and key in PER_AXIS:
        for one in value:
            _check_scalar(key, known, one)
        return
    if key in NAMED_OR_NUMBERED:
        if not all(isinstance(one, int | str) for one in (value if isinstance(value, list) else [value])):
            raise InputError(key, value, "texts or whole numbers")
        return
    if isinstance(value, list):
        raise InputError(key, value, "one value")
    if isinstance(known, bool):
        if not isinstance(value, bool):
            raise InputError(key, value, "true or false")
    elif isinstance(known, int | float):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(key, value, "a number")
    elif isinstance(known, str) and not isinstance(value, str):
        remedy = (
            f"If that is its name, quote it twice: '{key}=\"{value}\"'." if key in (*PATHS, *NAMES) else ""
        )
        raise InputError(key, value, "text", remedy)


def with_whole_numbers(text: str, key: str, node: Any, value: Any) -> str:
    """``n=1e6`` as ``n=1000000``, but not where a float belongs."""
    head, _, written = text.partition("=")
    whole = as_whole(key, node, value)
    exact = "e" in written.lower() if isinstance(value, list) else EXPONENT.fullmatch(written.strip())
    if whole is value or not exact:
        return text
    return f"{head}={whole}".replace(" ", "")


def as_whole(key: str, node: Any, value: Any) -> Any:
    """A float without a fraction, or a list of numbers with such floats, as whole; all else as it is."""
    known = _shipped(node)
    floats = known if isinstance(known, ListConfig) else [known]
    if any(isinstance(one, float) for one in floats) or key.endswith(MEASURED):
        return value
    if isinstance(value, list):
        whole = [_whole(one) for one in value]
        return whole if any(new is not one for new, one in zip(whole, value, strict=True)) else value
    return _whole(value)


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < EXACT else value
