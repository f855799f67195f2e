"""What ``dit sample`` draws: batches of images of each of its tasks."""

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig

from dit.condition import POLICIES, Classes, Condition, joined, labelled
from dit.config.given import refuse_given, refuse_unread
from dit.config.instantiation import instantiate
from dit.config.parts import Parts
from dit.config.run import Loaded, load_run
from dit.data.codec import Codec
from dit.data.conditions.base import open_encoder
from dit.data.latents import LatentSet
from dit.diffusion import editing
from dit.diffusion.guidance import Autoguidance, Classifier, ClassifierFree
from dit.errors import InputError, check_choice, check_number
from dit.evaluation.distributed import place
from dit.evaluation.generate import PRECISIONS, generate_shared, sample_seeds
from dit.evaluation.grids.pictures import picture_grid, write_png
from dit.evaluation.images import write_arrays, write_folder, write_npz
from dit.rundir import make_directory

GRID_IMAGES = 100  # of the picture: the first ones


def draw(cfg: DictConfig, out: Path, device: torch.device, distributed: bool) -> Loaded:
    """Draws images, or arrays where the data are such, and writes them as they come, on the first rank; nothing but the
    grid is kept in memory.
    """
    if distributed and cfg.task != "generate":
        raise InputError("task", cfg.task, "generate, where several processes share the work")
    if cfg.task == "generate":
        check_choice("precision", cfg.precision, PRECISIONS)
    if cfg.task == "image_to_image":
        check_number("strength", cfg.strength, low=0, high=1)
    solver, grid = instantiate(cfg.solver), instantiate(cfg.grid)
    loaded = load_run(cfg.run, cfg.weights, cfg.images_seen, device)
    codec = Codec.open(loaded.cfg.data.directory, device)
    held_out = LatentSet(loaded.cfg.data.directory, "validation")
    if held_out.domain.vocabulary and cfg.task != "generate":
        raise InputError("task", cfg.task, "generate: the data are tokens")
    if not codec.pictures:
        for key in ("save", "columns") if cfg.save != "npz" else ("columns",):
            refuse_given(cfg, key, f"samples {held_out.shape} are no pictures, and lie in samples.npz")
    told = _told(cfg, loaded.cfg, held_out)
    condition = _condition(cfg, held_out, told.get("prompt"))
    denoiser = _guided(cfg, loaded.denoiser, device, told.get("negative"))
    refuse_unread(cfg)
    make_directory("out", out)
    if cfg.task == "generate":
        drawn = generate_shared(
            denoiser,
            codec,
            condition,
            sample_seeds(cfg.seed, cfg.n),
            batch_size=cfg.batch_size,
            distributed=distributed,
            solver=solver,
            grid=grid,
            shape=held_out.shape,
            device=device,
            precision=cfg.precision,
        )
    else:
        drawn = _edited(cfg, solver, grid, denoiser, codec, held_out, condition, device)
    if place(distributed)[0] > 0:
        deque(drawn, maxlen=0)
    elif codec.pictures:
        _write_pictures(cfg, out, drawn, condition)
    else:
        write_arrays(out / "samples.npz", drawn, cfg.n, condition.get("label"))
    return loaded


def _write_pictures(cfg: DictConfig, out: Path, drawn: Iterator[torch.Tensor], condition: Condition) -> None:
    """Writes pictures as ``save`` says, and the grid of the first ones."""
    shown: list[torch.Tensor] = []
    batches = _kept(drawn, shown)
    if cfg.save == "grid":
        deque(batches, maxlen=0)
    elif cfg.save == "folder":
        write_folder(out / "images", batches)
    else:
        write_npz(out / "samples.npz", batches, cfg.n, condition.get("label"))
    write_png(out / "grid.png", picture_grid(torch.cat(shown)[:GRID_IMAGES], columns=cfg.columns))


def _told(cfg: DictConfig, run: DictConfig, held_out: LatentSet) -> dict[str, Condition]:
    """``prompt`` and ``negative`` as the conditions (1, ...) of one sample, as far as they are given.

    Raises:
        InputError: the run is told no texts, or their encoder is not there.
    """
    given = {key: cfg[key] for key in ("prompt", "negative") if cfg[key] is not None}
    if not given:
        return {}
    encode = open_encoder(Parts(run).conditions, run.data.directory, held_out.manifest["config"])
    return {key: Condition(encode([text])) for key, text in given.items()}


