"""A U-Net through the verbs: trained, killed, resumed, shared by two processes, sampled, as any other network."""

import json
import signal

import numpy as np

from tests.training import ranks
from tests.training.test_distributed import losses

UNET = [
    "network=unet",
    "network.width=16",
    "network.groups=8",
    "network.multipliers=[1,2]",
    "network.blocks=1",
]


def test_a_unet_is_a_row(tmp_path, tiny_latents):
    """The loss falls, a killed run ends as the undisturbed one, FSDP2 on two processes gives the same run."""
    tiny = ranks.command(tiny_latents, "run", "log_every_images=32", "optimizer.lr=3e-3")
    words = [word for word in tiny if not word.startswith(("network.", "run_dir="))] + UNET
    ranks.run([*words, "run_dir=run"], tmp_path)
    found = list(losses(tmp_path / "run").values())
    assert np.mean(found[-8:]) < 0.8 * np.mean(found[:8])
    ranks.run([*words, "run_dir=killed"], tmp_path, code=-signal.SIGKILL, patch=ranks.killed_at(20))
    ranks.run([*words, "run_dir=killed"], tmp_path)
    assert ranks.files(tmp_path / "killed") == ranks.files(tmp_path / "run")
    ranks.run([*words, "run_dir=shared", "strategy=fsdp", "activation_checkpointing=full"], tmp_path, 2)
    np.testing.assert_allclose(list(losses(tmp_path / "shared").values()), found, rtol=1e-4)
    row = json.loads((tmp_path / "run" / "records.jsonl").read_text().splitlines()[0])
    assert row["network"]["kind"] == "unet" and row["network"]["multipliers"] == [1, 2]
    ranks.run(["sample", "run=run", "n=3", "batch_size=3", "grid.n_steps=3"], tmp_path)
    assert (tmp_path / "run" / "drawn" / "grid.png").is_file()
    ranks.run(["export", "run=run", "out=net.safetensors"], tmp_path, code=2)
    assert "a run of a transformer" in (tmp_path / "stderr.txt").read_text()
