"""``dit bench train|sample|data``: throughput, MFU, memory and where the time goes."""

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from dit.condition import Classes, ConditionKind
from dit.config import job as job_config
from dit.config.checks import check_run
from dit.config.data import OF_LATENTS, check_encoded, conditions
from dit.config.given import refuse_unread
from dit.config.instantiation import instantiate
from dit.domain import Domain
from dit.errors import EXIT_DONE, InputError, RunError, check_choice, check_number
from dit.launch import World, in_processes, part, same_everywhere
from dit.network.config import DiTConfig
from dit.network.counting import Counts
from dit.verbs.app import check_format, console, explain, hydra_app, show

if TYPE_CHECKING:
    import torch

    from dit.data.latents import LatentSet
    from dit.training.hardware import Hardware


def task(cfg: DictConfig) -> None:
    """Times one of the three, as one rank of the world that a launcher made, or starting the ranks itself."""
    world = World.of_launcher()
    if world.size == 1 and cfg.hardware.processes > 1:
        code = in_processes(cfg.hardware.processes, _rank, cfg)
        if code != EXIT_DONE:
            raise RunError(f"a process of the benchmark ended with exit code {code}; see above")
        return
    check_format(cfg.format)
    check_run(cfg, duration=False)  # a benchmark is of the run that this command line would train
    check_choice("what", cfg.what, tuple(_MEASURES))
    check_choice("latents", cfg.latents, ("synthetic", "data"))
    for key, low in (("steps", 1), ("warm_up", 0), ("batch_size", 1)):
        check_number(key, cfg[key], low=low, integer=True)
    bench = _bench(cfg, world)
    result = {**bench.facts(), **_MEASURES[cfg.what](bench)}
    if world.rank == 0:
        show(result, cfg.format, _print)
    part()


app = hydra_app("bench")(task)


def _rank(cfg: DictConfig) -> None:
    """One of the processes that ``dit bench`` started itself."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        task(OmegaConf.merge(cfg, {"hardware": {"processes": 1}}))  # type: ignore[arg-type]
    except Exception as error:
        raise SystemExit(explain(error)) from error


@dataclass(frozen=True)
class Bench:
    """What is measured, and on what."""

    cfg: DictConfig
    world: World
    hardware: "Hardware"
    network: DiTConfig
    domain: Domain
    kind: ConditionKind
    objective: Any
    size: Counts

    @property
    def device(self) -> "torch.device":
        return self.hardware.torch_device(self.world)

    def facts(self) -> dict[str, Any]:
        """What the figures were made with."""
        from dit.training.watching import device_name

        cfg = self.cfg
        return {
            "what": cfg.what,
            "device": device_name(self.device),
            "processes": self.world.size,
            "threads": self.hardware.threads,
            "precision": "bf16-mixed" if self.hardware.is_bf16 else "32-true",
            "compile": cfg.compile,
            "network": self.network.as_dict(),
            "latent_shape": list(self.domain.shape),
            "batch_size": cfg.batch_size,
            "steps": cfg.steps,
        }

    def mfu(self, flops_per_second: float) -> float | None:
        """Share of the devices' peak; None where it is not known."""
        from dit.training.watching import Work, device_name

        return Work(0, 1.0, device_name(self.device), self.world.size).mfu(flops_per_second)

    def refuse_unread(self) -> None:
        """Refuses what was given and has no effect on this benchmark."""
        of_data = self.cfg.latent_shape is None
        refuse_unread(self.cfg, besides=OF_LATENTS if of_data else ())

    def build(self) -> Any:
        """The network, on the CPU."""
        channels = self.objective.process.out_channels(self.domain)
        return self.network.build(self.domain, self.kind, channels, seed=self.cfg.seed)


def _bench(cfg: DictConfig, world: World) -> Bench:
    network, objective = job_config.network_config(cfg), instantiate(cfg.objective)
    domain, kind = _facts(cfg)
    size = network.count(domain, kind, objective.process.out_channels(domain))
    hardware = instantiate(cfg.hardware)
    if world.size > 1 or cfg.strategy in ("ddp", "fsdp", "hsdp"):
        world.meet(hardware.torch_device(world).type)
    import torch

    torch.set_num_threads(hardware.threads)
    return Bench(cfg, world, hardware, network, domain, kind, objective, size)


def _facts(cfg: DictConfig) -> tuple[Domain, ConditionKind]:
    """What a latent is, and what networks are told: as configured, or the data's."""
    given = {key: cfg[key] for key in ("latent_shape", "num_classes") if cfg[key] is not None}
    if not given:
        check_encoded(cfg)
        domain, kind, _ = job_config.data_facts(cfg)
        return domain, kind
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
    return Domain.of(list(cfg.latent_shape)), conditions(cfg).kind(Classes(cfg.num_classes))


