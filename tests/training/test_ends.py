"""How a run ends that is interrupted twice, loses its directory, or falls back behind a reading of its old end."""

import json
import os
import shutil
import signal
import time

from tests.training import ranks

ENDLESS = "duration.images=10000000"


def rows(directory, kind):
    lines = (directory / "records.jsonl").read_text().splitlines()
    return [line for line in lines if json.loads(line)["kind"] == kind]


def test_a_second_interrupt_ends_at_once_and_resumably(tmp_path, tiny_latents):
    """Twice Ctrl-C: no checkpoint is waited for, and the promise of the exit code stands."""

    def patch(rank):
        from dit.training.module import DiffusionModule

        step = DiffusionModule.clip_and_step
        DiffusionModule.clip_and_step = lambda *arguments: (time.sleep(0.3), step(*arguments))[1]

    (process,) = ranks.start(ranks.command(tiny_latents, "run", ENDLESS), tmp_path, patch=patch)
    ranks.wait_for(tmp_path / "run" / "status.json")
    time.sleep(1)
    for _ in range(2):
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.02)
    assert ranks.end([process]) == [75], (tmp_path / "stderr.txt").read_text()
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "stopped"
    assert "Traceback" not in (tmp_path / "stderr.txt").read_text()


def test_a_run_whose_directory_is_removed_says_so_and_makes_it_no_more(tmp_path, tiny_latents):
    (process,) = ranks.start(ranks.command(tiny_latents, "run", ENDLESS), tmp_path)
    ranks.wait_for(tmp_path / "run" / "checkpoints")
    os.rename(tmp_path / "run", tmp_path / "gone")  # at once, where rmtree would race with the run
    shutil.rmtree(tmp_path / "gone", ignore_errors=True)
    assert ranks.end([process]) == [1]
    said = (tmp_path / "stderr.txt").read_text()
    assert "run was removed" in said and "newer copy" not in said and "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_a_grown_run_that_falls_back_keeps_the_reading_of_its_old_end(tmp_path, tiny_latents):
    """Its end moves from 768 to 1536 images, and the checkpoint at 768 is damaged: it goes on from the one before."""
    run = tmp_path / "run"
    ranks.run(ranks.command(tiny_latents, "run", "duration.images=768"), tmp_path)
    before = rows(run, "validation")
    assert before and json.loads(before[-1])["images_seen"] == 768
    (newest,) = (run / "checkpoints" / "images-000000000768").glob("*.safetensors")
    newest.write_bytes(newest.read_bytes()[:-1])

    def killed_early(rank):
        from dit.training.module import DiffusionModule

        step = DiffusionModule.clip_and_step
        DiffusionModule.clip_and_step = lambda *arguments: (
            os.kill(os.getpid(), signal.SIGKILL) or step(*arguments)
        )

    # the first process to fall back dies before it has made the reading again
    ranks.run(ranks.command(tiny_latents, "run"), tmp_path, patch=killed_early, code=-signal.SIGKILL)
    assert not rows(run, "validation")
    ranks.run(ranks.command(tiny_latents, "run"), tmp_path)
    found = rows(run, "validation")
    assert found[: len(before)] == before
    assert {json.loads(row)["images_seen"] for row in found} == {768, 1536}
