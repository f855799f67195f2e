"""A run killed at any moment ends as the undisturbed run does, byte for byte; a signal ends it with a checkpoint."""

import itertools
import json
import multiprocessing
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest
from safetensors import SafetensorError

from dit.condition import Classes
from dit.domain import Domain
from tests.training import ranks


@pytest.fixture(scope="module")
def flops():
    """A budget in the middle of the run: 768 images of the tiny network."""
    from dit.network.counting import count
    from dit.network.presets import ladder

    per_image = count(
        ladder(16, aspect=16, head_dim=16), Domain(3, (8, 8)), Classes(10)
    ).train_flops_per_image
    return float(768 * per_image)


def command(latents, name, flops):
    return ranks.command(latents, name, f"read_at_flops=[{flops}]")


def slowly(rank: int) -> None:
    """Makes saves and validations long, so that a kill at a random moment meets them as often as steps."""
    import dit.training.hooks as hooks
    import dit.training.saving as saving

    store, read = saving.store, hooks.validation_loss

    def slow_store(pieces, file):
        time.sleep(0.03)
        entry = store(pieces, file)
        time.sleep(0.03)
        return entry

    def slow_read(*arguments):
        time.sleep(0.05)
        return read(*arguments)

    saving.store, hooks.validation_loss = slow_store, slow_read


def n_rows(records: Path) -> int:
    return records.read_bytes().count(b"\n") if records.exists() else 0


def kill_and_compare(tmp_path: Path, latents: Path, flops: float, kills: int, world: int) -> int:
    """Kills a run ``kills`` times, one process of it at a time, and compares its end with an undisturbed run's.

    Each kill comes a moment after the records have reached a random length, which is in a save or a validation as
    often as between two steps (``slowly``).
    """
    ranks.run(command(latents, "undisturbed", flops), tmp_path, world, patch=slowly)
    total = n_rows(tmp_path / "undisturbed" / "records.jsonl")
    rng = random.Random(f"{tmp_path.name}, {world}")  # other moments in each folder
    records = tmp_path / "killed" / "records.jsonl"
    killed = 0
    while True:
        length = rng.randint(min(n_rows(records) + 1, total - 1), total - 1)
        processes = ranks.start(command(latents, "killed", flops), tmp_path, world, patch=slowly)
        if killed < kills:
            while n_rows(records) < length and all(process.is_alive() for process in processes):
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.15))
            victim = rng.choice(processes)
            if victim.is_alive():
                victim.kill()
                killed += 1
                time.sleep(0.05)
                for process in processes:  # as srun and torchrun do
                    process.kill()
        codes = ranks.end(processes)
        if codes == [0] * world:
            break
        assert set(codes) <= {-signal.SIGKILL, 0, 1}, (tmp_path / "stderr.txt").read_text()
    assert ranks.files(tmp_path / "killed") == ranks.files(tmp_path / "undisturbed")
    return killed


@pytest.mark.parametrize("world", [1, 2])
def test_a_killed_run_ends_as_the_undisturbed_one(tmp_path, tiny_latents, flops, world):
    assert kill_and_compare(tmp_path, tiny_latents, flops, kills=3, world=world) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2])
def test_killed_twenty_times(tmp_path, tiny_latents, flops, world):
    total = 0
    for attempt in itertools.count():
        (folder := tmp_path / str(attempt)).mkdir()
        total += kill_and_compare(folder, tiny_latents, flops, kills=4, world=world)
        if total >= 20:
            return


def at_moment(moment: str, folder: Path):
    """A patch that says, by a file, when a run's processes are in a step, a validation or a save, and stays a while."""

    def patch(rank: int) -> None:
        import dit.training.hooks as hooks
        import dit.training.saving as saving
        from dit.training.module import DiffusionModule

        owner, name = {
            "step": (DiffusionModule, "clip_and_step"),
            "validation": (hooks, "validation_loss"),
            "save": (saving, "store"),
        }[moment]
        original, calls = getattr(owner, name), itertools.count()

        def slow(*arguments):
            if next(calls) == (10 if moment == "step" else 0):
                (folder / f"there-{rank}").touch()
                time.sleep(0.4 + 0.4 * rank)  # the ranks are not in step when the signal comes
            return original(*arguments)

        setattr(owner, name, slow)

    return patch


SIGNALS = itertools.product(
    ["step", "validation", "save"], ["rank 0", "rank 1", "all"], [signal.SIGTERM, signal.SIGUSR1]
)


