"""What a training run is made of, as plain checked values, and the module and the facts that follow from them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dit.condition import Condition
from dit.data.draws import Draws
from dit.data.latents import LatentSet
from dit.diffusion.objective import Learnable
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
class Job:
    """Everything a training run is made of.

    Attributes:
        name: the run's name in its records.
        objective, network, optimizer, profiles, settings: what is trained, and how.
        method: what a step asks of the network for the objective.
        counts: the network's parameters and multiply-adds on this data.
        latents: training latents.
        validation, validation_condition: stored draws of held-out latents, and what is known of each.
        points: when the run is measured; the last one is its end.
        config_hash: what the run was asked to do.
        facts: further fields of the ``run`` record.
        measures: measures of generated images: when (``read_points`` | ``end``), and
            (denoiser, name, weights) -> fields of a ``samples`` record.
        sample_weights: the average that samples are drawn from.
        hardware: device, precision and processes.
        strategy: how a step is carried out.
        schedule: of the learning rate.
        world: this process among those that share the run.
        deadline: of the monotonic clock, at which to stop with a checkpoint.
        branch_from: a checkpoint of another run, to begin from at its clock.
        sinks: copies of the records elsewhere.
    """

    name: str
    objective: Learnable
    method: Method
    network: DiTConfig
    counts: Counts
    optimizer: AdamW
    profiles: Mapping[str, Profile]
    settings: Settings
    latents: LatentSet
    validation: Draws
    validation_condition: Condition
    points: Sequence[ReadPoint]
    config_hash: str
    facts: Mapping[str, Any]
    hardware: Hardware
    strategy: Strategy
    schedule: Schedule
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

    @property
    def resolved_strategy(self) -> str:
        """The strategy's name in this world."""
        return self.strategy.resolve(self.world, self.settings.batch_size)


def build_module(job: Job) -> DiffusionModule:
    """The Lightning module of a job; the network's initial weights are a function of the seed alone."""
    latents, settings, world = job.latents, job.settings, job.world
    network = job.network.build(
        latents.domain,
        latents.kind,
        job.objective.process.out_channels(latents.domain),
        seed=key(settings.seed, "weights", 0),
    )
    total_images = job.points[-1].step * settings.batch_size
    return DiffusionModule(
        job.method,
        network,
        optimizer=job.optimizer,
        rate=Rate(job.schedule, total_images, job.optimizer.learning_rate(job.network.width)),
        profiles=job.profiles,
        settings=settings,
        streams=Streams(settings.seed, settings.batch_size, world.rank, world.size),
        edges=job.validation.edges,
        accumulation=job.strategy.accumulation,
        prepare=lambda network: job.strategy.prepare(network, job.resolved_strategy, world, job.hardware),
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
