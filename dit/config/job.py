"""A composed configuration of a run as the plain values that the layers below take.

Functions that a plan needs import no torch; the others import it inside, in their first line.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from dit.condition import Classes, ConditionKind
from dit.config.data import (
    OF_LATENTS,
    check_encoded,
    check_images,
    conditions,
    held_out_count,
    in_sweep,
)
from dit.config.given import refuse_unread, unnoted
from dit.config.instantiation import instantiate
from dit.config.objective import describe_objective, is_fit, out_channels
from dit.config.protocols import protocols
from dit.data.autoencoder import latent_domain
from dit.data.manifest import check_settings, condition_kind, domain_of, manifest_hash, read_manifest
from dit.data.split import is_of_before
from dit.domain import Domain
from dit.errors import InputError, check_number
from dit.launch import World, same_everywhere
from dit.network.config import DiTConfig
from dit.network.counting import Counts

if TYPE_CHECKING:
    import torch

    from dit.training.hardware import Hardware
    from dit.training.job import Job
    from dit.training.settings import ReadPoint
    from dit.training.strategy import Strategy

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
# The numbers of the training loop.
SETTINGS = (
    "batch_size",
    "seed",
    "warmup_images",
    "label_dropout",
    "grad_clip",
    "log_every_images",
    "checkpoint_every_images",
    "keep_every_images",
    "on_nonfinite",
)


# -- without torch ---------------------------------------------------------------------------------------


def data_facts(cfg: DictConfig) -> tuple[Domain, ConditionKind, int | None]:
    """Domain, kind of condition and number of training images: from the manifest, or from the settings before encoding.

    Raises:
        InputError: the latents that are there were made with other settings, which nothing here could heed any more.
    """
    directory = Path(cfg.data.directory)
    if (directory / "manifest.json").is_file():
        # not the source and the autoencoder's weights, which need not be where a run is
        asked = {key: cfg.data[key] for key in ("flip", "normalise") if key in cfg.data}
        asked["image_size"] = cfg.data.get("image_size")  # None of arrays
        asked["condition"] = conditions(cfg).config
        manifest, split = read_manifest(directory), instantiate(cfg.data.split).config
        if not is_of_before(manifest["config"].get("split"), split):
            asked["split"] = split
        check_settings(directory, asked)
        return domain_of(manifest), condition_kind(manifest), manifest["splits"]["train"]["count"]
    source = instantiate(cfg.data.source)
    domain = latent_domain(instantiate(cfg.autoencoder.spec), source, cfg.data.get("image_size"))
    held = instantiate(cfg.data.split).held_out(source)
    kind = conditions(cfg).kind(Classes(len(source.class_names)))
    return domain, kind, None if held is None else len(source) - held


def network_config(cfg: DictConfig, **overrides: Any) -> DiTConfig:
    """The network of a configuration, with some of its settings replaced."""
    return instantiate(cfg.network, **overrides)


def counts(cfg: DictConfig, network: DiTConfig) -> Counts:
    """Parameters and multiply-adds of a network on the configuration's data."""
    domain, kind, _ = data_facts(cfg)
    found = network.count(domain, kind, out_channels(cfg, domain))
    if is_fit(cfg):
        return found
    return replace(found, train_macs_per_image=instantiate(cfg.method).func.step_cost(found))


def check_list(key: str, value: Any) -> None:
    """Refuses one value where a list belongs, which would be taken letter by letter."""
    if not OmegaConf.is_list(value) and not isinstance(value, list):
        raise InputError(key, value, "a list", f"Write {key}=[{'' if value is None else value}].")


