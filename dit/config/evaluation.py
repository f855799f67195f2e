"""What ``dit evaluate`` measures: a run's samples under every setting of a sweep, or images on disk."""

import itertools
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf, open_dict

from dit.config.given import refuse_given, refuse_unread, unnoted
from dit.config.instantiation import instantiate
from dit.config.readings import Yardstick, draw, fields, measure
from dit.config.run import Loaded, load_run
from dit.config.samplings import Sampling
from dit.diffusion.sampling import rehearse
from dit.errors import InputError, check_number
from dit.evaluation.catalogue import check_metrics
from dit.evaluation.distributed import place, rank_zero_says
from dit.evaluation.evaluate import Evaluation
from dit.evaluation.extractors import load_extractor
from dit.evaluation.files import evaluate_images, images_identity, open_reference
from dit.evaluation.images import open_images
from dit.evaluation.journal import Journal, request_hash
from dit.evaluation.measure import measure_images
from dit.rundir import make_directory, read_environment

log = logging.getLogger("dit")
Row = dict[str, Any]
# What each axis of a sweep stands in for.
SWEPT = {
    "guidance_scale": "evaluation.protocols.{}.guidance_scale",
    "n_steps": "evaluation.grid.n_steps",
    "solver": "evaluation.solver",
    "seed": "evaluation.protocols.{}.seed",
}


def of_run(cfg: DictConfig, device: torch.device, distributed: bool) -> list[Row]:
    """Rows of a checkpoint: every protocol at every place of the sweep; those that are known are not measured again."""
    loaded = load_run(cfg.run, cfg.weights, cfg.images_seen, device)
    with open_dict(loaded.cfg):  # the run's own evaluation is another one
        loaded.cfg.evaluation = _evaluation(cfg)
    weak = load_run(cfg.weak_run, cfg.weights, None, device) if cfg.weak_run is not None else None
    settings = list(_sweep(cfg, loaded.cfg.evaluation, weak))
    process = loaded.parts.objective.process
    for sampling in settings:  # before the first of them is measured
        rehearse(process, sampling.solver, sampling.grid)
    first = place(distributed)[0] == 0
    yardstick = Yardstick(loaded.parts, device)
    if first and loaded.parts.manifest.content["source"]["kind"] != "digits":
        _doubt_features(cfg, loaded.cfg.evaluation)
    known = read_environment(Path(cfg.run)) or {}
    asked = {
        "config_hash": known.get("config_hash"),
        "images_seen": loaded.images_seen,
        "weights": loaded.weights,
        "weights_sha256": loaded.sha256,
        "extractor": yardstick.extractor.metadata(),
        "metrics": sorted(yardstick.metrics),
        "reference": yardstick.reference_identity(),
        "decoder": yardstick.decoder,
        "precision": yardstick.evaluation.precision,
    }
    facts = {
        "run": cfg.name or loaded.cfg.run_name or Path(cfg.run).resolve().name,
        "config_hash": known.get("config_hash"),
        "images_seen": loaded.images_seen,
        "train_flops": loaded.images_seen * loaded.parts.counts.train_flops_per_image,
        "weights": loaded.weights,
        "image_size": loaded.image_size,
        "content": loaded.sha256[:16],
    }
    out = _directory(cfg, default=cfg.run)
    assert out is not None
    sinks = _sinks(cfg, loaded, known.get("config_hash"), out) if first else ()
    refuse_unread(cfg, besides=() if first else ("logger",))
    yardstick.check_extractor()
    keep = _Keep(out, distributed, sinks)
    rows: list[Row] = []
    for number, sampling in enumerate(settings, start=1):
        request = {**asked, "run": facts["run"], **sampling.facts()}
        told = ", ".join(f"{key} {value}" for key, value in sampling.facts().items())
        log.info("%d of %d: %s", number, len(settings), told)

        def answer(sampling: Sampling = sampling, request: Row = request) -> tuple[Evaluation, str]:
            found = measure(yardstick, sampling, loaded.denoiser, loaded.weights)
            return found, f"images-{loaded.images_seen:012d}-{sampling.name}-{request_hash(request)[:8]}"

        rows += keep.answer(request, {**facts, "name": sampling.name}, answer)
    keep.close()
    return rows


def of_images(cfg: DictConfig, device: torch.device, distributed: bool) -> list[Row]:
    """The row of a set of images; none where only their statistics are kept."""
    evaluation = _evaluation(cfg)
    metrics = check_metrics(evaluation.metrics)
    if (cfg.reference is None) == (cfg.statistics is None):
        got = f"(reference={cfg.reference}, statistics={cfg.statistics})"
        raise InputError(
            "reference, statistics", got, "one of them: what to compare with, or a file to write"
        )
    if place(distributed)[0] == 0:
        _doubt_features(cfg, evaluation)
    images = open_images(cfg.images, cfg.image_size)
    if len(images) < 2:
        raise InputError("images", f"({len(images)} images in {cfg.images})", "at least 2 images")
    n = len(images) if cfg.n is None else cfg.n
    check_number("n", n, low=2, integer=True)
    if n > len(images):
        raise InputError("n", n, f"at most {len(images)}, the images in {cfg.images}")
    options = {"batch_size": evaluation.batch_size, "distributed": distributed}
    extractor = load_extractor(evaluation.extractor, device)
    statistics = cfg.statistics
    name, out = cfg.name or Path(cfg.images).resolve().stem, None
    if statistics is None:
        out, _ = _directory(cfg), list(cfg.subsets)
    refuse_unread(cfg)
    if statistics is not None:
        measured = measure_images(images, extractor, metrics, counts=[n], **options)[0]
        if place(distributed)[0] == 0:
            log.info("%s: statistics of %d images", measured.save(cfg.statistics), n)
        return []
    name, out = cfg.name or Path(cfg.images).resolve().stem, _directory(cfg)
    content = (
        images_identity(cfg.images) if out is not None else ""
    )  # else nothing is kept, to be known again
    request = {
        "run": name,
        "images": content,
        "image_size": cfg.image_size,
        "n": n,
        "subsets": list(cfg.subsets),
        "extractor": extractor.metadata(),
        "metrics": sorted(metrics),
        "reference": images_identity(cfg.reference, "reference") if out is not None else "",
    }
    keep = _Keep(out, distributed)

    def answer() -> tuple[Evaluation, str]:
        reference = open_reference(cfg.reference, extractor, metrics, image_size=cfg.image_size, **options)
        found = evaluate_images(
            images, extractor, reference, n=n, metrics=metrics, subsets=cfg.subsets, preview=40, **options
        )
        plain = re.sub(r"[/\0]", "_", name)[:100]
        return found, f"{plain}-{request_hash(request)[:8]}"

    facts = {"run": name, "image_size": images.read(0, 1).shape[-1], "content": content[:16]}
    return keep.answer(request, facts, answer)


