"""Fields that records of older versions lack, read from what these hold instead; newer records are never guessed at.

Standard library only.
"""

import ast
import re
from collections.abc import Iterable, Mapping
from typing import Any

BRANCH = re.compile(r"(.+)-cool-\d+")  # how plans name branches, which older records say in no other way


def with_guidance(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """A protocol with ``guidance_scale`` and ``guidance_channels``, read off its ``guidance`` where it has none."""
    if "guidance_scale" in protocol or not isinstance(protocol.get("guidance", "none"), str):
        return dict(protocol)
    return {**protocol, **_settings(protocol.get("guidance", "none"))}


def _settings(guidance: str) -> dict[str, Any]:
    """Scale and guided channels of a call such as ``ClassifierFree(channels=3, scale=1.5)``; None where it has none."""
    found: dict[str, Any] = {"guidance_scale": 1.0 if guidance == "none" else None, "guidance_channels": None}
    try:
        call = ast.parse(guidance, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return found
    for word in call.keywords if isinstance(call, ast.Call) else ():
        number = word.value.value if isinstance(word.value, ast.Constant) else None
        if f"guidance_{word.arg}" in found and isinstance(number, (int, float)):
            found[f"guidance_{word.arg}"] = number
    return found


def with_unit(row: Mapping[str, Any]) -> dict[str, Any]:
    """A ``validation`` row with the ``unit`` of its loss; there was one alone where it has none."""
    return {"unit": "squared velocity error per dimension", **row}


def branch_of(name: str, names: Iterable[str]) -> str | None:
    """The run among ``names`` that a run's name says it branches off; None for a run that begins at nothing."""
    match = BRANCH.fullmatch(name)
    return match[1] if match and match[1] in set(names) else None
