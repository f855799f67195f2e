"""What ``dit bench`` times: the run that its command line would train, on synthetic latents or on those of the data."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig, OmegaConf

from dit.condition import Classes
from dit.config.data import OF_LATENTS, check_encoded
from dit.config.facts import Facts
from dit.config.given import refuse_unread
from dit.config.instantiation import instantiate
from dit.config.parts import Parts
from dit.diffusion.sampling import sample
from dit.domain import Domain
from dit.errors import InputError
from dit.launch import World, same_everywhere
from dit.training.bench import PARTS, SyntheticLatents, time_loading, time_sampling, time_training
from dit.training.job import build_module
from dit.training.streams import Streams
from dit.training.watching import Work, device_name, peak_memory

if TYPE_CHECKING:
    from dit.data.latents import LatentSet

Figures = dict[str, Any]


def figures(cfg: DictConfig, world: World) -> Figures:
    """What the figures were made with, and the figures; every rank of the world calls it, and they meet here."""
    parts = Parts(cfg, _synthetic(cfg))
    if cfg.latent_shape is None:
        check_encoded(parts)
    parts.make("objective", "network", "counts")
    device = parts.hardware.torch_device(world)
    if world.size > 1 or cfg.strategy in ("ddp", "fsdp", "hsdp"):
        world.meet(device.type)
    torch.set_num_threads(parts.hardware.threads)
    made_with = {
        "what": cfg.what,
        "device": device_name(device),
        "processes": world.size,
        "threads": parts.hardware.threads,
        "precision": "bf16-mixed" if parts.hardware.is_bf16 else "32-true",
        "compile": cfg.compile,
        "network": parts.network.as_dict(),
        "latent_shape": list(parts.facts.domain.shape),
        "batch_size": cfg.batch_size,
        "steps": cfg.steps,
    }
    return {**made_with, **MEASURES[cfg.what](parts, world)}


def _synthetic(cfg: DictConfig) -> Facts | None:
    """The facts of synthetic latents; None where they are the data's."""
    given = {key: cfg[key] for key in ("latent_shape", "num_classes") if cfg[key] is not None}
    if not given:
        return None
    if len(given) == 1:
        key, value = next(iter(given.items()))
        raise InputError(key, value, "latent_shape and num_classes together, or neither")
    if cfg.what == "data" or (cfg.what == "train" and cfg.latents == "data"):
        raise InputError(
            "latent_shape", list(cfg.latent_shape), "null where latents are read from data.directory"
        )
    if not OmegaConf.is_list(cfg.latent_shape) or len(cfg.latent_shape) < 2:
        allowed = "integers: channels and the size of each axis, as [channels,height,width]"
        raise InputError("latent_shape", cfg.latent_shape, allowed)
    kind = Parts(cfg).conditions.kind(Classes(cfg.num_classes))
    return Facts(Domain.of(list(cfg.latent_shape)), kind, None, None)


def _train(parts: Parts, world: World) -> Figures:
    """Whole steps, and their parts."""
    cfg, facts, strategy = parts.cfg, parts.facts, parts.strategy
    name = strategy.resolve(world, parts.settings.batch_size)
    synthetic = SyntheticLatents(facts.domain, facts.kind).as_latents()
    latents = _latents(parts, world) if cfg.latents == "data" else synthetic
    edges = torch.linspace(-8, 8, 9)
    module = build_module(parts.recipe, facts.domain, facts.kind, cfg.batch_size * 10**6, edges, world)
    _refuse_unread(cfg)
    found = time_training(module, latents, parts.hardware, name, world, cfg.steps, cfg.warm_up)
    images_per_second = cfg.batch_size / found.step_seconds
    flops_per_second = images_per_second * parts.counts.train_flops_per_image
    return {
        "strategy": name,
        "accumulation": strategy.accumulation,
        "activation_checkpointing": strategy.recomputed,
        "optimizer": str(parts.optimizer),
        "averages": len(parts.profiles),
        "workers": parts.hardware.n_workers,
        "latents": cfg.latents,
        "images_per_second": images_per_second,
        "train_flops_per_second": flops_per_second,
        "mfu": _mfu(parts, world, flops_per_second),
        "peak_memory_bytes": found.peak_memory_bytes,
        "step_seconds": found.step_seconds,
        "part_seconds": {key: found.part_seconds[key] for key in (*PARTS, "rest")},
        "share": found.shares,
        "outside_network_share": found.outside_share,
    }


def _sample(parts: Parts, world: World) -> Figures:
    """Latents drawn by a guided solver; one process."""
    cfg, facts, device = parts.cfg, parts.facts, parts.hardware.torch_device(world)
    if world.size > 1:
        raise InputError("what", "sample", "train or data with several processes", "Samples need no company.")
    process = parts.objective.process
    network = parts.network.build(facts.domain, facts.kind, process.out_channels(facts.domain), seed=cfg.seed)
    parts.strategy.prepare(network, "single", world, parts.hardware)
    guided = instantiate(cfg.guidance)(process.denoiser(network).to(device).eval())
    solver, grid = instantiate(cfg.solver), instantiate(cfg.grid)
    _refuse_unread(cfg)
    condition = facts.kind.drawn("balanced", 0, cfg.batch_size).to(device)
    seconds, nfe = time_sampling(
        lambda: sample(guided, solver, grid, facts.domain.shape, range(cfg.batch_size), condition, device),
        device,
        parts.hardware.is_bf16,
        cfg.steps,
        cfg.warm_up,
    )
    flops_per_second = cfg.batch_size / seconds * nfe * 2 * parts.counts.macs_per_image
    return {
        "nfe": nfe,
        "images_per_second": cfg.batch_size / seconds,
        "flops_per_second": flops_per_second,
        "mfu": _mfu(parts, world, flops_per_second),
        "peak_memory_bytes": peak_memory(device),
    }


def _data(parts: Parts, world: World) -> Figures:
    """Batches as training asks for them: this rank's share, by as many workers."""
    cfg, n_workers = parts.cfg, parts.hardware.n_workers
    streams = Streams(cfg.seed, cfg.batch_size, world.rank, world.size)
    _refuse_unread(cfg)
    seconds = time_loading(_latents(parts, world), streams, n_workers, cfg.steps, cfg.warm_up)
    return {"workers": n_workers, "images_per_second": cfg.batch_size / seconds, "step_seconds": seconds}


MEASURES: dict[str, Callable[[Parts, World], Figures]] = {"train": _train, "sample": _sample, "data": _data}


def _refuse_unread(cfg: DictConfig) -> None:
    """Refuses what was given and has no effect on this benchmark."""
    refuse_unread(cfg, besides=OF_LATENTS if cfg.latent_shape is None else ())


def _mfu(parts: Parts, world: World, flops_per_second: float) -> float | None:
    """Share of the devices' peak; None where it is not known."""
    return Work(0, 1.0, device_name(parts.hardware.torch_device(world)), world.size).mfu(flops_per_second)


def _latents(parts: Parts, world: World) -> "LatentSet":
    from dit.data.latents import LatentSet

    return same_everywhere(world, lambda: LatentSet(parts.manifest, "train"))