@pytest.mark.parametrize(
    ("moment", "to", "number"),
    [pytest.param(*case, marks=[pytest.mark.slow] if i % 2 else []) for i, case in enumerate(SIGNALS)],
)
def test_a_signal_ends_all_ranks_with_one_checkpoint(tmp_path, tiny_latents, flops, moment, to, number):
    from dit.training.saving import CheckpointManager

    arguments = command(tiny_latents, "run", flops)
    processes = ranks.start(arguments, tmp_path, 2, patch=at_moment(moment, tmp_path))
    for rank in (0, 1):
        ranks.wait_for(tmp_path / f"there-{rank}")
    for rank, process in enumerate(processes):
        if to in ("all", f"rank {rank}"):
            os.kill(process.pid, number)
    assert ranks.end(processes) == [75, 75], (tmp_path / "stderr.txt").read_text()
    newest = CheckpointManager(tmp_path / "run" / "checkpoints").latest()
    assert newest is not None and 0 < newest.images_seen < 1536
    assert not list((tmp_path / "run" / "checkpoints").glob("*.tmp"))


def test_a_stopped_run_ends_as_the_undisturbed_one(tmp_path, tiny_latents, flops):
    for number in (signal.SIGTERM, signal.SIGUSR1):
        name = f"stopped-{number}"
        processes = ranks.start(command(tiny_latents, name, flops), tmp_path)
        ranks.wait_for(tmp_path / name / "checkpoints")
        os.kill(processes[0].pid, number)
        assert ranks.end(processes) == [75], (tmp_path / "stderr.txt").read_text()
        ranks.run(command(tiny_latents, name, flops), tmp_path)
    ranks.run(command(tiny_latents, "undisturbed", flops), tmp_path)
    for number in (signal.SIGTERM, signal.SIGUSR1):
        one, other = tmp_path / f"stopped-{number}", tmp_path / "undisturbed"
        assert (one / "records.jsonl").read_bytes() == (other / "records.jsonl").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT])
def test_a_signal_to_all_processes_of_a_run_ends_no_data_worker(tmp_path, tiny_latents, number):
    """As SLURM sends it."""

    def patch(rank: int) -> None:
        multiprocessing.set_start_method(
            "fork", force=True
        )  # as in a process of its own, whose children they are

    more = ["hardware.workers=2", "duration.images=10000000"]
    (process,) = ranks.start(ranks.command(tiny_latents, "run", *more), tmp_path, patch=patch)
    ranks.wait_for(tmp_path / "run" / "checkpoints")
    workers = [
        int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    ]
    assert len(workers) == 2
    for pid in (*workers, process.pid):
        os.kill(pid, number)
        time.sleep(0.1)  # a worker that dies is found dead
    assert ranks.end([process]) == [75], (tmp_path / "stderr.txt").read_text()
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


@pytest.mark.parametrize("step", [24, 48])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGUSR1])
def test_a_run_that_ends_before_a_reading_makes_it_later(tmp_path, tiny_latents, flops, step, number):
    """In the middle and at its end: the step and its checkpoint are done, and status.json says so."""

    def patch(rank: int) -> None:
        import dit.training.hooks as hooks
        from dit.training.module import DiffusionModule

        after_step = DiffusionModule.after_step

        def signalled(module):
            after_step(module)
            if module.steps_done == step and number != signal.SIGKILL:
                os.kill(os.getpid(), number)

        def killed(module, *_):
            os.kill(os.getpid(), signal.SIGKILL)

        hooks.Progress.due = lambda *_: True
        DiffusionModule.after_step = signalled
        if number == signal.SIGKILL:
            read = hooks.Validation.__call__
            hooks.Validation.__call__ = lambda hook, module: (
                killed(module) if module.steps_done == step else read(hook, module)
            )

    code = 75 if number == signal.SIGUSR1 else -signal.SIGKILL
    ranks.run(command(tiny_latents, "stopped", flops), tmp_path, patch=patch, code=code)
    ranks.run(command(tiny_latents, "stopped", flops), tmp_path)
    ranks.run(command(tiny_latents, "undisturbed", flops), tmp_path)
    assert ranks.files(tmp_path / "stopped") == ranks.files(tmp_path / "undisturbed")


