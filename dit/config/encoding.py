"""The command that encodes what a configuration asks for, and its run for a study."""

import json
import logging
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from dit import signals
from dit.config.data import check_images
from dit.config.given import unnoted
from dit.config.parts import Parts
from dit.errors import EXIT_INPUT, EXIT_RESUMABLE, InputError, RunError, Stopped
from dit.launch import in_child
from dit.overrides import override

log = logging.getLogger("dit")

GROUPS = ("data", "autoencoder", "condition")  # of which latents are made
SHIPPED = "condition=label"  # encode has it without a word


def require_latents(cfg: DictConfig) -> None:
    """Raises InputError, with the command that makes them, where a configuration's latents are not there."""
    directory = Path(cfg.data.directory)
    if directory.exists() or not HydraConfig.initialized():
        return  # what is there but no good is told by its reader
    with unnoted():
        words = encode_words(cfg, HydraConfig.get().runtime.choices)
    raise InputError(
        "data.directory",
        f"({directory}: no such directory)",
        "a directory written by `dit encode`",
        f"Run first: {shlex.join(['dit', 'encode', *words])}",
    )


def encode_if_missing(parts: Parts, choices: Mapping[str, Any]) -> bool:
    """Encodes a study's data in a process of its own, unless the latents are there; whether it did.

    Args:
        parts: of the study's runs.
        choices: the choice of each group of configuration files.

    Raises:
        InputError: the latents that are there were made from other images.
    """
    cfg = parts.cfg
    if parts.is_encoded:
        check_images(parts)
        return False
    log.info("encoding %s", cfg.data.directory)
    words = []
    for group in GROUPS:
        # every setting, since an experiment's file changes them too, and encode takes no experiment
        settings = leaves(group, OmegaConf.to_container(cfg[group], resolve=True))
        words += [f"{group}={choices[group]}", *(f"++{override(key, value)}" for key, value in settings)]
    code = in_child([sys.executable, "-m", "dit", "encode", *words])
    if code == EXIT_RESUMABLE or signals.stop_requested():
        raise Stopped("stopped while encoding; the same command continues the study")
    if code == EXIT_INPUT:
        raise SystemExit(code)  # it has said what is wrong
    if code:
        raise RunError(f"dit encode ended with exit code {code}")
    return True


def encode_words(cfg: DictConfig, choices: Mapping[str, Any]) -> list[str]:
    """The words after ``dit encode``: the choices, and what differs from them."""
    words = [word for group in GROUPS if (word := f"{group}={choices[group]}") != SHIPPED]
    shipped = compose("encode", overrides=words)
    for group in GROUPS:
        asked = OmegaConf.to_container(cfg[group], resolve=True)
        known = dict(leaves(group, OmegaConf.to_container(shipped[group], throw_on_missing=False)))
        changed = {"data.directory"} if cfg.data.directory != _named(cfg) else set()
        for key, value in leaves(group, asked):
            if known.get(key) != value and (key != "data.directory" or key in changed):
                words.append(f"{key}={value if isinstance(value, str) else json.dumps(value)}")
    return words


def _named(cfg: DictConfig) -> str:
    """The directory named after the data, as every file of conf/data has it."""
    return f"latents/{cfg.data.name}-{cfg.autoencoder.name}{cfg.condition.suffix}"


def leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The values below a key, each with its own."""
    if isinstance(value, dict) and value:
        for name, child in value.items():
            yield from leaves(f"{key}.{name}", child)
    else:
        yield key, value
