"""Runs of 1, 2 and 4 processes are the same run: the same draws, hash for hash, and the same losses to rounding."""

import hashlib
import json
import math
from pathlib import Path

import pytest
import torch

from tests.conftest import dit
from tests.training import ranks

TOLERANCE = 1e-5


def losses(directory: Path) -> dict[int, float]:
    rows = [json.loads(line) for line in (directory / "records.jsonl").read_text().splitlines()]
    return {row["images_seen"]: row["loss"] for row in rows if row["kind"] == "train"}


def events(directory: Path) -> list[tuple[str, int, int]]:
    rows = [json.loads(line) for line in (directory / "records.jsonl").read_text().splitlines()]
    return [(row["event"], row["step"], row["images_seen"]) for row in rows if row["kind"] == "event"]


def weights(directory: Path) -> dict[str, torch.Tensor]:
    from dit.training.saving import CheckpointManager

    newest = CheckpointManager(directory / "checkpoints").latest()
    assert newest is not None and newest.images_seen == 1536
    return newest.read()


@pytest.fixture(scope="module")
def one(tiny_latents, tmp_path_factory):
    """The run of a single process, with a record of every step."""
    folder = tmp_path_factory.mktemp("one")
    ranks.run(ranks.command(tiny_latents, "run", "log_every_images=32"), folder)
    return folder / "run"


def assert_same_run(found: Path, expected: Path) -> None:
    assert len(losses(found)) == 48
    for clock, loss in losses(expected).items():
        assert losses(found)[clock] == pytest.approx(loss, rel=TOLERANCE), clock
    found_weights, expected_weights = (comparable(weights(path)) for path in (found, expected))
    for name, value in expected_weights.items():
        assert (found_weights[name] - value).abs().max() < 1e-6, name


