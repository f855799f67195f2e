"""``dit export``: a run's weights in one file for others, with the configuration of the denoiser they belong to."""

import json
import logging
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dit.config.given import refuse_unread
from dit.errors import InputError, check_choice, input_error
from dit.rundir import make_directory
from dit.trust import parse
from dit.verbs.app import hydra_app

log = logging.getLogger("dit")

FORMATS = ("safetensors", "dit", "diffusers")


def task(cfg: DictConfig) -> None:
    """Writes the weights of one checkpoint; the file appears whole or not at all."""
    check_choice("format", cfg.format, FORMATS)
    if cfg.run is None or cfg.out is None:
        missing = "run" if cfg.run is None else "out"
        raise InputError(missing, None, "a run directory and a file: dit export run=DIR out=FILE")
    out = Path(cfg.out)
    if out.exists():
        raise InputError("out", str(out), "a name that does not exist yet")
    if not out.parent.is_dir():
        raise InputError("out", str(out), f"a name in a folder that exists; {out.parent} does not")
    make_directory("out", out.parent)  # which it need not make, but must be able to write
    if cfg.format == "diffusers" and cfg.autoencoder_directory is None:
        raise InputError(
            "autoencoder_directory", None, "a diffusers AutoencoderKL directory with format=diffusers"
        )
    weights, images_seen = cfg.weights, cfg.images_seen
    refuse_unread(cfg)
    import torch  # after the cheap checks

    from dit.config.run import load_run
    from dit.network import export, pipeline

    loaded = load_run(cfg.run, weights, images_seen, torch.device("cpu"))
    network: Any = loaded.denoiser.network
    if cfg.format == "diffusers":
        statistics = _latent_statistics(loaded.cfg)
        pipeline.save_diffusers(network, out, cfg.autoencoder_directory, **statistics)
    else:
        if cfg.format == "dit":
            export.save_dit(network, out)
        else:
            objective = json.dumps(OmegaConf.to_container(loaded.cfg.objective, resolve=True))
            clock = str(loaded.images_seen)
            export.save_safetensors(network, out, objective=objective, weights=cfg.weights, images_seen=clock)
    log.info("%s: %s weights at %d images", out, cfg.weights, loaded.images_seen)


app = hydra_app("export")(task)


def load_exported(path: str | Path) -> Any:
    """The denoiser of a file that ``dit export`` wrote as safetensors: network, path and target, on the CPU.

    Raises:
        InputError: the file is not one of those.
    """
    from dit.config.files import check_plain
    from dit.config.instantiation import instantiate
    from dit.diffusion.masked import MaskedObjective
    from dit.diffusion.objective import Objective
    from dit.network.export import load_safetensors, read_metadata

    objective = read_metadata(path).get("objective")
    if objective is None:
        raise InputError("path", str(path), "a file of dit export, which names the objective")
    check_plain(str(path), objective)
    said = OmegaConf.create({"objective": parse(objective, f"{path}: objective")})
    network = load_safetensors(path)
    try:
        made = instantiate(said.objective)
    except (HydraException, OmegaConfBaseException) as error:
        shown = " ".join(str(input_error(error) or error).split())[:300]
        raise InputError(
            f"{path}: objective", f"({shown})", "an objective, as dit export writes it"
        ) from error
    if not isinstance(made, Objective | MaskedObjective):
        raise InputError(f"{path}: objective", said.objective, "an objective, as dit export writes it")
    return made.process.denoiser(network).eval()


def _latent_statistics(cfg: DictConfig) -> dict[str, Any]:
    from dit.data.manifest import read_manifest

    manifest = read_manifest(cfg.data.directory)
    names = {"latent_mean": "channel_mean", "latent_std": "channel_std", "class_names": "class_names"}
    return {name: manifest[key] for name, key in names.items()}
