"""From checked values to a trained run: builds the module and the hooks, resumes, trains, and says how it ended."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import lightning as L
import torch
from torch.utils.data import DataLoader

from dit import signals
from dit.errors import InputError
from dit.launch import of_rank_0
from dit.records import RecordWriter, check_prefix
from dit.rundir import RunDirectory
from dit.training.batches import Batches
from dit.training.checkpoint import Checkpoint, open_checkpoint
from dit.training.clock import Clock, Hook, Measure
from dit.training.former import Former, former_readings
from dit.training.guards import LOST, DivergedError, RollBack
from dit.training.hooks import Checkpoints, Events, Progress, Recorder, Samples, TrainRecords, Validation
from dit.training.job import Job, run_facts
from dit.training.module import DiffusionModule
from dit.training.saving import CheckpointManager
from dit.training.settings import ReadPoint
from dit.training.strategy import make_trainer
from dit.training.watching import Waiting, Work, device_name

log = logging.getLogger("dit")

MOST_ROLLBACKS = 10  # of one process
HEARTBEAT_SECONDS = 30.0  # while a measure takes its time; between steps it is that of ``Progress``


def train(job: Job, path: Path, run_directory: RunDirectory | None) -> str | None:
    """Trains a run to its end, from its newest good checkpoint. Every rank of the job's world calls it.

    Args:
        job: what to do.
        path: the run's directory.
        run_directory: the same, held by this process, on rank 0; None on the others.

    Returns:
        None when the run is done, else what stopped it, one of ``guards.STOPS``; the same call resumes it.

    Raises:
        CheckpointError: there are checkpoints and all are damaged.
        DivergedError: loss or gradient is no longer finite, and the policy is to stop.
    """
    attempt = _Attempt(job, path, run_directory)
    while True:
        try:
            return attempt.run()
        except RollBack as request:
            if len(attempt.passed_over) == MOST_ROLLBACKS:
                raise DivergedError(f"{request} ({MOST_ROLLBACKS} rollbacks did not help)") from request
            log.warning("%s; rolling back", request)
            attempt.passed_over.append(request.step)


class _Attempt:
    """One way from the newest checkpoint to the end, unless a rollback asks for another."""

    def __init__(self, job: Job, path: Path, run_directory: RunDirectory | None) -> None:
        self.job, self.path, self.run_directory = job, path, run_directory
        self.may_write = run_directory.is_owner if run_directory else lambda: True
        self.manager = CheckpointManager(path / "checkpoints", world=job.world, may_write=self.may_write)
        self.writer = RecordWriter(path / "records.jsonl") if run_directory else None
        if run_directory is not None and self.writer is not None:
            run_directory.stamp = lambda writer=self.writer: {"records": writer.prefix()}
        per_image = job.counts.train_flops_per_image
        self.recorder = Recorder(job.name, self.writer, per_image, job.sinks, self.may_write)
        self.passed_over: list[int] = []
        self.last_step = job.points[-1].step
        self.total_images = self.last_step * job.settings.batch_size

    def run(self) -> str | None:
        job = self.job
        checkpoint = self.manager.latest()
        if checkpoint is not None:
            checkpoint.check_run(self.job.config_hash)
        self.manager.tidy()
        start = checkpoint or self._branch()
        module = job.module()
        module.passed_over = set(self.passed_over)
        if start is not None:
            module.steps_done = start.images_seen // job.settings.batch_size
        former = self._former(checkpoint)
        measures = _measures(job, self.recorder, former)
        due = [measure for measure in measures if checkpoint and measure.due(module.steps_done)]
        left = due[self._open_records(checkpoint, module, due) :]
        save = self._saving(former)
        self._status("running", module)
        self.waiting = Waiting(_batches(job, module, self.last_step))
        clock = Clock(self._hooks(module, save), measures, left, self._alive(module), self._progress())
        if module.steps_done < self.last_step or left:
            self._fit(module, start, clock)
        ended = module.steps_done == self.last_step and not clock.left
        stopped_by = None if ended else module.guards.stopped_by
        if stopped_by and stopped_by not in LOST:
            save(module)
        self.manager.wait()
        for sink in job.sinks:
            sink.close()
        self._status("stopped" if stopped_by else "done", module)
        return stopped_by

    def _branch(self) -> Checkpoint | None:
        """The other run's checkpoint to begin from, if any."""
        job = self.job
        if job.branch_from is None:
            return None
        found = open_checkpoint(job.branch_from)
        if found.images_seen % job.settings.batch_size or found.images_seen >= self.total_images:
            raise InputError(
                "branch_from",
                f"(a checkpoint at {found.images_seen} images)",
                f"whole batches of {job.settings.batch_size}, before the run's end at {self.total_images} images",
            )
        return found

    def _fit(self, module: DiffusionModule, start: Checkpoint | None, clock: Clock) -> None:
        job = self.job
        lost_by = self.run_directory.lost_by if self.run_directory else lambda: None
        module.guards.asks_to_stop = _Stop(job.deadline, lost_by)
        restore = _Restore(start.tensors() if start else None)
        trainer = make_trainer(job.hardware, job.resolved_strategy, job.world, [restore, clock])
        trainer.fit(module, self.waiting)

    def _hooks(self, module: DiffusionModule, save: Checkpoints) -> list[Hook]:
        settings = self.job.settings
        records = TrainRecords(settings.in_steps(settings.log_every_images), self.recorder)
        return [Events(self.recorder, module), records, save]

    def _progress(self) -> Progress | None:
        job = self.job
        if self.run_directory is None:
            return None
        device, per_image = job.hardware.torch_device(job.world), job.counts.train_flops_per_image
        work = Work(self.total_images, per_image, device_name(device), job.world.size)
        return Progress(self.run_directory, work, self.waiting, device, job.sinks)

    def _former(self, checkpoint: Checkpoint | None) -> list[Former]:
        found: list[Former] = []
        if self.writer is not None:
            asked = {point.step * self.job.settings.batch_size for point in self.job.points}
            found = former_readings(
                self.path, self.writer, checkpoint.images_seen if checkpoint else 0, asked
            )
        return of_rank_0(self.job.world, found)

    def _saving(self, former: Sequence[Former]) -> Checkpoints:
        settings = self.job.settings
        kept = settings.keep_every_images
        return Checkpoints(
            every=settings.in_steps(settings.checkpoint_every_images),
            keep_every=settings.in_steps(kept) if kept is not None else None,
            points=_points(self.job, former),
            manager=self.manager,
            recorder=self.recorder,
            config_hash=self.job.config_hash,
        )

    def _open_records(
        self, checkpoint: Checkpoint | None, module: DiffusionModule, due: Sequence[Measure]
    ) -> int:
        """Drops the rows that a resumed run writes again, and begins with what a new one, or a rollback, has to say.

        Returns:
            How many of the measures that are due at the checkpoint's clock, ``due``, are in the records.
        """
        n_done = 0
        if checkpoint is None:
            if self.writer is not None:
                self.writer.truncate_to(0)
            self.recorder.write("run", **run_facts(self.job))
        else:
            log.info("resuming at %d images from %s", checkpoint.images_seen, checkpoint.directory.name)
            if self.writer is not None:
                n_done = _keep_measured(self.writer, checkpoint, due)
            n_done = of_rank_0(self.job.world, n_done)
        # rows of those before the checkpoint stand before it
        for step in (step for step in self.passed_over if step > module.steps_done):
            self.recorder.measured("event", module, event="rollback", step=step)
        return n_done

    def _alive(self, module: DiffusionModule) -> Callable[[], AbstractContextManager[None]]:
        """Heartbeats in the background while a measure takes its time."""

        def beat(stop: threading.Event) -> None:
            while not stop.wait(HEARTBEAT_SECONDS):
                self._status("running", module)

        @contextmanager
        def alive() -> Iterator[None]:
            stop = threading.Event()
            thread = threading.Thread(target=beat, args=(stop,), daemon=True)
            thread.start()
            try:
                yield
            finally:
                stop.set()
                thread.join()

        return alive

    def _status(self, state: str, module: DiffusionModule) -> None:
        if self.run_directory is not None:
            self.run_directory.write_status(
                state, images_seen=module.images_seen, step=module.steps_done, total_images=self.total_images
            )