def comparable(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights and averages without the biases of keys: attention does not depend on those, their gradient is rounding
    noise, and Adam makes steps of any gradient's sign.
    """
    kept = {name: value for name, value in tensors.items() if name.startswith(("network/", "average/"))}
    for name in kept:
        if name.endswith("qkv.bias"):
            query, _, value = kept[name].chunk(3)
            kept[name] = torch.cat([query, value])
    return kept


@pytest.mark.parametrize("world", [2, 4])
def test_draws_do_not_depend_on_the_number_of_processes(tiny_latents, world):
    """(index, flip, posterior, label drop, t, eps) of all ranks together, hash for hash, over 30 steps."""
    from dit.data.latents import LatentSet
    from dit.diffusion.times import stratified
    from dit.training.batches import Batches
    from dit.training.streams import Streams

    latents = LatentSet(tiny_latents, "train")

    def drawn(streams: Streams, step: int) -> list[torch.Tensor]:
        batch = Batches(latents, streams, 0, 30).batch(step)
        dropped = streams.uniform("label_dropout", step)[streams.share]
        u = stratified(streams.uniform("times", step))[streams.share]
        return [
            batch.x0,
            batch.condition["label"],
            batch.index,
            dropped,
            u,
            streams.normal("noise", step, latents.shape),
        ]

    def digest(tensors: list[torch.Tensor]) -> str:
        return hashlib.sha256(
            b"".join(tensor.contiguous().numpy().tobytes() for tensor in tensors)
        ).hexdigest()

    for step in range(30):
        whole = drawn(Streams(0, 32), step)
        parts = [drawn(Streams(0, 32, rank, world), step) for rank in range(world)]
        assert digest([torch.cat(pieces) for pieces in zip(*parts, strict=True)]) == digest(whole)


@pytest.mark.parametrize(
    ("world", "per_node", "strategy"),
    [(2, 2, "fsdp"), (2, 2, "ddp"), (4, 2, "hsdp"), pytest.param(4, 4, "fsdp", marks=pytest.mark.slow)],
)
def test_strategies_give_the_run_of_one_process(tmp_path, tiny_latents, one, world, per_node, strategy):
    arguments = ranks.command(tiny_latents, "run", "log_every_images=32", f"strategy={strategy}")
    ranks.run(arguments, tmp_path, world, per_node=per_node)
    assert_same_run(tmp_path / "run", one)


def test_a_run_goes_on_with_other_numbers_of_processes(tmp_path, tiny_latents, one):
    """2 -> 1 -> 4 processes, stopped at every turn by a limit on images that the next part lifts."""
    from dit.training.saving import CheckpointManager

    for world, last in ((2, 512), (1, 1024), (4, None)):
        more = ["log_every_images=32", "checkpoint_every_images=512"]
        processes = ranks.start(
            ranks.command(tiny_latents, "run", *more), tmp_path, world, patch=_stop_at(last)
        )
        codes = ranks.end(processes)
        assert codes == [75 if last else 0] * world, (tmp_path / "stderr.txt").read_text()
        newest = CheckpointManager(tmp_path / "run" / "checkpoints").latest()
        assert newest is not None and newest.manifest["world_size"] == world
    assert_same_run(tmp_path / "run", one)


def _stop_at(images: int | None):
    """A patch that asks to stop once the clock has reached ``images``."""

    def patch(rank: int) -> None:
        from dit import signals
        from dit.training.module import DiffusionModule

        after = DiffusionModule.after_step

        def and_stop(module: DiffusionModule) -> None:
            after(module)
            if images is not None and module.images_seen >= images:
                signals._received.append(15)

        DiffusionModule.after_step = and_stop

    return patch


def _nan_at(*steps: int):
    """A patch that makes the loss of rank 1 not a number in some steps."""

    def patch(rank: int) -> None:
        from dit.diffusion.objective import Objective
        from dit.training.module import DiffusionModule

        if rank != 1:
            return
        loss, forward_backward = Objective.loss, DiffusionModule.forward_backward
        bad = [False]

        def poisoned(self, *arguments):
            found = loss(self, *arguments)
            return found._replace(loss=found.loss * math.nan) if bad[0] else found

        def watched(module, batch, backward):
            bad[0] = batch.step + 1 in steps
            return forward_backward(module, batch, backward)

        Objective.loss, DiffusionModule.forward_backward = poisoned, watched

    return patch


@pytest.mark.parametrize(("policy", "code"), [("stop", 1), ("skip", 0), ("rollback", 0)])
def test_a_nan_on_one_rank_is_met_by_all(tmp_path, tiny_latents, policy, code):
    """Steps 20 and 30 of 48 are poisoned on rank 1; the checkpoints before them are those of steps 18 and 24."""
    arguments = ranks.command(tiny_latents, "run", f"on_nonfinite={policy}", "log_every_images=32")
    ranks.run(arguments, tmp_path, 2, code=code, patch=_nan_at(20, 30))
    path, stderr = tmp_path / "run", (tmp_path / "stderr.txt").read_text()
    if policy == "stop":
        assert "step 20: loss nan" in stderr
        assert max(losses(path)) == 19 * 32
        assert json.loads((path / "status.json").read_text())["state"] == "failed"
        return
    # a skipped step stands at its own clock, a rollback at that of the checkpoint it went back to
    expected = {
        "skip": [("skipped", 20, 20 * 32), ("skipped", 30, 30 * 32)],
        "rollback": [("rollback", 20, 18 * 32), ("rollback", 30, 24 * 32)],
    }
    assert events(path) == expected[policy]
    clocks = losses(path)
    assert (
        not {20 * 32, 30 * 32} & clocks.keys()
        and len(clocks) == 46
        and all(map(math.isfinite, clocks.values()))
    )
    assert all(torch.isfinite(value).all() for name, value in weights(path).items() if "network" in name)


def test_accumulation_gives_the_same_step(tmp_path, tiny_latents, one):
    """2 parts of 16 images, and 4 parts over 2 processes, are one batch of 32."""
    more = ["log_every_images=32"]
    ranks.run(ranks.command(tiny_latents, "run", "accumulation=2", *more), tmp_path)
    assert_same_run(tmp_path / "run", one)
    ranks.run(ranks.command(tiny_latents, "both", "accumulation=4", "strategy=fsdp", *more), tmp_path, 2)
    assert_same_run(tmp_path / "both", one)


@pytest.mark.parametrize("recompute", ["selective", "full"])
@pytest.mark.parametrize("world", [1, 2])
def test_activation_checkpointing_gives_the_same_run(tmp_path, tiny_latents, one, recompute, world):
    more = [f"activation_checkpointing={recompute}", "log_every_images=32"]
    ranks.run(ranks.command(tiny_latents, "run", *more), tmp_path, world)
    assert_same_run(tmp_path / "run", one)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("compile", "world", "recompute"),
    [("block", 1, "auto"), ("block", 2, "auto"), ("model", 1, "auto"), ("block", 2, "selective")],
)
def test_compilation_gives_the_same_losses(tmp_path, tiny_latents, one, compile, world, recompute):
    more = [f"compile={compile}", f"activation_checkpointing={recompute}", "log_every_images=32"]
    ranks.run(ranks.command(tiny_latents, "run", *more), tmp_path, world)
    for clock, loss in losses(one).items():
        assert losses(tmp_path / "run")[clock] == pytest.approx(loss, rel=1e-4)


def test_worker_processes_change_nothing(tmp_path, tiny_latents, one):
    ranks.run(ranks.command(tiny_latents, "run", "log_every_images=32", "hardware.workers=2"), tmp_path)
    assert ranks.files(tmp_path / "run") == ranks.files(one)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["strategy=single"], ["strategy", "single", "2 processes"]),
        (["batch_size=33"], ["batch_size", "33", "2 processes"]),
        (["hardware.processes=2"], ["hardware.processes", "2"]),
        (["compile=model"], ["compile", "model"]),
        (["on_nonfinite=ignore"], ["on_nonfinite", "ignore", "rollback"]),
        (["max_time=soon"], ["max_time", "soon"]),
        (["accumulation=3"], ["batch_size", "accumulation 3"]),
    ],
)
def test_what_does_not_fit_is_refused_by_all_ranks(tmp_path, tiny_latents, arguments, words):
    ranks.run(ranks.command(tiny_latents, "run", *arguments), tmp_path, 2, code=2)
    lines = [line for line in (tmp_path / "stderr.txt").read_text().splitlines() if line.startswith("dit:")]
    assert len(lines) == 1 and all(word in lines[0] for word in words)


def test_a_mistake_in_processes_started_by_plain_python(tmp_path, tiny_latents):
    found = dit(
        *ranks.command(tiny_latents, "run", "hardware.processes=2", "batch_size=33"), cwd=tmp_path, check=2
    )
    assert found.stderr.count("batch_size") == 1 and "Traceback" not in found.stderr


def test_processes_started_by_plain_python(tmp_path, tiny_latents, one):
    ranks.run(ranks.command(tiny_latents, "run", "hardware.processes=2", "log_every_images=32"), tmp_path)
    assert_same_run(tmp_path / "run", one)
