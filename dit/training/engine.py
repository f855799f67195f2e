"""From checked values to a trained run: builds the module and the hooks, resumes, trains, and says how it ended."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from dit.data.draws import Draws
from dit.data.latents import LatentSet
from dit.diffusion.objective import Objective
from dit.network.config import DiTConfig
from dit.network.counting import Counts
from dit.network.dit import DiT
from dit.records import RecordWriter
from dit.rundir import RunDirectory
from dit.training.averaging import Profile
from dit.training.batches import Batches
from dit.training.checkpoint import CheckpointManager
from dit.training.hooks import (
    Checkpoints,
    Clock,
    Hook,
    Progress,
    Recorder,
    Samples,
    Sink,
    TrainRecords,
    Validation,
)
from dit.training.module import DiffusionModule
from dit.training.optimizers import AdamW
from dit.training.settings import ReadPoint, Settings
from dit.training.strategy import Hardware
from dit.training.streams import Streams, key

log = logging.getLogger("dit")


@dataclass(frozen=True)
class Job:
    """Everything a training run is made of.

    Attributes:
        name: the run's name in its records.
        objective, network, optimizer, profiles, settings: what is trained, and how.
        counts: the network's parameters and multiply-adds on this data.
        latents: training latents.
        validation, validation_labels: stored draws of held-out latents, and the class of each.
        points: when the run is measured; the last one is its end.
        config_hash: what the run was asked to do.
        facts: further fields of the ``run`` record.
        measures: measures of generated images: when (``read_points`` | ``end``), and
            (denoiser, name, weights) -> fields of a ``samples`` record.
        sample_weights: the average that samples are drawn from.
        hardware: device, precision and processes.
        sinks: copies of the records elsewhere.
    """

    name: str
    objective: Objective
    network: DiTConfig
    counts: Counts
    optimizer: AdamW
    profiles: Mapping[str, Profile]
    settings: Settings
    latents: LatentSet
    validation: Draws
    validation_labels: torch.Tensor
    points: Sequence[ReadPoint]
    config_hash: str
    facts: Mapping[str, Any]
    hardware: Hardware
    measures: Sequence[tuple[str, Callable[[Any, str, str], dict[str, Any]]]] = ()
    sample_weights: str = "ema"
    sinks: Sequence[Sink] = field(default_factory=tuple)


def train(job: Job, run_directory: RunDirectory) -> str | None:
    """Trains a run to its end, from its newest good checkpoint.

    Returns:
        None when the run is done, else the name of the signal that stopped it; the same call resumes it.

    Raises:
        CheckpointError: there are checkpoints and all are damaged.
        DivergedError: loss or gradient is no longer finite.
    """
    last_step = job.points[-1].step
    manager = CheckpointManager(run_directory.path / "checkpoints")
    checkpoint = manager.latest()
    module = build_module(job, first_step=int(checkpoint.manifest["step"]) if checkpoint else 0)
    writer = RecordWriter(run_directory.path / "records.jsonl")
    recorder = Recorder(job.name, writer, job.counts.train_flops_per_image, job.sinks)
    if checkpoint is None:
        writer.truncate_to(0)
        recorder.write("run", **run_facts(job))
    else:
        writer.truncate_to(int(checkpoint.manifest["records_bytes"]))
        log.info("resuming at %d images from %s", checkpoint.images_seen, checkpoint.directory.name)
    total_images = last_step * job.settings.batch_size
    save = Checkpoints(
        every=max(1, job.settings.checkpoint_every_images // job.settings.batch_size),
        points={point.step: point for point in job.points},
        manager=manager,
        recorder=recorder,
        config_hash=job.config_hash,
    )
    run_directory.write_status("running", images_seen=module.images_seen, total_images=total_images)
    stopped_by = None
    if module.steps_done < last_step:
        clock = Clock([*_measurements(job, recorder), save, _progress(job, run_directory, total_images)])
        restore = _Restore(checkpoint.read() if checkpoint else None)
        trainer = job.hardware.trainer(callbacks=[restore, clock], max_steps=last_step - module.steps_done)
        trainer.fit(module, _batches(job, module, last_step))
        stopped_by = clock.stopped_by if module.steps_done < last_step else None
        if stopped_by:
            save(module)
    for sink in job.sinks:
        sink.close()
    run_directory.write_status(
        "stopped" if stopped_by else "done", images_seen=module.images_seen, total_images=total_images
    )
    return stopped_by


def build_module(job: Job, first_step: int) -> DiffusionModule:
    """The Lightning module of a job; the network's initial weights are a function of the seed alone."""
    latents = job.latents
    network = DiT(
        job.network,
        latents.shape,
        latents.num_classes,
        out_channels=job.objective.out_channels(latents.shape[0]),
        seed=key(job.settings.seed, "weights", 0),
    )
    return DiffusionModule(
        job.objective,
        network,
        null_class=latents.num_classes,
        optimizer=job.optimizer,
        profiles=job.profiles,
        settings=job.settings,
        streams=Streams(job.settings.seed, job.settings.batch_size),
        first_step=first_step,
    )


def run_facts(job: Job) -> dict[str, Any]:
    """The fields of the ``run`` record: what was trained, in the units of the field."""
    counts = job.counts
    return {
        "config_hash": job.config_hash,
        "network": {
            "width": job.network.width,
            "depth": job.network.depth,
            "heads": job.network.heads,
            "patch_size": job.network.patch_size,
            "conditioning": job.network.conditioning,
        },
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
        "seed": job.settings.seed,
        "ema": {name: str(profile) for name, profile in job.profiles.items()},
        "budgets_flops": [point.budget_flops for point in job.points if point.budget_flops is not None],
        **job.facts,
    }


class _Restore(L.Callback):
    """Puts a checkpoint's tensors into place once Lightning has made (and sharded) the parameters."""

    def __init__(self, tensors: Mapping[str, torch.Tensor] | None) -> None:
        self.tensors = tensors

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, DiffusionModule)
        if self.tensors is not None:
            pl_module.load_state_tensors(self.tensors)
            self.tensors = None


def _measurements(job: Job, recorder: Recorder) -> list[Hook]:
    points = {point.step: point for point in job.points}
    every = max(1, job.settings.log_every_images // job.settings.batch_size)
    end = {job.points[-1].step: job.points[-1]}
    return [
        TrainRecords(every, recorder),
        Validation(points, job.validation, job.validation_labels, recorder),
        *(
            Samples(end if when == "end" else points, measure, job.sample_weights, recorder)
            for when, measure in job.measures
        ),
    ]


def _progress(job: Job, run_directory: RunDirectory, total_images: int) -> Progress:
    return Progress(run_directory, total_images, job.counts.train_flops_per_image)


def _batches(job: Job, module: DiffusionModule, last_step: int) -> DataLoader:
    batches = Batches(job.latents, module.streams, module.steps_done, last_step)
    return DataLoader(batches, batch_size=None, num_workers=job.hardware.workers)