def identity(cfg: DictConfig) -> str:
    """The hash of what a run was asked to do: the settings that move its numbers, and its data by content.

    How long it trains and where it is read belong to it only where the learning rate depends on the end: else a longer
    run is the same run further on, and may grow from its checkpoints.
    """
    with unnoted():
        settings = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(settings, dict)
    far = 10**15
    grows = instantiate(cfg.schedule).shared_until(far) == far
    left_out = {*NOT_IDENTITY, *(("duration", "read_at_flops") if grows else ())}
    asked = {str(key): value for key, value in settings.items() if key not in left_out}
    if is_fit(cfg):
        asked.pop("method", None)
    asked["data"] = manifest_hash(cfg.data.directory)
    text = json.dumps(asked, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_points(cfg: DictConfig) -> "list[ReadPoint]":
    """Where a run is measured; the last is its end."""
    from dit.training.settings import Duration, read_points

    check_number("batch_size", cfg.batch_size, low=1, integer=True)
    check_list("read_at_flops", cfg.read_at_flops)
    per_image = counts(cfg, network_config(cfg)).train_flops_per_image
    last_step = Duration(**cfg.duration).in_steps(cfg.batch_size, per_image)
    return read_points(list(cfg.read_at_flops), last_step, cfg.batch_size, per_image)


# -- with torch ------------------------------------------------------------------------------------------


def n_processes(cfg: DictConfig) -> int:
    """How many processes ``dit train`` is to start itself, checked before the hardware is looked at."""
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


def training_job(cfg: DictConfig, config_hash: str, path: Path, world: World) -> "Job":
    """Everything a training run is made of, checked; on every rank, which meet here.

    Raises:
        InputError: on every rank, whichever found it.
    """
    from dit.training.hardware import Hardware

    hardware = instantiate(cfg.hardware)
    assert isinstance(hardware, Hardware)
    if world.size > 1 or cfg.strategy in ("ddp", "fsdp", "hsdp"):
        world.meet(hardware.torch_device(world).type)
    job = same_everywhere(world, lambda: _job(cfg, config_hash, path, world, hardware))
    # rank 0 alone has a logger
    refuse_unread(cfg, besides=(*OF_LATENTS, *(("logger",) if world.rank else ())))
    return job


def _job(cfg: DictConfig, config_hash: str, path: Path, world: World, hardware: "Hardware") -> "Job":
    from dit.data.draws import validation_draws
    from dit.data.latents import LatentSet
    from dit.rundir import git_commit
    from dit.training.job import Job
    from dit.training.settings import Settings, seconds

    held_out_count(cfg)  # some, or this raises
    check_encoded(cfg)
    if world.rank == 0 and not in_sweep():  # a study's driver has looked
        check_images(cfg)
    settings = Settings(**{key: cfg[key] for key in SETTINGS})
    limit = seconds(cfg.max_time)
    objective, network = instantiate(cfg.objective), network_config(cfg)
    optimizer, profiles = instantiate(cfg.optimizer), instantiate(cfg.averages)
    points = read_points(cfg)
    schedule = instantiate(cfg.schedule)
    schedule.check(points[-1].step * settings.batch_size, settings.warmup_images)
    strategy = training_strategy(cfg)
    strategy.resolve(world, settings.batch_size)
    latents = LatentSet(cfg.data.directory, "train")
    held_out = LatentSet(cfg.data.directory, "validation")
    draws = validation_draws(held_out, cfg.validation.n_draws, cfg.validation.n_bins, cfg.validation.seed)
    name = cfg.run_name or path.name
    facts = {
        "study": cfg.study.name or name,
        "objective": describe_objective(cfg),
        "git_commit": git_commit(),
        "data": {"name": cfg.data.name, "manifest_hash": latents.manifest_hash, "n_train": len(latents)}
        | {"n_held_out": len(held_out)},
    }
    return Job(
        name=name,
        objective=objective,
        method=instantiate(cfg.method)(objective, settings.label_dropout),
        network=network,
        counts=counts(cfg, network),
        optimizer=optimizer,
        profiles=profiles,
        settings=settings,
        latents=latents,
        validation=draws,
        validation_condition=held_out.condition(draws.index),
        points=points,
        config_hash=config_hash,
        facts=facts,
        hardware=hardware,
        strategy=strategy,
        schedule=schedule,
        world=world,
        deadline=time.monotonic() + limit if limit is not None else None,
        branch_from=Path(cfg.branch_from) if cfg.branch_from is not None else None,
        measures=sample_measures(cfg, path, hardware.torch_device(world)),
        sample_weights=cfg.sample_weights if protocols(cfg) else "raw",
        sinks=_sinks(cfg, config_hash, path) if world.rank == 0 else (),
    )


def training_strategy(cfg: DictConfig) -> "Strategy":
    """How a step is carried out, checked."""
    from dit.training.strategy import Strategy

    keys = ("accumulation", "activation_checkpointing", "compile")
    return Strategy(cfg.strategy, **{key: cfg[key] for key in keys})


def sample_measures(
    cfg: DictConfig, run_dir: Path, device: Any
) -> "list[tuple[str, Callable[..., dict[str, Any]]]]":
    """The measures of generated images that a configuration asks for: (when, (denoiser, name, weights) -> fields)."""
    found = protocols(cfg)
    if not found:
        return []
    from dit.config.readings import SampleMeasure, Yardstick
    from dit.diffusion.sampling import rehearse

    yardstick, objective = Yardstick(cfg, device), instantiate(cfg.objective)
    measures = [(node.at, SampleMeasure(yardstick, name, node, run_dir)) for name, node in found.items()]
    for _, measure in measures:  # a run must not end in what its first samples could have said
        rehearse(objective.process, measure.sampling.solver, measure.sampling.grid)
    return measures


def _sinks(cfg: DictConfig, config_hash: str, run_dir: Path) -> list[Any]:
    if cfg.logger._target_ is None:
        return []
    with unnoted():
        settings = OmegaConf.to_container(cfg, resolve=True)
    facts = {"run_id": config_hash, "group": cfg.study.name, "directory": str(run_dir), "settings": settings}
    return [instantiate(cfg.logger, **facts, _recursive_=False)]  # the settings hold targets of their own
