"""Checks of the data for a run and a plan: the encoded images are unchanged, and some are held out."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from dit.config.given import given_values
from dit.config.instantiation import instantiate
from dit.config.nodes import node_of
from dit.data import origin
from dit.data.conditions.base import Conditions
from dit.data.manifest import check_settings, read_manifest
from dit.errors import InputError

# What may be given though latents that are there leave it without effect: where they came from, and their names. All
# else that encoding heeds is compared with their manifest; what it computes with has no say in training.
OF_LATENTS = ("data.source", "data.name", "autoencoder.name", "condition.name", "condition.suffix")


def check_images(cfg: DictConfig) -> None:
    """Raises InputError where the images of ``data.source`` are here, but are not those that were encoded.

    A run needs the latents alone: where the images are not, nothing is checked.
    """
    directory = Path(cfg.data.directory)
    if not (directory / origin.NAME).is_file():
        return
    source = instantiate(cfg.data.source)
    try:
        len(source)
    except InputError:
        return
    origin.check_origin(directory, source, noted_only=True)


def check_encoded(cfg: DictConfig) -> None:
    """Raises InputError where latents that are there were encoded otherwise than settings that were given say.

    Of an autoencoder on disk nothing is compared where it is not here: a run needs the latents alone.
    """
    directory = Path(cfg.data.directory)
    if not (directory / "manifest.json").is_file():
        return
    asked: dict[str, Any] = {}
    stored = read_manifest(directory)["config"]
    for key in ("dtype", "shard_images"):
        if any(given_values(node_of(cfg, f"data.{key}"), of_file_too=True)):
            asked[key] = cfg.data[key]
    if stored.get("dtype") == "uint8":  # pixels, whatever was asked for
        asked.pop("dtype", None)
    if any(given_values(cfg.autoencoder, of_file_too=True)):
        with suppress(InputError):
            asked["autoencoder"] = instantiate(cfg.autoencoder.spec).config
    check_settings(directory, asked)


def conditions(cfg: DictConfig) -> Conditions:
    """What networks are told of the data: of older runs, which do not say, the label."""
    node = cfg.get("condition")
    return Conditions() if node is None else instantiate(node.spec)


def in_sweep() -> bool:
    """Whether this is a job of a study, whose driver has checked what all of its runs share."""
    return HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN


def held_out_count(cfg: DictConfig) -> int | None:
    """Number of held-out images: of the manifest, or before encoding of the settings; None where these do not tell.

    Raises:
        InputError: none is held out, so that no loss can be measured.
    """
    directory = Path(cfg.data.directory)
    if not (directory / "manifest.json").is_file():
        return instantiate(cfg.data.split).held_out(instantiate(cfg.data.source))
    count = read_manifest(directory)["splits"]["validation"]["count"]
    if not count:
        raise InputError(
            "data.split",
            f"({directory} holds out no image)",
            "images to measure the loss on",
            "Encode again with data.split._target_=dit.data.split.StratifiedShare, which always holds some out.",
        )
    return count
