"""A trained denoiser back from its run directory."""

import hashlib
import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError

from dit.config.files import read_yaml
from dit.config.parts import Parts
from dit.diffusion.denoiser import NetworkReader
from dit.errors import InputError, RunError, input_error
from dit.rundir import read_environment
from dit.training.checkpoint import Checkpoint, clock, open_checkpoint
from dit.training.saving import CheckpointManager
from dit.training.synthesis import synthesize

log = logging.getLogger("dit")

# What code raises that is handed a configuration or tensors of another kind than it expects.
_MISFITS = (
    *(ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError, SafetensorError),
    *(OmegaConfBaseException, HydraException),
)


@dataclass(frozen=True)
class Loaded:
    """A denoiser and what it came from.

    Attributes:
        denoiser: in evaluation mode, on the device asked for.
        parts: those of the run's own configuration.
        images_seen: the clock of its checkpoint.
        weights: ``raw`` or the average's name.
        image_size: pixels per side of the pictures that it samples; None for arrays.
    """

    denoiser: NetworkReader
    parts: Parts
    images_seen: int
    weights: str
    image_size: int | None

    @property
    def cfg(self) -> DictConfig:
        """The run's own configuration."""
        return self.parts.cfg

    @cached_property
    def sha256(self) -> str:
        """Hash of the network's weights: what was sampled, whatever its run is called."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.denoiser.network.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(tensor.contiguous().cpu().view(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


def load_run(run: str | Path, weights: str | None, images_seen: int | None, device: torch.device) -> Loaded:
    """The denoiser of a run.

    Args:
        run: a run directory.
        weights: ``raw``, the name of an average, or ``power:<sigma_rel>``, a power-function average of that width
            made from the stored ones (``dit.training.synthesis``).
        images_seen: which checkpoint; None is the newest good one.
        device: where to put it.

    Raises:
        InputError: there is no such run, checkpoint or average.
        CheckpointError: the checkpoint is damaged.
    """
    directory = Path(run)
    if weights is None:
        raise InputError("weights", None, "raw, an average's name or power:<sigma_rel>")
    if not (directory / "config.yaml").is_file():
        raise InputError(
            "run", str(run), "the directory of a run (config.yaml in it)", "Train one with dit train."
        )
    cfg = read_yaml(directory / "config.yaml")
    checkpoint = _checkpoint(directory / "checkpoints", images_seen)
    checkpoint.check_run((read_environment(directory) or {}).get("config_hash"))
    try:
        return _built(Parts(cfg), checkpoint, weights, device)
    except _MISFITS as error:
        if input_error(error) is not None or isinstance(error, (RunError, torch.OutOfMemoryError)):
            raise
        shown = " ".join(str(error).split())[:300]
        allowed = "a run whose configuration and weights belong together, as dit train wrote it"
        raise InputError("run", f"({run}: {type(error).__name__}: {shown})", allowed) from error


def _built(parts: Parts, checkpoint: Checkpoint, weights: str, device: torch.device) -> Loaded:
    parts.make("manifest")  # the latents must be there, and are the data's facts
    domain, objective = parts.facts.domain, parts.objective
    told, held = parts.counts.n_params_total, checkpoint.n_bytes
    if told > held:  # before so much memory is taken
        raise InputError(
            "run", f"({told} weights in config.yaml, {held} bytes of them)", "a run of one network"
        )
    network = parts.network.build(domain, parts.facts.kind, objective.process.out_channels(domain))
    names = [name for name, _ in network.named_parameters()]
    network.load_state_dict(_tensors(checkpoint, weights, names, parts), strict=False)
    denoiser = objective.process.denoiser(network).to(device).eval().requires_grad_(False)
    size = parts.manifest.content.get("image_shape", (None, None))[1]
    return Loaded(denoiser, parts, checkpoint.images_seen, weights, size)


def _tensors(checkpoint: Checkpoint, weights: str, names: list[str], parts: Parts) -> dict[str, torch.Tensor]:
    """The network's parameters by name."""
    kind, _, width = weights.partition(":")
    if kind == "power" and width:
        try:
            sigma_rel = float(width)
        except ValueError as error:
            raise InputError("weights", weights, "power:<sigma_rel>, such as power:0.05") from error
        manager = CheckpointManager(checkpoint.directory.parent)
        earlier = (open_checkpoint(path) for path in manager.directories())
        found = synthesize(earlier, parts.profiles, names, sigma_rel, checkpoint.images_seen)
        log.info(
            "weights of sigma_rel %g made from stored averages: profile error %.1e", sigma_rel, found.error
        )
        return found.tensors
    prefix = "network/" if weights == "raw" else f"average/{weights}/"
    try:
        tensors = checkpoint.read(f"{prefix}{name}" for name in names)
    except KeyError as error:
        choices = ["raw", *parts.cfg.averages, "power:<sigma_rel>"]
        raise InputError("weights", weights, f"one of {', '.join(choices)}") from error
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def _checkpoint(directory: Path, images_seen: int | None) -> Checkpoint:
    manager = CheckpointManager(directory)
    if images_seen is None:
        found = manager.latest()
        if found is None:
            raise InputError("run", str(directory.parent), "a run with a checkpoint", "Train it further.")
        return found
    known = {clock(path): path for path in manager.directories()}
    if images_seen not in known:
        raise InputError("images_seen", images_seen, f"one of {', '.join(map(str, known)) or '(none)'}")
    return open_checkpoint(known[images_seen])
