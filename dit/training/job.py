"""What a training run is made of, as plain checked values, and the module and the facts that follow from them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from dit.condition import Condition, ConditionKind
from dit.data.draws import Draws
from dit.data.latents import LatentSet
from dit.diffusion.objective import Learnable
from dit.domain import Domain
from dit.errors import InputError, check_choice
from dit.launch import World
from dit.network.config import DiTConfig
from dit.network.counting import Counts
from dit.training.averaging import Profile
from dit.training.checkpoint import read_manifest
from dit.training.hardware import Hardware
from dit.training.hooks import Sink
from dit.training.methods import Method
from dit.training.module import DiffusionModule
from dit.training.optimizers import AdamW
from dit.training.schedules import Rate, Schedule
from dit.training.settings import ReadPoint, Settings
from dit.training.strategy import Strategy
from dit.training.streams import Streams, key


@dataclass(frozen=True)
class Recipe:
    """What is trained, and how, whatever it is trained on.

    Attributes:
        objective, network: what is trained.
        method: what a step asks of the network for the objective.
        optimizer, schedule, profiles, settings: how; ``schedule`` is of the learning rate, ``profiles`` of averages.
        strategy: how a step is carried out.
        hardware: device, precision and processes.
    """

    objective: Learnable
    method: Method
    network: DiTConfig
    optimizer: AdamW
    schedule: Schedule
    profiles: Mapping[str, Profile]
    settings: Settings
    strategy: Strategy
    hardware: Hardware


@dataclass(frozen=True)
class Job(Recipe):
    """Everything a training run is made of: a recipe, its data, and what is measured on the way.

    Attributes:
        name: the run's name in its records.
        counts: the network's parameters and multiply-adds on this data.
        latents: training latents.
        validation, validation_condition: stored draws of held-out latents, and what is known of each.
        points: when the run is measured; the last one is its end.
        config_hash: what the run was asked to do.
        facts: further fields of the ``run`` record.
        measures: measures of generated images: when (``read_points`` | ``end``), and
            (denoiser, name, weights) -> fields of a ``samples`` record.
        sample_weights: the average that samples are drawn from.
        world: this process among those that share the run.
        deadline: of the monotonic clock, at which to stop with a checkpoint.
        branch_from: a checkpoint of another run, to begin from at its clock.
        sinks: copies of the records elsewhere.
    """

    name: str
    counts: Counts
    latents: LatentSet
    validation: Draws
    validation_condition: Condition
    points: Sequence[ReadPoint]
    config_hash: str
    facts: Mapping[str, Any]
    world: World = World()  # noqa: RUF009 - frozen
    deadline: float | None = None
    branch_from: Path | None = None
    measures: Sequence[tuple[str, Callable[[Any, str, str], dict[str, Any]]]] = ()
    sample_weights: str = "ema"
    sinks: Sequence[Sink] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        if self.measures:
            check_choice("sample_weights", self.sample_weights, ("raw", *self.profiles))
        if self.branch_from is not None and not (self.branch_from / "manifest.json").is_file():
            raise InputError(
                "branch_from",
                str(self.branch_from),
                "a checkpoint (manifest.json in it)",
                "See checkpoints/ in a run.",
            )

    def module(self) -> DiffusionModule:
        """The Lightning module, not yet on its device."""
        total_images = self.points[-1].step * self.settings.batch_size
        domain, kind, edges = self.latents.domain, self.latents.kind, self.validation.edges
        return build_module(self, domain, kind, total_images, edges, self.world)

    @property
    def resolved_strategy(self) -> str:
        """The strategy's name in this world."""
        return self.strategy.resolve(self.world, self.settings.batch_size)


def build_module(
    recipe: Recipe, domain: Domain, kind: ConditionKind, total_images: int, edges: Tensor, world: World
) -> DiffusionModule:
    """The Lightning module of a run; the network's initial weights are a function of the seed alone.

    Args:
        recipe: what is trained, and how.
        domain: what one sample is.
        kind: what the network is told of each.
        total_images: the clock at the run's end.
        edges: (K + 1,) of the log-SNR bins in which the training loss is watched.
        world: this process among those that share the run.
    """
    settings, strategy = recipe.settings, recipe.strategy
    name = strategy.resolve(world, settings.batch_size)
    seed = key(settings.seed, "weights", 0)
    network = recipe.network.build(domain, kind, recipe.objective.process.out_channels(domain), seed=seed)
    return DiffusionModule(
        recipe.method,
        network,
        optimizer=recipe.optimizer,
        rate=Rate(recipe.schedule, total_images, recipe.optimizer.learning_rate(recipe.network.width)),
        profiles=recipe.profiles,
        settings=settings,
        streams=Streams(settings.seed, settings.batch_size, world.rank, world.size),
        edges=edges,
        accumulation=strategy.accumulation,
        prepare=lambda network: strategy.prepare(network, name, world, recipe.hardware),
    )


def run_facts(job: Job) -> dict[str, Any]:
    """The fields of the ``run`` record: what was trained, in the units of the field."""
    counts = job.counts
    return {
        "config_hash": job.config_hash,
        "network": job.network.facts,
        "n_params_total": counts.n_params_total,
        "n_params_by_group": dict(counts.n_params_by_group),
        "tokens_per_image": counts.tokens,
        "macs_per_image": counts.macs_per_image,
        "macs_per_token": counts.macs_per_token,
        "train_flops_per_image": counts.train_flops_per_image,
        "batch_size": job.settings.batch_size,
        "lr": job.optimizer.learning_rate(job.network.width),
        "lr_rule": job.optimizer.lr_rule,
        "optimizer": str(job.optimizer),
        "grad_clip": job.settings.grad_clip,
        "label_dropout": job.settings.label_dropout,
        "warmup_images": job.settings.warmup_images,
        "schedule": str(job.schedule),
        "seed": job.settings.seed,
        "ema": {name: str(profile) for name, profile in job.profiles.items()},
        "branch": None if job.branch_from is None else _begun_from(job.branch_from),
        **job.facts,
    }


def _begun_from(checkpoint: Path) -> dict[str, Any]:
    """The run whose checkpoint a branch begins from, by the hash of its configuration, and the clock there."""
    manifest = read_manifest(checkpoint)
    return {"config_hash": manifest["config_hash"], "images_seen": manifest["images_seen"]}
