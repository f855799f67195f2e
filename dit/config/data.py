"""Checks of the data for a run and a plan: the encoded images are unchanged, and some are held out."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from dit.config.given import given_values
from dit.config.nodes import node_of
from dit.config.parts import Parts
from dit.data import origin
from dit.data.manifest import check_settings
from dit.errors import InputError

# What may be given though latents that are there leave it without effect: where they came from, and their names. All
# else that encoding heeds is compared with their manifest; what it computes with has no say in training.
OF_LATENTS = ("data.source", "data.name", "autoencoder.name", "condition.name", "condition.suffix")


def check_images(parts: Parts) -> None:
    """Raises InputError where the images of ``data.source`` are here, but are not those that were encoded.

    A run needs the latents alone: where the images are not, nothing is checked.
    """
    directory = Path(parts.cfg.data.directory)
    if not (directory / origin.NAME).is_file():
        return
    source = parts.source
    try:
        len(source)
    except InputError:
        return
    origin.check_origin(directory, source, noted_only=True)


def check_encoded(parts: Parts) -> None:
    """Raises InputError where latents that are there were encoded otherwise than settings that were given say.

    Of an autoencoder on disk nothing is compared where it is not here: a run needs the latents alone.
    """
    if not parts.is_encoded:
        return
    cfg, asked = parts.cfg, dict[str, Any]()
    for key in ("dtype", "shard_images"):
        if any(given_values(node_of(cfg, f"data.{key}"), of_file_too=True)):
            asked[key] = cfg.data[key]
    if parts.manifest.content["config"].get("dtype") == "uint8":  # pixels, whatever was asked for
        asked.pop("dtype", None)
    if any(given_values(cfg.autoencoder, of_file_too=True)):
        with suppress(InputError):
            asked["autoencoder"] = parts.spec.config
    check_settings(parts.manifest, asked)


def in_sweep() -> bool:
    """Whether this is a job of a study, whose driver has checked what all of its runs share."""
    return HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN


def check_held_out(parts: Parts) -> None:
    """Raises InputError where no image of the encoded data is held out, so that no loss can be measured."""
    if parts.facts.n_held_out == 0 and parts.is_encoded:
        raise InputError(
            "data.split",
            f"({parts.manifest.directory} holds out no image)",
            "images to measure the loss on",
            "Encode again with data.split._target_=dit.data.split.StratifiedShare, which always holds some out.",
        )