class _Keep:
    """Where rows and pictures are kept; asked and told by all ranks, written by the first."""

    def __init__(self, out: Path | None, distributed: bool, sinks: Iterable[Any] = ()) -> None:
        self.out, self.distributed, self.sinks = out, distributed, list(sinks)
        self.first = place(distributed)[0] == 0
        self.journal = Journal(out)

    def answer(self, request: Row, facts: Row, measured: Callable[[], tuple[Evaluation, str]]) -> list[Row]:
        """The rows that answer a request: those that are there, or new ones."""
        rows = self.journal.answer(request)
        if self.distributed:
            rows = rank_zero_says(rows)
        if rows is not None:
            log.info("is there already")
            return rows
        found, name = measured()
        made = [{**facts, **fields(part)} for part in (*found.subsets, found)]
        if self.out is not None:
            picture = draw(found, self.out, name, self.distributed)
            made = [{**row, "grid": picture} for row in made]
        if self.first:
            made = self.journal.add(request, made)
        for sink in self.sinks:
            for row in made:
                sink.record(row)
        return made

    def close(self) -> None:
        """Ends the copies elsewhere."""
        for sink in self.sinks:
            sink.close()


def _sinks(cfg: DictConfig, loaded: Loaded, config_hash: str | None, out: Path) -> list[Any]:
    """W&B, on the page of the run itself."""
    if cfg.logger._target_ is None:
        return []
    with unnoted():
        settings, group = OmegaConf.to_container(loaded.cfg, resolve=True), loaded.cfg.study.name
    facts = {"run_id": config_hash, "group": group, "directory": str(out), "settings": settings}
    return [instantiate(cfg.logger, **facts, _recursive_=False)]  # the settings hold targets of their own


def _directory(cfg: DictConfig, default: str | None = None) -> Path | None:
    """Where rows go: ``out``, else the directory of the page, else the run's; of images nowhere."""
    named = cfg.out or cfg.report or default
    return None if named is None else make_directory("out", Path(named))


def _evaluation(cfg: DictConfig) -> DictConfig:
    """The evaluation, with what the command line says otherwise."""
    evaluation = cfg.evaluation.copy()
    with open_dict(evaluation):
        for key in ("extractor", "metrics", "reference"):
            if cfg[key] is not None:
                refuse_given(cfg, f"evaluation.{key}", f"{key}={cfg[key]} stands in for it")
                evaluation[key] = cfg[key]
        for name in evaluation.protocols:
            if cfg.n is not None:
                refuse_given(cfg, f"evaluation.protocols.{name}.n", f"n={cfg.n} is that of every protocol")
                evaluation.protocols[name].n = cfg.n
    return evaluation


def _doubt_features(cfg: DictConfig, evaluation: DictConfig) -> None:
    """Says so where images that are no digits would be measured by the default extractor."""
    if evaluation.extractor == "digits" and cfg.extractor is None:
        log.warning(
            "no extractor= was named: measured by the features for digits, which mean little for other images"
        )


def _sweep(cfg: DictConfig, evaluation: DictConfig, weak: Loaded | None) -> Iterator[Sampling]:
    """Every protocol asked for at every place of the sweep, none twice."""
    names = list(evaluation.protocols) if cfg.protocols is None else list(cfg.protocols)
    more: Row = {"subsets": tuple(cfg.subsets)}
    if weak is not None:
        name = f"{Path(cfg.weak_run).name}@{weak.images_seen} {weak.sha256[:8]}"
        more |= {"weak": weak.denoiser, "weak_name": name}
    for key, stands_for in SWEPT.items():
        if cfg.sweep[key] is not None:
            for name in names:
                refuse_given(cfg, stands_for.format(name), f"sweep.{key} has its values")
    axes = {}
    for key, values in cfg.sweep.items():
        listed = [None] if values is None else values
        if not OmegaConf.is_list(listed) and not isinstance(listed, list):
            raise InputError(f"sweep.{key}", values, f"a list, as in sweep.{key}=[{values}]")
        if not len(listed):
            raise InputError(f"sweep.{key}", "[]", "at least one value, or null for the protocol's own")
        axes[str(key)] = list(listed)
    for name in names:
        if name not in evaluation.protocols:
            allowed = "some of " + ", ".join(map(str, evaluation.protocols))
            raise InputError("protocols", name, allowed)
    seen: set[str] = set()
    for sampling in Sampling.read(evaluation, names, **more).values():
        for values in itertools.product(*axes.values()):
            varied = sampling.varied(**dict(zip(axes, values)))
            key = request_hash(varied.facts())
            if key not in seen:
                seen.add(key)
                yield varied
