"""The words of a command line, spelled so that Hydra's grammar reads them as they were meant.

Hydra keeps many signs for itself: a path with a blank, an umlaut, a quote, a comma or ``~`` and a column named
``Params (M)`` would be errors, lists or calls. What Hydra cannot read is text, and is quoted here.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from dit.config.texts import NAMES, PATHS
from dit.errors import InputError

# The name of a column may be a number or hold any sign.
COLUMNS = "columns."
# What Hydra takes for a number or a switch, and is text where a path or a name belongs: run=2024, data.name=1e6.
NUMBER = re.compile(r"[+-]?[\d_.]*\d[\d_.]*(e[+-]?\d+)?|[+-]?(inf|nan)|true|false", re.IGNORECASE)
OPTIONS_WITH_VALUES = ("--config-dir", "-cd", "--cfg", "-c", "--package", "-p", "--info", "-i")
PRIMARY = ("--config-name", "-cn", "--config-path", "-cp")  # Hydra's, for a program of another configuration


@dataclass(frozen=True)
class Word:
    """One override of a command line.

    Attributes:
        text: as Hydra takes it.
        override: as Hydra understands it.
    """

    text: str
    override: Override

    @property
    def key(self) -> str:
        """The key, or the group with its package: ``solver@evaluation.solver``."""
        return self.override.get_key_element().lstrip("+~")

    @property
    def value(self) -> Any:
        """As plain values; a sweep is a list of its values."""
        if self.override.is_sweep_override():
            return [unquoted(value) for value in self.override.sweep_iterator()]
        return unquoted(self.override.value())


def unquoted(value: Any) -> Any:
    """A value of Hydra's parser without its quotes."""
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, dict):
        return {str(unquoted(key)): unquoted(child) for key, child in value.items()}
    return [unquoted(child) for child in value] if isinstance(value, list) else value


def quoted(text: str) -> str:
    """A text as Hydra's grammar takes it, whatever signs it holds."""
    return QuotedString(text=text, quote=Quote.single).with_quotes()


def read_words(words: Sequence[str], swept: bool) -> tuple[list[str], list[Word]]:
    """The options (``-m``, ``--cfg job``) and the overrides of a command line.

    Args:
        words: after the verb.
        swept: whether ``a=1,2`` are two values, of two jobs.

    Raises:
        InputError: a word that is neither.
    """
    options, found, rest = [], [], list(words)
    while rest:
        word = rest.pop(0)
        if word.startswith("-"):
            if (name := word.partition("=")[0]) in PRIMARY:
                remedy = (
                    "Write your settings into DIR/experiment/NAME.yaml: --config-dir DIR experiment=NAME."
                )
                raise InputError(name, "(another configuration)", "that of the verb", remedy)
            options.append(word)
            if word in OPTIONS_WITH_VALUES and rest and "=" not in rest[0]:
                options.append(rest.pop(0))
        else:
            found.append(_word(word, swept))
    return options, found


def _word(text: str, swept: bool) -> Word:
    parser = OverridesParser.create()
    written, sign, value = text.partition("=")
    key = written.lstrip("+")
    if not sign and not key.startswith("~"):
        raise InputError(text, "(no value)", "key=value", f"Write {text}=...")
    if not key:
        raise InputError(text, "(no key)", "key=value")
    if key.startswith(COLUMNS) or (key in (*PATHS, *NAMES) and NUMBER.fullmatch(value)):
        text = f"{written}={value if swept and ',' in value else _column(value)}"
    elif key in PATHS and value.startswith("~"):
        text = f"{written}={quoted(os.path.expanduser(value))}"
    try:
        override = parser.parse_override(text)
    except HydraException as error:
        if value.startswith(("[", "{")) and key not in (*PATHS, *NAMES):
            raise InputError(key, value, "a list [a,b] or a mapping {a:1}", _signs(value)) from error
        text = f"{written}={quoted(value)}"
        try:
            override = parser.parse_override(text)
        except HydraException:
            raise InputError(key, "(no key)", "letters, digits, _ and dots") from error
    if override.is_sweep_override() and not swept:
        if key not in (*PATHS, *NAMES):
            raise InputError(
                key, value, "one value", f"Several, one job each, want -m; a list is {key}=[{value}]."
            )
        text = f"{written}={quoted(value)}"
        override = parser.parse_override(text)
    return Word(text, override)


def _column(value: str) -> str:
    """The name of a column: text but for null, and for what has been quoted already."""
    quotes = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value if quotes or value == "null" else quoted(value)


def _signs(value: str) -> str:
    return f"Texts with other signs in it want quotes of their own: \"['a b','c,d']\", not {value}."