def _condition(cfg: DictConfig, held_out: LatentSet, prompt: Condition | None) -> Condition:
    """That asked for; one and the same between two seeds, that of the held-out images that are changed.

    A prompt takes the place of their texts.
    """
    every = torch.zeros(cfg.n, dtype=torch.int64)
    if cfg.task in ("image_to_image", "inpaint"):
        condition = held_out.condition(torch.arange(cfg.n) % len(held_out))
    else:
        condition = _of_classes(cfg, held_out) or held_out.drawn(cfg.labels, cfg.seed, cfg.n)
        condition = condition if cfg.task == "generate" else condition.part(every)
    return condition if prompt is None else joined([condition, prompt.part(every)])


def _of_classes(cfg: DictConfig, held_out: LatentSet) -> Condition | None:
    """The classes that ``labels`` names or numbers, in turn; None where it says how to draw them.

    Raises:
        InputError: no such class, or the run is told no classes.
    """
    given = cfg.labels
    if given in POLICIES:
        return None
    asked = list(given) if isinstance(given, ListConfig) else [given]
    names = held_out.manifest["class_names"]
    if not asked or not isinstance(held_out.kind, Classes) or not names:
        got = given if asked else "[]"
        allowed = f"{' or '.join(POLICIES)}" + (
            ", or classes" if names and not asked else ": the run is told no classes"
        )
        raise InputError("labels", got, allowed)
    labels = torch.tensor([_label(one, names) for one in asked])
    return labelled(labels[torch.arange(cfg.n) % len(labels)])


def _label(one: Any, names: list[str]) -> int:
    """The number of a class that is given by its number, or else by its name."""
    if isinstance(one, int) and not isinstance(one, bool) and 0 <= one < len(names):
        return one
    if str(one) in names:
        return names.index(str(one))
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    raise InputError(
        "labels",
        one,
        f"{' or '.join(POLICIES)}, or classes by number (0 to {len(names) - 1}) or by name ({shown})",
    )


def _kept(batches: Iterator[torch.Tensor], shown: list[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The batches, the first of them kept for the grid."""
    for batch in batches:
        if sum(map(len, shown)) < GRID_IMAGES:
            shown.append(batch.cpu())
        yield batch


def _guided(cfg: DictConfig, denoiser: Any, device: torch.device, negative: Condition | None) -> Any:
    """The denoiser under the configuration's guidance, away from a negative text where there is one."""
    guidance = instantiate(cfg.guidance)
    if negative is not None and (guidance.func is not ClassifierFree or guidance.keywords.get("scale") == 1):
        allowed = "a text with guidance=classifier_free and guidance.scale other than 1"
        raise InputError("negative", cfg.negative, allowed)
    if guidance.func is Classifier:
        allowed = "guidance without a classifier of noisy latents"
        raise InputError("guidance", "classifier", allowed, "Use dit.diffusion.guidance.")
    if guidance.keywords.get("scale") == 1:
        return denoiser
    if negative is not None:
        null = denoiser.network.kind.null(1)  # of all else that it is told
        return guidance(denoiser, negative=joined([null, negative]))
    if guidance.func is not Autoguidance:
        return guidance(denoiser)
    if cfg.weak_run is None:
        raise InputError(
            "weak_run", None, "the directory of a weaker run", "Name one for guidance=autoguidance."
        )
    return guidance(denoiser, weak=load_run(cfg.weak_run, cfg.weights, None, device).denoiser)


def _edited(
    cfg: DictConfig,
    solver: Any,
    grid: Any,
    denoiser: Any,
    codec: Codec,
    held_out: LatentSet,
    condition: Condition,
    device: torch.device,
) -> Iterator[torch.Tensor]:
    """Images between two seeds, or held-out images changed, made on the device."""
    if cfg.task == "interpolate":
        ends = sample_seeds(cfg.seed, 1)[0], sample_seeds(cfg.seed + 1, 1)[0]
        drawn = editing.interpolate(denoiser, solver, grid, held_out.shape, ends, cfg.n, condition, device)
        yield from map(codec.decode, drawn.x0.split(cfg.batch_size))
        return
    seeds = sample_seeds(cfg.seed, cfg.n)
    for index in torch.arange(cfg.n).split(cfg.batch_size):
        x0, told = held_out.draw(index % len(held_out)).to(device), condition.part(index)
        part = seeds[int(index[0]) : int(index[-1]) + 1]
        if cfg.task == "image_to_image":
            drawn = editing.image_to_image(denoiser, solver, grid, x0, cfg.strength, part, told)
        else:
            known = torch.zeros_like(x0[:, :1], dtype=torch.bool)
            known[..., : x0.shape[-1] // 2] = True  # the left half is given
            drawn = editing.inpaint(denoiser, solver, grid, x0, known.expand_as(x0), part, told)
        yield codec.decode(drawn.x0)
