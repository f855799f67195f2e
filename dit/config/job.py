"""A composed configuration of a run as the plain values that the layers below take.

``identity``, which a study needs, imports no torch; the others import it inside, in their first line.
"""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from dit.config.data import OF_LATENTS, check_encoded, check_held_out, check_images, in_sweep
from dit.config.given import refuse_unread, unnoted
from dit.config.instantiation import instantiate
from dit.config.objective import describe_objective, is_fit
from dit.config.parts import Parts
from dit.config.protocols import protocols
from dit.errors import InputError, check_number
from dit.launch import World, same_everywhere

if TYPE_CHECKING:
    import torch

    from dit.training.job import Job

# What a run computes on, where it lies, how it is shown and how often it is saved: not what it is.
# The data, their autoencoder and their conditions are known by the hash of the latents instead.
NOT_IDENTITY = (
    "run_dir",
    "run_name",
    "hardware",
    "logger",
    "study",
    "checkpoint_every_images",
    "keep_every_images",
    "max_time",
    "strategy",
    "accumulation",
    "activation_checkpointing",
    "compile",
    "data",
    "autoencoder",
    "condition",
)


def identity(parts: Parts) -> str:
    """The hash of what a run was asked to do: the settings that move its numbers, and its data by content.

    How long it trains and where it is read belong to it only where the learning rate depends on the end: else a longer
    run is the same run further on, and may grow from its checkpoints.
    """
    with unnoted():
        settings = OmegaConf.to_container(parts.cfg, resolve=True)
    assert isinstance(settings, dict)
    far = 10**15
    grows = parts.schedule.shared_until(far) == far
    left_out = {*NOT_IDENTITY, *(("duration", "read_at_flops") if grows else ())}
    asked = {str(key): value for key, value in settings.items() if key not in left_out}
    if is_fit(parts.cfg):
        asked.pop("method", None)
    asked["data"] = parts.manifest.sha256
    text = json.dumps(asked, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def n_processes(cfg: DictConfig) -> int:
    """How many processes a verb is to start itself, checked before the hardware is looked at."""
    check_number("hardware.processes", cfg.hardware.processes, low=1, integer=True)
    return cfg.hardware.processes


def meet(cfg: DictConfig) -> "tuple[World, torch.device]":
    """This process among those that a launcher started, which have met, and its device."""
    if (processes := n_processes(cfg)) > 1:
        remedy = f"Start them by torchrun --nproc-per-node {processes} -m dit ..., or by srun."
        raise InputError("hardware.processes", processes, "1 where nothing is trained", remedy)
    import torch

    hardware, world = instantiate(cfg.hardware), World.of_launcher()
    torch.set_num_threads(hardware.threads)
    device = hardware.torch_device(world)
    if world.size > 1:
        world.meet(device.type)
    return world, device


def training_job(parts: Parts, config_hash: str, path: Path, world: World) -> "Job":
    """Everything a training run is made of, checked; on every rank, which meet here.

    Raises:
        InputError: on every rank, whichever found it.
    """
    if world.size > 1 or parts.cfg.strategy in ("ddp", "fsdp", "hsdp"):
        world.meet(parts.hardware.torch_device(world).type)
    job = same_everywhere(world, lambda: _job(parts, config_hash, path, world))
    # rank 0 alone has a logger
    refuse_unread(parts.cfg, besides=(*OF_LATENTS, *(("logger",) if world.rank else ())))
    _check_extractor(job)
    return job


def _check_extractor(job: "Job") -> None:
    """Raises InputError where samples would be drawn that the extractor does not take."""
    if job.measures:
        from dit.config.readings import SampleMeasure

        for _, measure in job.measures:
            if isinstance(measure, SampleMeasure):
                measure.yardstick.check_extractor()
                return


def _job(parts: Parts, config_hash: str, path: Path, world: World) -> "Job":
    from dit.data.draws import validation_draws
    from dit.data.latents import LatentSet
    from dit.rundir import git_commit
    from dit.training.job import Job
    from dit.training.settings import seconds

    cfg, settings = parts.cfg, parts.settings
    check_held_out(parts)
    check_encoded(parts)
    if world.rank == 0 and not in_sweep():  # a study's driver has looked
        check_images(parts)
    limit = seconds(cfg.max_time)
    parts.schedule.check(parts.points[-1].step * settings.batch_size, settings.warmup_images)
    parts.strategy.resolve(world, settings.batch_size)
    latents, held_out = (LatentSet(parts.manifest, split) for split in ("train", "validation"))
    draws = validation_draws(held_out, cfg.validation.n_draws, cfg.validation.n_bins, cfg.validation.seed)
    name = cfg.run_name or path.name
    facts = {
        "study": cfg.study.name or name,
        "objective": describe_objective(cfg),
        "git_commit": git_commit(),
        "data": {"name": cfg.data.name, "manifest_hash": latents.manifest_hash, "n_train": len(latents)}
        | {"n_held_out": len(held_out), "num_classes": latents.manifest["num_classes"]}
        | {"autoencoder": latents.manifest["autoencoder"]["kind"]},
    }
    return Job(
        **vars(parts.recipe),
        name=name,
        counts=parts.counts,
        latents=latents,
        validation=draws,
        validation_condition=held_out.condition(draws.index),
        points=parts.points,
        config_hash=config_hash,
        facts=facts,
        world=world,
        deadline=time.monotonic() + limit if limit is not None else None,
        branch_from=Path(cfg.branch_from) if cfg.branch_from is not None else None,
        measures=sample_measures(parts, path, parts.hardware.torch_device(world)),
        sample_weights=cfg.sample_weights if protocols(cfg) else "raw",
        sinks=_sinks(cfg, config_hash, path) if world.rank == 0 else (),
    )


def sample_measures(
    parts: Parts, run_dir: Path, device: Any
) -> "list[tuple[str, Callable[..., dict[str, Any]]]]":
    """The measures of generated images that a configuration asks for: (when, (denoiser, name, weights) -> fields)."""
    if not parts.samplings:  # a run must not end in what its first samples could have said
        return []
    from dit.config.readings import SampleMeasure, Yardstick

    yardstick, found = Yardstick(parts, device), protocols(parts.cfg)
    return [(found[name].at, SampleMeasure(yardstick, one, run_dir)) for name, one in parts.samplings.items()]


def _sinks(cfg: DictConfig, config_hash: str, run_dir: Path) -> list[Any]:
    if cfg.logger._target_ is None:
        return []
    with unnoted():
        settings = OmegaConf.to_container(cfg, resolve=True)
    facts = {"run_id": config_hash, "group": cfg.study.name, "directory": str(run_dir), "settings": settings}
    return [instantiate(cfg.logger, **facts, _recursive_=False)]  # the settings hold targets of their own