class _Stop:
    """This rank's reason to stop, one of ``guards.STOPS``, if it has one.

    Args:
        deadline: of the monotonic clock.
        lost_by: one of ``guards.LOST``, or None; reads a file, so it is asked at most every second.
    """

    def __init__(self, deadline: float | None, lost_by: Callable[[], str | None]) -> None:
        self.deadline, self.lost_by = deadline, lost_by
        self._asked: float = 0.0
        self._lost: str | None = None

    def __call__(self) -> str | None:
        now = time.monotonic()
        if now - self._asked > 1:
            self._asked, self._lost = now, self.lost_by()
        if self._lost:
            return self._lost
        name = signals.stop_requested()
        if name in ("SIGTERM", "SIGINT"):
            return "signal to end"
        late = self.deadline is not None and now > self.deadline
        return "notice" if name or late else None


class _Restore(L.Callback):
    """Puts a checkpoint's tensors into place once Lightning has made (and sharded) the parameters."""

    def __init__(self, tensors: Mapping[str, torch.Tensor] | None) -> None:
        self.tensors = tensors

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, DiffusionModule)
        if self.tensors is not None:
            pl_module.load_state_tensors(self.tensors)
            self.tensors = None


def _points(job: Job, former: Sequence[Former], first: int = 0) -> dict[int, ReadPoint]:
    """By step: the points of a job from ``first`` on, and those of former readings."""
    again = [entry.point(job.settings.batch_size) for entry in former]
    return {point.step: point for point in (*job.points[first:], *again)}


