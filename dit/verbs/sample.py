"""``dit sample``: draws images from a run's checkpoint; a PNG grid, and on request a folder or an .npz of all."""

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from dit.errors import InputError, check_choice, check_number
from dit.rundir import make_directory
from dit.verbs.app import hydra_app, instantiate

log = logging.getLogger("dit")
TASKS = ("generate", "interpolate", "image_to_image", "inpaint")


def task(cfg: DictConfig) -> None:
    """Draws images by one of the tasks."""
    if cfg.run is None:
        raise InputError("run", None, "the directory of a run", "Name one: dit sample run=runs/...")
    check_choice("task", cfg.task, TASKS)
    check_choice("save", cfg.save, ("grid", "folder", "npz"))
    check_number("n", cfg.n, low=1, integer=True)
    check_number("seed", cfg.seed, low=0, integer=True)
    check_number("strength", cfg.strength, low=0, high=1)
    out = make_directory("out", Path(cfg.out) if cfg.out else Path(cfg.run) / "drawn")
    import torch

    from dit.data.codec import Codec
    from dit.evaluation.grids.pictures import picture_grid, write_png
    from dit.verbs.loading import load_run

    device = instantiate(cfg.hardware).torch_device()
    loaded = load_run(cfg.run, cfg.weights, cfg.images_seen, device)
    codec = Codec.open(loaded.cfg.data.directory, device)
    denoiser = _guided(cfg, loaded.denoiser, device)
    with torch.no_grad():
        latents, labels = _draw(cfg, loaded, denoiser, device)
        images = torch.cat([codec.decode(part) for part in latents.split(cfg.batch_size)]).cpu()
    write_png(out / "grid.png", picture_grid(images, columns=cfg.columns))
    if cfg.save == "folder":
        for index, (image, label) in enumerate(zip(images, labels.tolist())):
            write_png(out / f"{index:06d}-{label}.png", image.permute(1, 2, 0).numpy())
    elif cfg.save == "npz":
        import numpy as np

        np.savez(out / "samples.npz", arr_0=images.permute(0, 2, 3, 1).numpy(), arr_1=labels.cpu().numpy())
    log.info("%d images of %s at %d images seen: %s", len(images), cfg.run, loaded.images_seen, out)


app = hydra_app("sample")(task)


def _guided(cfg: DictConfig, denoiser: Any, device: Any) -> Any:
    """The denoiser under the configuration's guidance."""
    from dit.diffusion.guidance import Autoguidance, Classifier
    from dit.verbs.loading import load_run

    guidance = instantiate(cfg.guidance)
    if guidance.keywords.get("scale") == 1:
        return denoiser
    if guidance.func is Classifier:
        raise InputError(
            "guidance",
            "classifier",
            "guidance without a classifier of noisy latents",
            "Use dit.diffusion.guidance.",
        )
    if guidance.func is not Autoguidance:
        return guidance(denoiser)
    if cfg.weak_run is None:
        raise InputError(
            "weak_run", None, "the directory of a weaker run", "Name one for guidance=autoguidance."
        )
    return guidance(denoiser, weak=load_run(cfg.weak_run, cfg.weights, None, device).denoiser)


def _draw(cfg: DictConfig, loaded: Any, denoiser: Any, device: Any) -> tuple[Any, Any]:
    """Latents (n, C, H, W) at unit variance and the labels (n,) of a task."""
    import torch

    from dit.data.latents import LatentSet
    from dit.diffusion import editing
    from dit.diffusion.sampling import sample
    from dit.evaluation.generate import sample_labels, sample_seeds

    solver, grid = instantiate(cfg.solver), instantiate(cfg.grid)
    held_out = LatentSet(loaded.cfg.data.directory, "validation", verify=False)
    seeds = sample_seeds(cfg.seed, cfg.n)
    labels = sample_labels(cfg.labels, cfg.seed, cfg.n, held_out.num_classes).to(device)
    if cfg.task == "interpolate":
        labels = labels[:1].expand(cfg.n)
        drawn = editing.interpolate(
            denoiser, solver, grid, held_out.shape, (cfg.seed, cfg.seed + 1), cfg.n, labels, device
        )
        return drawn.x0, labels
    if cfg.task == "generate":
        parts = [
            sample(denoiser, solver, grid, held_out.shape, seeds[i : i + cfg.batch_size], y, device).x0
            for i, y in zip(range(0, cfg.n, cfg.batch_size), labels.split(cfg.batch_size))
        ]
        return torch.cat(parts), labels
    index = torch.arange(cfg.n) % len(held_out)
    x0, labels = held_out.draw(index).to(device), held_out.labels[index].to(device)
    if cfg.task == "image_to_image":
        return editing.image_to_image(denoiser, solver, grid, x0, cfg.strength, seeds, labels).x0, labels
    known = torch.zeros_like(x0[:, :1], dtype=torch.bool)
    known[..., : x0.shape[-1] // 2] = True  # the left half is given
    return editing.inpaint(denoiser, solver, grid, x0, known.expand_as(x0), seeds, labels).x0, labels
