"""Arrays of one, two and three axes through every verb: encoded, counted, planned, trained, resumed, drawn."""

import json
import math
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dit.condition import Classes, labelled
from dit.config.files import read_yaml
from dit.config.parts import Parts
from dit.data.codec import Codec
from dit.data.latents import LatentSet
from dit.data.manifest import read_manifest
from dit.domain import Domain
from tests.training import ranks

N = 120
# shape of an item, patch, and words of the network: a trajectory, a log-mel spectrogram, a clip
CASES = [
    ((3, 40), "4", ["network.rope=true"]),
    ((1, 16, 40), "[4,8]", []),
    ((2, 4, 8, 8), "[1,4,4]", ["network.rope=true", "network.positions=learned"]),
]
RUN = [
    *("network.width=16", "network.aspect=16", "network.head_dim=16", "batch_size=16", "warmup_images=64"),
    *("validation.n_draws=32", "log_every_images=16", "checkpoint_every_images=256", "duration.images=800"),
    *("optimizer.lr=0.01", "evaluation=none"),
]


def simulated(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Waves of one of two lengths by class, of their own phase, around -30 and 50 times as high: units of their own."""
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=N)
    place = sum(np.indices(shape[1:]))
    phase = rng.uniform(0, 2 * math.pi, (N, shape[0], *[1] * (len(shape) - 1)))
    rate = (0.2 + 0.3 * labels).reshape(N, *[1] * len(shape))
    return 50 * np.sin(place * rate + phase) - 30, labels


def words(patch: str, network: list[str]) -> list[str]:
    return ["data=array", "data.name=waves", "data.source.path=x.npy", "data.source.labels=y.npy",
            "autoencoder=identity", f"network.patch_size={patch}", *network]  # fmt: skip


@pytest.mark.parametrize(("shape", "patch", "network"), CASES, ids=["trajectory", "log-mel", "clip"])
def test_from_a_file_to_samples(tmp_path: Path, shape, patch, network):
    """The loss of 50 steps falls, a killed run ends as the undisturbed one, its FLOPs are those of torch's counter, and
    samples come in the units of the file.
    """
    x, labels = simulated(shape)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", labels)
    said = words(patch, network)
    study = ["study.name=s", "study.budgets_flops=[4e9]", "study.widths=[16]", "study.min_images=1280"]
    study.append("study.force=true")
    ranks.run(["plan", *said, *RUN[:5], *study], tmp_path)
    ranks.run(["encode", *[word for word in said if not word.startswith("network")]], tmp_path)
    ranks.run(["train", *said, *RUN, "run_dir=run"], tmp_path)
    ranks.run(
        ["train", *said, *RUN, "run_dir=killed"], tmp_path, code=-signal.SIGKILL, patch=ranks.killed_at(40)
    )
    ranks.run(["train", *said, *RUN, "run_dir=killed"], tmp_path)
    _check_data(tmp_path / "latents" / "waves-identity", x)
    rows = [json.loads(line) for line in (tmp_path / "run" / "records.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    assert len(losses) == 50
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    _check_equal(tmp_path)
    _check_counts(tmp_path / "run", rows[0], shape)
    ranks.run(["sample", "run=run", "n=5", "batch_size=3", "grid.n_steps=4", "guidance=none"], tmp_path)
    samples = np.load(tmp_path / "run" / "drawn" / "samples.npz")
    assert (samples["arr_0"].shape, samples["arr_0"].dtype) == ((5, *shape), np.float32)
    assert abs(samples["arr_0"].mean() - x.mean()) < 0.5 * x.std() < 2 * samples["arr_0"].std()
    assert samples["arr_1"].tolist() == [0, 1, 0, 1, 0]
    assert not (tmp_path / "run" / "drawn" / "grid.png").exists()
    ranks.run(["evaluate", "run=run"], tmp_path, code=2)
    told = (tmp_path / "stderr.txt").read_text().splitlines()[-1]
    assert f"samples {shape}" in told
    assert "allowed: pictures, measured by one of digits, inception" in told


def _check_data(directory: Path, x: np.ndarray) -> None:
    """Shards hold the file's numbers; both splits together are the file; what is read has unit variance."""
    train, held_out = LatentSet(directory, "train"), LatentSet(directory, "validation")
    assert train.domain == Domain.of(x.shape[1:])
    assert "image_shape" not in read_manifest(directory)
    found = np.empty(x.shape, np.float32)
    for part in (train, held_out):
        found[part.source_index.numpy()] = part.moments(torch.arange(len(part))).numpy()
    assert np.array_equal(found, x.astype(np.float32))
    x0 = train.draw(torch.arange(len(train)))
    points = [0, *range(2, x.ndim)]
    torch.testing.assert_close(x0.mean(points), torch.zeros(x.shape[1]), atol=1e-5, rtol=0)
    torch.testing.assert_close(x0.std(points, correction=0), torch.ones(x.shape[1]))
    codec = Codec.open(directory)
    raw = train.moments(torch.arange(len(train)))
    torch.testing.assert_close(codec.decode(x0), raw, atol=1e-3, rtol=1e-5)
    assert torch.equal(codec.encode(raw), x0)


def _check_equal(folder: Path) -> None:
    """Records but for the name of the run, and tensors to the last bit."""
    whole, killed = (ranks.files(folder / name) for name in ("run", "killed"))
    renamed = killed.pop("records.jsonl").replace(b'"killed"', b'"run"')
    assert renamed == whole.pop("records.jsonl")
    assert killed == whole


def _check_counts(run: Path, row: dict, shape: tuple[int, ...]) -> None:
    domain, kind = Domain.of(shape), Classes(2)
    config = Parts(read_yaml(run / "config.yaml")).network
    network = config.build(domain, kind)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, *shape), torch.zeros(1), labelled(torch.zeros(1, dtype=torch.int64)))
    assert (
        counter.get_total_flops()
        == 2 * row["macs_per_image"]
        == 2 * config.count(domain, kind).macs_per_image
    )
    assert row["n_params_total"] == sum(parameter.numel() for parameter in network.parameters())
