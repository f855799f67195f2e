"""A tiny study with cool-down branches: trunks first, then branches from their checkpoints, then the report."""

import csv
import json

import pytest

from tests.conftest import TINY, dit


@pytest.mark.slow
def test_branches_run_after_their_trunk(tiny_latents, tmp_path):
    grid = [
        "study.budgets_flops=[1.5e9,3e9,6e9]",
        "study.widths=[16,32]",
        "study.min_images=1280",
        "study.force=true",
    ]
    settings = [
        *TINY,
        "evaluation=none",
        "batch_size=16",
        f"data.directory={tiny_latents}",
        "study.directory=one",
    ]
    dit("study", "experiment=digits", *settings, *grid, "study.cooldown_share=0.3", cwd=tmp_path, check=0)
    plan = json.loads((tmp_path / "one/plan.json").read_text())
    branches = [run for run in plan["runs"] if run["branch_of"]]
    assert len(branches) == 3
    for run in branches:
        rows = (tmp_path / "one/runs" / run["name"] / "records.jsonl").read_text().splitlines()
        first, last = json.loads(rows[0]), json.loads(rows[-1])
        assert (
            "WarmupStableDecay" in first["schedule"] and last["images_seen"] == run["readings"][0]["images"]
        )
        seen = [json.loads(row)["images_seen"] for row in rows[1:]]
        assert min(seen) > run["branch_images"]  # it begins at its trunk's clock
        rates = [json.loads(row)["lr"] for row in rows if '"kind":"train"' in row]
        assert rates == sorted(rates, reverse=True)
    with open(tmp_path / "one/report/runs.csv", newline="") as file:
        assert {row["run"] for row in csv.DictReader(file)} == {run["name"] for run in plan["runs"]}


def test_other_schedules_are_refused(tmp_path):
    found = dit("plan", "experiment=digits", "schedule=cosine", cwd=tmp_path, check=2)
    assert "schedule=constant" in found.stderr and "study.cooldown_share" in found.stderr
