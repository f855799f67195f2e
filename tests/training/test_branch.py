"""Cool-down branches: a run that begins from another's checkpoint is the run that was planned so from the start."""

import json

from tests.training import ranks


def test_a_cool_down_branch_is_the_run_planned_with_it(tmp_path, tiny_latents):
    """Trunk to 768 images at one learning rate, branch from there to 1536: bit for bit one run with that schedule."""
    from dit.training.saving import CheckpointManager

    cooled = ["schedule=wsd", "schedule.cooldown_share=null", "schedule.cooldown_images=768"]
    ranks.run(ranks.command(tiny_latents, "direct", *cooled), tmp_path)
    ranks.run(ranks.command(tiny_latents, "trunk", "keep_every_images=768"), tmp_path)
    kept = tmp_path / "trunk" / "checkpoints" / "images-000000000768"
    ranks.run(ranks.command(tiny_latents, "branch", *cooled, f"branch_from={kept}"), tmp_path, 2)
    ranks.run(ranks.command(tiny_latents, "alone", *cooled, f"branch_from={kept}"), tmp_path)
    last = {
        name: CheckpointManager(tmp_path / name / "checkpoints").latest()
        for name in ("direct", "alone", "branch", "trunk")
    }
    direct, alone, trunk = (last[name].read() for name in ("direct", "alone", "trunk"))
    assert all(direct[name].equal(value) for name, value in alone.items())
    assert not direct["network/final_layer.linear.weight"].equal(trunk["network/final_layer.linear.weight"])
    shared = last["branch"].read()
    assert (
        shared["network/blocks.0.mlp.fc1.weight"] - direct["network/blocks.0.mlp.fc1.weight"]
    ).abs().max() < 1e-6
    rows = [json.loads(line) for line in (tmp_path / "alone" / "records.jsonl").read_text().splitlines()]
    rates = {row["images_seen"]: row["lr"] for row in rows if row["kind"] == "train"}
    assert min(rates) > 768 and max(rates) == 1536 and 0 < rates[1344] < rates[864]


def test_what_is_no_trunk_is_refused(tmp_path, tiny_latents):
    ranks.run(ranks.command(tiny_latents, "trunk"), tmp_path)
    last = next((tmp_path / "trunk" / "checkpoints").glob("*1536"))
    for name, more in {
        "nowhere": ["branch_from=nowhere"],
        "later": [f"branch_from={last}"],
        "wider": [f"branch_from={last}", "duration.images=3072", "network.width=32"],
        "average": [f"branch_from={last}", "duration.images=3072", "averages=post_hoc", "sample_weights=raw"],
    }.items():
        ranks.run(ranks.command(tiny_latents, name, *more), tmp_path, code=2)
    stderr = (tmp_path / "stderr.txt").read_text()
    assert stderr.count("branch_from") >= 3 and "Traceback" not in stderr