def _train(bench: Bench) -> dict[str, Any]:
    """Whole steps, and their parts."""
    import torch

    from dit.training.bench import PARTS, SyntheticLatents, time_training
    from dit.training.methods import Fit
    from dit.training.module import DiffusionModule
    from dit.training.schedules import Rate
    from dit.training.settings import Settings
    from dit.training.streams import Streams

    cfg, world = bench.cfg, bench.world
    settings = Settings(**{key: cfg[key] for key in job_config.SETTINGS})
    strategy = job_config.training_strategy(cfg)
    name = strategy.resolve(world, settings.batch_size)
    optimizer = instantiate(cfg.optimizer)
    synthetic = SyntheticLatents(bench.domain, bench.kind).as_latents()
    latents = _latents(bench) if cfg.latents == "data" else synthetic
    module = DiffusionModule(
        Fit(bench.objective, settings.label_dropout),
        bench.build(),
        optimizer=optimizer,
        rate=Rate(
            instantiate(cfg.schedule), cfg.batch_size * 10**6, optimizer.learning_rate(bench.network.width)
        ),
        profiles=instantiate(cfg.averages),
        settings=settings,
        streams=Streams(settings.seed, settings.batch_size, world.rank, world.size),
        edges=torch.linspace(-8, 8, 9),
        accumulation=strategy.accumulation,
        prepare=lambda network: strategy.prepare(network, name, world, bench.hardware),
    )
    bench.refuse_unread()
    found = time_training(module, latents, bench.hardware, name, world, cfg.steps, cfg.warm_up)
    images_per_second = cfg.batch_size / found.step_seconds
    flops_per_second = images_per_second * bench.size.train_flops_per_image
    return {
        "strategy": name,
        "accumulation": strategy.accumulation,
        "activation_checkpointing": strategy.recomputed,
        "optimizer": str(optimizer),
        "averages": len(module.profiles),
        "workers": bench.hardware.n_workers,
        "latents": cfg.latents,
        "images_per_second": images_per_second,
        "train_flops_per_second": flops_per_second,
        "mfu": bench.mfu(flops_per_second),
        "peak_memory_bytes": found.peak_memory_bytes,
        "step_seconds": found.step_seconds,
        "part_seconds": {key: found.part_seconds[key] for key in (*PARTS, "rest")},
        "share": found.shares,
        "outside_network_share": found.outside_share,
    }


def _sample(bench: Bench) -> dict[str, Any]:
    """Latents drawn by a guided solver; one process."""
    import torch

    from dit.diffusion.sampling import sample
    from dit.training.watching import peak_memory

    cfg, device = bench.cfg, bench.device
    if bench.world.size > 1:
        raise InputError("what", "sample", "train or data with several processes", "Samples need no company.")
    network = bench.build()
    job_config.training_strategy(cfg).prepare(network, "single", bench.world, bench.hardware)
    guided = instantiate(cfg.guidance)(bench.objective.process.denoiser(network).to(device).eval())
    solver, grid = instantiate(cfg.solver), instantiate(cfg.grid)
    bench.refuse_unread()
    condition = bench.kind.drawn("balanced", 0, cfg.batch_size).to(device)
    seconds, nfe = [], 0
    for _ in range(cfg.warm_up + cfg.steps):
        start = time.perf_counter()
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bench.hardware.is_bf16):
            nfe = sample(
                guided, solver, grid, bench.domain.shape, range(cfg.batch_size), condition, device
            ).nfe
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    images_per_second = cfg.batch_size * cfg.steps / sum(seconds[cfg.warm_up :])
    flops_per_second = images_per_second * nfe * 2 * bench.size.macs_per_image
    return {
        "nfe": nfe,
        "images_per_second": images_per_second,
        "flops_per_second": flops_per_second,
        "mfu": bench.mfu(flops_per_second),
        "peak_memory_bytes": peak_memory(device),
    }


def _data(bench: Bench) -> dict[str, Any]:
    """Batches as training asks for them: this rank's share, by as many workers."""
    from torch.utils.data import DataLoader

    from dit.training.batches import Batches
    from dit.training.streams import Streams

    cfg, world = bench.cfg, bench.world
    streams = Streams(cfg.seed, cfg.batch_size, world.rank, world.size)
    bench.refuse_unread()
    batches = Batches(_latents(bench), streams, 0, cfg.warm_up + cfg.steps)
    start = time.perf_counter()
    for step, _ in enumerate(DataLoader(batches, batch_size=None, num_workers=bench.hardware.n_workers), 1):
        if step == cfg.warm_up:
            start = time.perf_counter()
    seconds = (time.perf_counter() - start) / cfg.steps
    return {
        "workers": bench.hardware.n_workers,
        "images_per_second": cfg.batch_size / seconds,
        "step_seconds": seconds,
    }


_MEASURES = {"train": _train, "sample": _sample, "data": _data}


def _latents(bench: Bench) -> "LatentSet":
    from dit.data.latents import LatentSet

    return same_everywhere(bench.world, lambda: LatentSet(bench.cfg.data.directory, "train"))


def _print(result: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table()
    table.add_column("what")
    table.add_column("value", justify="right")
    for name, value in result.items():
        for key, number in value.items() if isinstance(value, dict) else [("", value)]:
            shown = f"{number:.4g}" if isinstance(number, float) else str(number)
            table.add_row(f"{name} {key}".strip(), shown)
    console().print(table)
