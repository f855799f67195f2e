"""CIFAR-10, 50,000 real JPEGs in the Hub's layout: the whole way, at its real size."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dit.data.autoencoder import Identity
from dit.data.codec import Codec
from dit.data.encode import encode_dataset
from dit.data.latents import LatentSet
from dit.data.manifest import read_manifest, verify
from dit.data.pixels import decode_square
from dit.data.sources.parquet import Parquet
from dit.data.split import ByContent
from dit.errors import InputError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def source(shared) -> Parquet:
    path = shared / "data/cifar10/train.parquet"
    if not path.is_file():
        pytest.skip("no CIFAR-10 beside the checkout")
    return Parquet(str(path))


def encode(directory, source, **options):
    options = {"name": "cifar10", "image_size": 32, "shard_images": 5000, "batch_size": 128} | options
    return encode_dataset(directory, source, Identity(), ByContent(0.02), **options)


@pytest.fixture(scope="module")
def latents(source, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("cifar10") / "latents"
    encode(directory, source)
    return directory


def hashes(directory: Path) -> dict[str, str]:
    shards = [shard for split in read_manifest(directory)["splits"].values() for shard in split["shards"]]
    return {shard["file"]: shard["sha256"] for shard in shards} | {
        "manifest": (directory / "manifest.sha256").read_text()
    }


def test_the_source_is_cifar10(source):
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    assert len(source) == 50_000 and " ".join(source.class_names) == names
    assert np.bincount([source.label(i) for i in range(50_000)]).tolist() == [5000] * 10


@pytest.mark.slow
def test_splits_and_statistics(latents, source):
    train, held_out = LatentSet(latents, "train"), LatentSet(latents, "validation")
    assert len(train) + len(held_out) == 50_000
    assert abs(len(held_out) - 1000) < 5 * (50_000 * 0.02 * 0.98) ** 0.5
    # The mean and standard deviation of CIFAR-10 that are quoted everywhere, up to their digits
    # and the 2 % held out: .4914 .4822 .4465, .2470 .2435 .2616 of [0, 1].
    mean, std = (np.array(train.manifest[key]) for key in ("channel_mean", "channel_std"))
    np.testing.assert_allclose((mean + 1) / 2, [0.4914, 0.4822, 0.4465], atol=2e-3)
    np.testing.assert_allclose(std / 2, [0.2470, 0.2435, 0.2616], atol=2e-3)
    index = torch.tensor([0, 4898, 4899, 4900, 30_000, len(train) - 1])
    decoded = Codec.open(latents).decode(train.draw(index)).permute(0, 2, 3, 1).numpy()
    for position, image in zip(train.source_index[index].tolist(), decoded):
        assert np.array_equal(image, decode_square(source.content(position), 32))


SCRIPT = """
import os, signal, sys
from pathlib import Path
from dit.data.sources.parquet import Parquet
from tests.data.test_cifar10 import encode
directory, path, rank, die_at = sys.argv[1:]
def report(stage, done, total, detail):
    if done >= int(die_at):
        os.kill(os.getpid(), signal.SIGKILL)
encode(Path(directory), Parquet(path), rank=int(rank), world_size=2, progress=report)
"""


def start(directory: Path, source: Parquet, rank: int, die_at: int = 10**9) -> subprocess.Popen:
    command = [sys.executable, "-c", SCRIPT, str(directory), source.path, str(rank), str(die_at)]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})


@pytest.mark.slow
def test_two_processes_killed_and_resumed_give_the_same_shards(latents, source, tmp_path):
    directory = tmp_path / "latents"
    assert start(directory, source, 0, die_at=12_000).wait() == -signal.SIGKILL
    both = [start(directory, source, rank) for rank in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert hashes(directory) == hashes(latents)
    assert [path.name for path in tmp_path.iterdir()] == ["latents"]


@pytest.mark.slow
def test_two_hundred_random_byte_flips_are_all_found(latents):
    """By verify and by the sets that would read the shard."""
    generator = np.random.default_rng(0)
    splits = read_manifest(latents)["splits"]
    entries = [shard | {"split": name} for name in splits for shard in splits[name]["shards"]]
    sizes = np.array([entry["bytes"] for entry in entries], float)
    for _ in range(200):
        entry = entries[generator.choice(len(entries), p=sizes / sizes.sum())]
        place = int(generator.integers(entry["bytes"]))
        with open(latents / entry["file"], "r+b") as file:
            file.seek(place)
            byte = file.read(1)
            file.seek(place)
            file.write(bytes([byte[0] ^ int(generator.integers(1, 256))]))
        with pytest.raises(InputError, match=entry["file"]):
            verify(latents)
        with pytest.raises(InputError, match=entry["file"]):
            LatentSet(latents, entry["split"])
        with open(latents / entry["file"], "r+b") as file:
            file.seek(place)
            file.write(byte)
    assert verify(latents) == len(entries)