def _measures(job: Job, recorder: Recorder, former: Sequence[Former]) -> list[Measure]:
    points = _points(job, former)
    end = _points(job, [entry for entry in former if entry.n_samples == len(job.measures)], first=-1)
    n_rows = 1 + len(job.profiles)
    process, draws, told = job.objective.process, job.validation, job.validation_condition
    found: list[Measure] = [Validation(points, process, draws, told, recorder, job.world, n_rows)]
    for when, measure in job.measures:
        found.append(Samples(end if when == "end" else points, measure, job.sample_weights, recorder))
    return found


def _keep_measured(writer: RecordWriter, checkpoint: Checkpoint, due: Sequence[Measure]) -> int:
    """Cuts the records behind the last whole measure of the checkpoint's clock; how many of ``due`` are there.

    A measure that is not asked for any more, as of an end that was moved, is kept where all that are due are there.
    """
    n_bytes = int(checkpoint.manifest["records_bytes"])
    known = {"bytes": n_bytes, "sha256": checkpoint.manifest.get("records_sha256")}
    if not check_prefix(writer.path, known):
        writer.truncate_to(n_bytes)  # raises, and says what is missing
    ends = [
        end
        for end, row in writer.rows()
        if row["kind"] in ("validation", "samples") and row["images_seen"] == checkpoint.images_seen
    ]
    n_done, n_rows = 0, 0
    while n_done < len(due) and n_rows + due[n_done].n_rows <= len(ends):
        n_rows += due[n_done].n_rows
        n_done += 1
    kept = ends if n_done == len(due) else ends[:n_rows]
    writer.truncate_to(max([n_bytes, *kept]))
    return n_done


def _batches(job: Job, module: DiffusionModule, last_step: int) -> DataLoader:
    batches = Batches(job.latents, module.streams, module.steps_done, last_step)
    pinned = job.hardware.torch_device(job.world).type == "cuda"
    return DataLoader(batches, batch_size=None, num_workers=job.hardware.n_workers, pin_memory=pinned)