def test_a_full_disk_of_one_rank_ends_all(tmp_path, tiny_latents):
    """The checkpoints before it are whole, and with room on the disk the same command goes on."""

    def patch(rank: int) -> None:
        import dit.training.checkpoint as checkpoint

        save_file, calls = checkpoint.save_file, itertools.count()

        def full(pieces, file):
            if rank == 1 and next(calls) == 2:
                raise SafetensorError("I/O error: No space left on device (os error 28)")
            save_file(pieces, file)

        checkpoint.save_file = full

    arguments = ranks.command(tiny_latents, "run")
    ranks.run(arguments, tmp_path, world=2, patch=patch, code=1)
    said = (tmp_path / "stderr.txt").read_text()
    assert "a checkpoint could not be written: I/O error: No space left" in said and "Traceback" not in said
    assert not list((tmp_path / "run" / "checkpoints").glob("*.tmp"))
    ranks.run(arguments, tmp_path, world=2)
    ranks.run(ranks.command(tiny_latents, "undisturbed"), tmp_path, world=2)
    assert ranks.files(tmp_path / "run") == ranks.files(tmp_path / "undisturbed")


def test_max_time_ends_with_a_checkpoint(tmp_path, tiny_latents):
    arguments = ranks.command(tiny_latents, "run", 'max_time="00:00:01"', "duration.images=10000000")
    ranks.run(arguments, tmp_path, world=2, code=75)
    assert list((tmp_path / "run" / "checkpoints").glob("images-*"))


def test_a_run_in_use_is_refused(tmp_path):
    from dit.errors import InputError
    from dit.rundir import RunDirectory

    held = RunDirectory(tmp_path / "run", "hash", "")
    with pytest.raises(InputError, match="run_dir"):
        RunDirectory(tmp_path / "run", "hash", "")
    held.close()
    RunDirectory(tmp_path / "run", "hash", "").close()


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_processes_lose_no_signal_of_their_start(tmp_path, tiny_latents, seconds):
    """``hardware.processes=2``: one that comes while the interpreters of the ranks start."""
    arguments = ranks.command(tiny_latents, "run", "duration.images=10000000", "hardware.processes=2")

    def patch(rank: int) -> None:
        from dit import launch

        get_context = launch.get_context

        def started(method):
            threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGUSR1)).start()
            return get_context(method)

        launch.get_context = started

    ranks.run(arguments, tmp_path, patch=patch, code=75)
    assert len(list((tmp_path / "run" / "checkpoints").glob("images-*"))) == 1


def test_a_newer_copy_of_a_job_takes_the_run_over(tmp_path, monkeypatch):
    """Two live copies of one SLURM job: the newer one owns the directory, whichever asks again."""
    from dit import rundir
    from dit.errors import InputError
    from dit.slurm import SlurmJob

    monkeypatch.setattr(rundir, "TAKEOVER_SECONDS", 0.1)
    older = rundir.RunDirectory(tmp_path, "hash", "", SlurmJob("7", 0))
    assert older.is_owner()
    newer = rundir.RunDirectory(tmp_path, "hash", "", SlurmJob("7", 1))
    assert newer.is_owner() and not older.is_owner()
    newer.write_status("running", images_seen=5)
    older.write_status("failed")
    assert older.status()["state"] == "running"
    for job in (SlurmJob("7", 0), SlurmJob("7", 1), SlurmJob("8", 0), None):
        with pytest.raises(InputError, match="run_dir"):
            rundir.RunDirectory(tmp_path, "hash", "", job)


def test_an_older_copy_stops_without_writing(tmp_path, tiny_latents, flops):
    """A live run whose directory is taken over by the job's next copy leaves records and checkpoints alone."""
    from dit.rundir import RunDirectory
    from dit.slurm import SlurmJob

    def patch(rank):
        os.environ.update(SLURM_JOB_ID="7", SLURM_RESTART_COUNT="0")
        at_moment("step", tmp_path)(rank)

    arguments = command(tiny_latents, "run", flops)
    processes = ranks.start([*arguments, "duration.images=10000000"], tmp_path, 2, patch=patch)
    for rank in (0, 1):
        ranks.wait_for(tmp_path / f"there-{rank}")
    path = tmp_path / "run"
    config_hash = json.loads((path / "environment.json").read_text())["config_hash"]
    newer = RunDirectory(path, config_hash, "", SlurmJob("7", 1))
    before = ranks.files(path)
    assert ranks.end(processes) == [75, 75], (tmp_path / "stderr.txt").read_text()
    assert ranks.files(path) == before and newer.is_owner()
