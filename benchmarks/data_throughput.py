"""How fast images become latents, and latents batches; one line of JSON per measurement.

    python -m benchmarks.data_throughput [--parquet FILE] [--latents 40000]

encode: `encode_dataset` (identity, one process), and decoding alone, against a bare loop that decodes the same files
    with Pillow; processor time, in turn, the median of the ratios of five rounds.
loader: random batches of 4x32x32 posteriors in bfloat16, read from the page cache and drawn from, by one thread, with
    the memory that this took: what the process holds of its own (anonymous pages) beside what importing took.
About a minute and a half.
"""

import argparse
import io
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from dit.data.autoencoder import Identity
from dit.data.encode import encode_dataset
from dit.data.latents import LatentSet
from dit.data.loader import indices
from dit.data.manifest import FORMAT, file_sha256, write_manifest
from dit.data.pixels import decode_square
from dit.data.sources.parquet import Parquet
from dit.data.split import ByContent


def bare_loop(contents: list[bytes]) -> float:
    """Seconds of this process for decoding files that are in memory, and nothing else."""
    began = time.process_time()
    for content in contents:
        np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    return time.process_time() - began


def encoding(path: Path, folder: Path) -> float:
    """Seconds of this process for reading, hashing, decoding, writing shards, statistics and hashes."""
    began = time.process_time()
    encode_dataset(
        folder, Parquet(str(path)), Identity(), ByContent(0.02), name="bench", image_size=32, batch_size=128
    )
    return time.process_time() - began


def decoding(contents: list[bytes]) -> float:
    """Seconds of this process for decoding them as the encoder does."""
    began = time.process_time()
    for content in contents:
        decode_square(content, 32)
    return time.process_time() - began


def measure_encode(path: Path, rounds: int = 5) -> dict[str, float | str]:
    """Images per second, and ratios to the bare loop."""
    source = Parquet(str(path))
    contents = [source.content(index) for index in range(len(source))]
    seconds: dict[str, list[float]] = {"bare_loop": [], "decode": [], "encode": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            seconds["bare_loop"].append(bare_loop(contents))
            seconds["decode"].append(decoding(contents))
            seconds["encode"].append(encoding(path, Path(folder) / str(number)))
    bare = np.array(seconds["bare_loop"])
    ratios = {f"{name}_ratio": float(np.median(bare / seconds[name])) for name in ("decode", "encode")}
    rates = {
        f"{name}_images_per_s": len(contents) / float(np.median(times)) for name, times in seconds.items()
    }
    return {"measurement": "encode", **rates, **ratios}


def memory_mb(field: str) -> float:
    """Memory now: ``VmRSS`` (with the code of libraries), ``RssAnon`` (the process's own)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def make_latents(folder: Path, n: int) -> None:
    """A latent directory of n random posteriors, 4x32x32 in bfloat16, in shards of 4,096."""
    folder.mkdir()
    shards = []
    for number, start in enumerate(range(0, n, 4096)):
        count = min(4096, n - start)
        moments = torch.randn(count, 8, 32, 32, dtype=torch.bfloat16)
        column = torch.arange(start, start + count)
        path = folder / f"train-{number:05d}.safetensors"
        save_file({"moments": moments, "label": column % 1000, "index": column}, path)
        entry = {"file": path.name, "count": count, "bytes": path.stat().st_size, "sha256": file_sha256(path)}
        shards.append(entry)
    split = {"train": {"count": n, "shards": shards}}
    manifest = {"format": FORMAT, "shape": [4, 32, 32], "dtype": "bfloat16", "posterior": True, "flip": False}
    manifest |= {"channel_mean": [0.0] * 4, "channel_std": [1.0] * 4, "num_classes": 1000, "splits": split}
    write_manifest(folder, folder, manifest)


def measure_loader(n: int, batch: int = 256, seconds: float = 10) -> dict[str, float | str]:
    """Latents per second of one thread: indices, reading, float32, posterior draw, normalisation; noise is
    given.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        make_latents(Path(folder) / "latents", n)
        before = {name: memory_mb(name) for name in ("VmRSS", "RssAnon")}
        latents = LatentSet(Path(folder) / "latents", "train")  # hashing leaves the shards in the page cache
        eps = torch.randn(batch, *latents.shape)
        best, seen, began = 0.0, 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            start, first = time.process_time(), seen
            for _ in range(20):
                latents.draw(indices(0, len(latents), seen, batch), eps)
                seen += batch
            best = max(best, (seen - first) / (time.process_time() - start))
        mean = seen / (time.perf_counter() - began)
        rates = {"latents_per_s_of_core": best, "latents_per_s_of_clock": mean}
        memory = {f"{name}_mb": memory_mb(name) for name in before}
        memory |= {f"{name}_mb_of_imports": value for name, value in before.items()}
    return {"measurement": "loader", **rates, **memory, "epochs": seen / n}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--parquet", type=Path, help="CIFAR-10 in the Hub's layout; without it only the loader"
    )
    parser.add_argument(
        "--latents", type=int, default=40_000, help="latents of the loader's directory, 16 KB each"
    )
    arguments = parser.parse_args()
    print(json.dumps(measure_loader(arguments.latents)))
    if arguments.parquet:
        print(json.dumps(measure_encode(arguments.parquet)))


if __name__ == "__main__":
    main()
