"""``dit sample``: draws images from a run's checkpoint; a PNG grid, and on request a folder or an .npz of all."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from dit.config import job as job_config
from dit.errors import InputError, check_choice, check_number
from dit.verbs.app import hydra_app

log = logging.getLogger("dit")
TASKS = ("generate", "interpolate", "image_to_image", "inpaint")


def task(cfg: DictConfig) -> None:
    """Draws images by one of the tasks."""
    if cfg.run is None:
        raise InputError("run", None, "the directory of a run", "Name one: dit sample run=runs/...")
    check_choice("task", cfg.task, TASKS)
    check_choice("save", cfg.save, ("grid", "folder", "npz"))
    for key, low in (("n", 1), ("seed", 0), ("batch_size", 1), ("columns", 1)):
        check_number(key, cfg[key], low=low, integer=True)
    out = Path(cfg.out) if cfg.out else Path(cfg.run) / "drawn"
    if cfg.save == "folder":
        _refuse_others(out / "images", cfg.n)
    from dit import launch
    from dit.config.sampling import draw

    world, device = job_config.meet(cfg)
    loaded = draw(cfg, out, device, world.size > 1)
    if world.rank == 0:
        log.info("%d images of %s at %d images seen: %s", cfg.n, cfg.run, loaded.images_seen, out)
    launch.part()


app = hydra_app("sample")(task)


def _refuse_others(folder: Path, n: int) -> None:
    """Raises InputError where images lie that would not be written over: the set would be a mixture."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    others = names - {f"{index:06d}.png" for index in range(n)}
    if others:
        raise InputError(
            "out", f"({folder} holds {min(others)})", "a folder without other images", "Name another."
        )
