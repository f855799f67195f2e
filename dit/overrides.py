"""Settings as Hydra's command line takes them: whatever a path or a name holds, one word that means it."""

import json
import re
from typing import Any


def override(key: str, value: Any) -> str:
    """``key=value``, which ``dit`` reads as that very value: a text, number, truth value, null, or a list of them."""
    return f"{key}={_written(value)}"


def _written(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_written(child)}" for key, child in value.items()) + "}"
    if isinstance(value, str):
        return _quoted(value)
    return json.dumps(value).replace("Infinity", "inf").replace("NaN", "nan")


def _quoted(text: str) -> str:
    from hydra.core.override_parser.types import (  # here, since it takes a tenth of a second
        Quote,
        QuotedString,
    )

    if re.fullmatch(r"[A-Za-z_/.-][\w/.-]*", text, re.ASCII) and text.lower() not in _VALUES:
        return text
    # OmegaConf would look for ${...} again, and halves the backslashes before one that is no interpolation
    escaped = re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", text)
    return QuotedString(escaped, Quote.double).with_quotes()


_VALUES = ("null", "true", "false", "inf", "nan")
