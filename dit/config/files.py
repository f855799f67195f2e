"""A run's ``config.yaml`` and the objective in exported weights, written and read: files that may be a stranger's.

What is written is resolved: plain values, below a seal in the first line. What is read must be: an interpolation
would be worked out from the reader's environment, and aliases of aliases take minutes to follow.
"""

import hashlib
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dit.errors import InputError
from dit.trust import CHANGED

MOST_BYTES = 2**20  # of a configuration; those of our runs have 5 kB
DEEPEST = 40
_SEAL = "# seal: "


def to_yaml(cfg: DictConfig) -> str:
    """A configuration as text, resolved and sealed."""
    text = OmegaConf.to_yaml(cfg, resolve=True)
    return f"{_SEAL}{_seal(text)}\n{text}"


def read_yaml(file: Path) -> DictConfig:
    """The configuration of a run.

    Raises:
        InputError: the file holds no plain configuration, or another than was written.
    """
    allowed = "the configuration of a run, as dit train wrote it"
    try:
        with file.open("rb") as opened:
            text = opened.read(MOST_BYTES + 1).decode()
        if len(text) > MOST_BYTES:
            raise InputError(str(file), f"(more than {MOST_BYTES} bytes)", allowed)
        check_plain(str(file), text)
        cfg = OmegaConf.create(text)
    except (OSError, yaml.YAMLError, ValueError, RecursionError, OmegaConfBaseException) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(str(file), f"({' '.join(str(error).split())})", allowed) from error
    if not isinstance(cfg, DictConfig):
        raise InputError(str(file), f"({type(cfg).__name__})", allowed)
    first, _, body = text.partition("\n")
    if _SEAL[1:] in first and first != f"{_SEAL}{_seal(body)}":
        raise InputError(str(file), "(not what was written: its seal differs)", allowed, CHANGED)
    return cfg


def check_plain(where: str, text: str) -> None:
    """Raises InputError where a text is no YAML (or JSON), or holds more than plain values."""
    try:
        _check_events(where, text)
    except yaml.YAMLError as error:
        shown = " ".join(str(error).split())
        raise InputError(where, f"({shown})", "plain values, as dit writes them") from error


def _check_events(where: str, text: str) -> None:
    allowed = "plain values: configurations are resolved when they are written"
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise InputError(where, f"(the alias {event.anchor})", allowed, "Write the value itself.")
        if isinstance(event, yaml.ScalarEvent) and "${" in event.value:
            raise InputError(
                where, f"(the interpolation {event.value[:80]})", allowed, "Write the value itself."
            )
        if isinstance(event, yaml.ScalarEvent) and not depth:
            raise InputError(
                where, f"({event.value[:80]!r})", "keys and values, as in the config.yaml of a run"
            )
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise InputError(where, f"(values {depth} levels deep)", allowed)


def _seal(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
