"""``dit bench train|sample|data``: throughput and where the time goes, on synthetic latents of the data's shape."""

import time
from typing import Any

from omegaconf import DictConfig

from dit.errors import check_choice, check_number
from dit.verbs import building
from dit.verbs.app import check_format, console, hydra_app, instantiate, show


def task(cfg: DictConfig) -> None:
    """Times one of the three."""
    check_format(cfg.format)
    check_choice("what", cfg.what, ("train", "sample", "data"))
    for key, low in (("steps", 1), ("warm_up", 0), ("batch_size", 1)):
        check_number(key, cfg[key], low=low, integer=True)
    network = building.network_config(cfg)
    shape, num_classes, _ = building.data_facts(cfg)
    size = building.counts(cfg, network)
    import torch

    hardware = instantiate(cfg.hardware)
    torch.set_num_threads(hardware.threads)
    device = hardware.torch_device()
    measure = {"train": _train, "sample": _sample, "data": _data}[cfg.what]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    result = measure(cfg, network, shape, num_classes, size, device)
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    facts = {
        "what": cfg.what,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": hardware.threads,
        "network": network.as_dict(),
        "latent_shape": list(shape),
        "batch_size": cfg.batch_size,
        "steps": cfg.steps,
        "peak_memory_bytes": memory,
    }
    show({**facts, **result}, cfg.format, _print)


app = hydra_app("bench")(task)


def _train(
    cfg: DictConfig, network: Any, shape: Any, num_classes: int, size: Any, device: Any
) -> dict[str, Any]:
    import torch

    from dit.network.dit import DiT
    from dit.training.batches import Batch
    from dit.training.bench import time_split, train_figures
    from dit.training.module import DiffusionModule
    from dit.training.settings import Settings
    from dit.training.streams import Streams

    names = ("batch_size", "seed", "warmup_images", "label_dropout", "grad_clip", "log_every_images")
    settings = Settings(**{key: cfg[key] for key in (*names, "checkpoint_every_images")})
    objective, streams = instantiate(cfg.objective), Streams(cfg.seed, cfg.batch_size)
    module = DiffusionModule(
        objective,
        DiT(network, shape, num_classes, objective.out_channels(shape[0]), seed=cfg.seed).to(device),
        null_class=num_classes,
        optimizer=instantiate(cfg.optimizer),
        profiles=instantiate(cfg.averages),
        settings=settings,
        streams=streams,
    )

    def batch(step: int) -> Batch:
        labels = torch.arange(cfg.batch_size) % num_classes
        return Batch(streams.normal("posterior", step, shape), labels, labels, step)

    split = time_split(module, batch, cfg.steps, cfg.warm_up, device)
    return train_figures(split, cfg.batch_size, size.train_flops_per_image)


def _sample(
    cfg: DictConfig, network: Any, shape: Any, num_classes: int, size: Any, device: Any
) -> dict[str, Any]:
    import torch

    from dit.diffusion.sampling import sample
    from dit.network.dit import DiT

    objective = instantiate(cfg.objective)
    net = DiT(network, shape, num_classes, objective.out_channels(shape[0]), seed=cfg.seed)
    denoiser = objective.denoiser(net).to(device).eval()
    guided = instantiate(cfg.guidance)(denoiser)
    solver, grid = instantiate(cfg.solver), instantiate(cfg.grid)
    labels = torch.arange(cfg.batch_size, device=device) % num_classes
    rates, nfe = [], 0
    for _ in range(cfg.warm_up + cfg.steps):
        start = time.perf_counter()
        nfe = sample(guided, solver, grid, shape, range(cfg.batch_size), labels, device).nfe
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        rates.append(cfg.batch_size / (time.perf_counter() - start))
    rate = sorted(rates[cfg.warm_up :])[cfg.steps // 2]
    return {"images_per_second": rate, "nfe": nfe, "flops_per_second": rate * nfe * 2 * size.macs_per_image}


def _data(
    cfg: DictConfig, network: Any, shape: Any, num_classes: int, size: Any, device: Any
) -> dict[str, Any]:
    from dit.data.latents import LatentSet
    from dit.training.batches import Batches
    from dit.training.streams import Streams

    latents = LatentSet(cfg.data.directory, "train", verify=False)
    batches = Batches(latents, Streams(cfg.seed, cfg.batch_size), 0, cfg.warm_up + cfg.steps)
    seconds = []
    for step in range(cfg.warm_up + cfg.steps):
        start = time.perf_counter()
        batches.batch(step)
        seconds.append(time.perf_counter() - start)
    median = sorted(seconds[cfg.warm_up :])[cfg.steps // 2]
    return {"images_per_second": cfg.batch_size / median, "step_seconds": median}


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
