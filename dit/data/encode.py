"""Images to a latent directory: in blocks, by any number of processes, restartable at any point.

The source is cut into blocks of consecutive images; process r of w encodes blocks r, r + w, ... Each block
is written whole or not at all, so a killed process redoes at most one block, and what a block holds does
not depend on who wrote it. Whoever finds all blocks there writes the manifest and renames the result into
place.

B batch, C H W latent.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from dit.data.autoencoder import Progress, silent
from dit.data.autoencoder_training import fixed_threads
from dit.data.codec import Autoencoder, to_uint8
from dit.data.images import Source
from dit.data.latents import DTYPES, Shard
from dit.data.manifest import FORMAT, canonical, file_sha256, read_manifest, write_manifest
from dit.data.split import ByContent, Chooser, Stratified
from dit.errors import InputError, check_choice, check_number

ENCODING_THREADS = 1  # fixed, so that the latents do not depend on the caller's setting
PSNR_IMAGES = 512  # reconstruction is measured on at most this many held-out images
SPLITS = ("train", "validation")


class AutoencoderSpec(Protocol):
    """What `encode_dataset` asks of the values in `dit.data.autoencoder`."""

    @property
    def config(self) -> dict[str, Any]: ...
    def latent_shape(self, image_size: int) -> tuple[int, int, int]: ...
    def obtain(self, folder: Path, images: Any, progress: Progress = silent) -> Autoencoder: ...


@dataclass(frozen=True)
class Encoded:
    """What one call of `encode_dataset` left behind.

    Args:
        directory: the latent directory.
        complete: whether it is there; False while blocks of other processes are missing.
        blocks_missing: number of these.
        fresh: whether this call did work; False where everything was there already.
    """

    directory: Path
    complete: bool
    blocks_missing: int
    fresh: bool


def encode_dataset(
    directory: str | Path,
    source: Source,
    autoencoder: AutoencoderSpec,
    split: ByContent | Stratified,
    *,
    name: str,
    image_size: int,
    flip: bool = False,
    dtype: str = "float32",
    batch_size: int = 64,
    shard_images: int = 4096,
    device: str = "cpu",
    rank: int = 0,
    world_size: int = 1,
    progress: Progress = silent,
) -> Encoded:
    """Encodes the images of a source into a latent directory, unless it is there already.

    Args:
        directory: where it will appear, complete, by one rename; work happens beside it in
            ``<directory>.tmp-<hash>``.
        source: the images.
        autoencoder: one of the values of `dit.data.autoencoder`.
        split: which images are held out.
        name: of the data, as shown in tables.
        image_size: pixels per side.
        flip: store the mirrored image too, as an entry of its own.
        dtype: storage of the moments, float32 or bfloat16; pixels (identity) are always stored as uint8.
        batch_size: images per call of the autoencoder.
        shard_images: images per block of the source.
        device: where the autoencoder runs.
        rank: this process, of
        world_size: processes that share the work.
        progress: told after every batch.

    Raises:
        InputError: the directory holds something else, or the same data made another way.
    """
    check_choice("data.dtype", dtype, ("float32", "bfloat16"))
    for key, value in (
        ("image_size", image_size),
        ("batch_size", batch_size),
        ("shard_images", shard_images),
    ):
        check_number(f"data.{key}", value, low=1, integer=True)
    check_number("world_size", world_size, low=1, integer=True)
    check_number("rank", rank, low=0, below=world_size, integer=True)
    config = {
        "format": FORMAT,
        "source": source.identity(),
        "image_size": image_size,
        "autoencoder": autoencoder.config,
        "split": {"kind": type(split).__name__} | asdict(split),
        "flip": flip,
        "dtype": "uint8" if autoencoder.config["kind"] == "identity" else dtype,
        "shard_images": shard_images,
    }
    directory = Path(directory)
    if _already_there(directory, config):
        return Encoded(directory, True, 0, False)
    work = _Work(directory, config, name, source, split, autoencoder)
    with fixed_threads(ENCODING_THREADS):
        work.encode_blocks(rank, world_size, batch_size, device, progress)
        missing = work.missing_blocks()
        if not missing:
            work.finish(device)
    return Encoded(directory, not missing, len(missing), True)


def _already_there(directory: Path, config: dict[str, Any]) -> bool:
    """Whether this very data is there; raises if something else is."""
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return False
    if not (directory / "manifest.json").is_file():
        raise InputError(
            "data.directory",
            str(directory),
            "an absent or empty directory, or latents",
            "Choose another directory.",
        )
    stored = read_manifest(directory)["config"]
    if stored != config:
        changed = [
            f"{key}: {stored.get(key)} -> {config[key]}" for key in config if stored.get(key) != config[key]
        ]
        raise InputError(
            "data.directory",
            f"{directory}, encoded another way ({'; '.join(changed)})",
            "latents of this very configuration",
            "Choose another data.directory, or remove this one.",
        )
    return True


class _Work:
    """The unfinished directory: ``<directory>.tmp-<hash>/{result,blocks}``, shared by all processes of one
    configuration.
    """

    def __init__(
        self,
        directory: Path,
        config: dict[str, Any],
        name: str,
        source: Source,
        split: ByContent | Stratified,
        autoencoder: AutoencoderSpec,
    ) -> None:
        self.directory, self.config, self.name = directory, config, name
        self.source, self.spec = source, autoencoder
        self.held_out: Chooser = split.chooser(source)
        self.n_blocks = -(-len(source) // config["shard_images"])
        self.folder = directory.with_name(
            f"{directory.name}.tmp-{hashlib.sha256(canonical(config)).hexdigest()[:12]}"
        )
        self.result, self.blocks = self.folder / "result", self.folder / "blocks"
        try:
            self.result.mkdir(parents=True, exist_ok=True)
            self.blocks.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(
                "data.directory", f"{directory} ({error.strerror})", "a writable place"
            ) from error

    # -- blocks

    def block_range(self, block: int) -> range:
        size = self.config["shard_images"]
        return range(block * size, min(len(self.source), (block + 1) * size))

    def record(self, block: int) -> Path:
        return self.blocks / f"{block:05d}.json"

    def missing_blocks(self) -> list[int]:
        return [block for block in range(self.n_blocks) if not self.record(block).is_file()]

    def read(self, indices: Iterable[int], split: str) -> Iterator[tuple[int, np.ndarray]]:
        """The images of ``split`` among ``indices``: (index, (H, W, 3) uint8)."""
        for index in indices:
            content = self.source.content(index)
            if self.held_out(index, content) == (split == "validation"):
                yield index, self.source.pixels(content, self.config["image_size"])

    def training_images(self) -> Iterator[Tensor]:
        """All training images, for an autoencoder that is trained on the spot: (1, 3, H, W) uint8 each."""
        for _, pixels in self.read(range(len(self.source)), "train"):
            yield torch.from_numpy(pixels).permute(2, 0, 1)[None]

    def encode_blocks(
        self, rank: int, world_size: int, batch_size: int, device: str, progress: Progress
    ) -> None:
        autoencoder = self.autoencoder(device, progress)
        mine = [block for block in self.missing_blocks() if block % world_size == rank]
        done, total = 0, sum(len(self.block_range(block)) for block in mine)
        for block in mine:
            record = {}
            for split in SPLITS:
                count, record[split] = self.encode_split(autoencoder, block, split, batch_size, device)
                done += count
                progress("encode", done, total, f"block {block + 1} of {self.n_blocks}")
            _write_whole(self.record(block), canonical(record))

    def autoencoder(self, device: str, progress: Progress = silent) -> Autoencoder:
        return self.spec.obtain(self.result / "autoencoder", self.training_images, progress).to(device)

    def encode_split(
        self, autoencoder: Autoencoder, block: int, split: str, batch_size: int, device: str
    ) -> tuple[int, dict[str, Any] | None]:
        """Writes one shard; returns the number of images and its record (None where the block has none of
        this split).
        """
        read = list(self.read(self.block_range(block), split))
        if not read:
            return 0, None
        images = torch.from_numpy(np.stack([pixels for _, pixels in read])).permute(0, 3, 1, 2).contiguous()
        tensors = {"moments": self.encode_images(autoencoder, images, batch_size, device)}
        if self.config["flip"]:
            tensors["moments_flipped"] = self.encode_images(autoencoder, images.flip(-1), batch_size, device)
        totals = _totals(tensors.values(), self.channels)
        index = [index for index, _ in read]
        tensors["label"] = torch.tensor([self.source.label(i) for i in index])
        tensors["index"] = torch.tensor(index)
        path = self.result / f"{split}-{block:05d}.safetensors"
        partial = self.folder / f"{path.name}.{os.getpid()}"
        save_file(tensors, partial)
        partial.rename(path)
        entry = {"count": len(index), "totals": totals} | _file_entry(self.result, path)
        return len(index), entry

    def encode_images(self, autoencoder: Autoencoder, images: Tensor, batch_size: int, device: str) -> Tensor:
        """Moments of uint8 images (n, 3, H, W) in the storage dtype: (n, K, H', W')."""
        if autoencoder.module is None:
            return images.contiguous()
        parts = []
        for batch in images.split(batch_size):
            mean, logvar = autoencoder.encode(batch.to(device))
            moments = mean if logvar is None else torch.cat([mean, logvar], dim=1)
            if not bool(moments.isfinite().all()):
                raise InputError("autoencoder", "non-finite latents", "finite ones", "Encode in float32.")
            parts.append(moments.cpu().to(DTYPES[self.config["dtype"]]))
        return torch.cat(parts)

    @property
    def channels(self) -> int:
        return self.spec.latent_shape(self.config["image_size"])[0]

    # -- the end

    def finish(self, device: str) -> None:
        """Writes the manifest and renames the result into place; another process may do the same at the
        same time.
        """
        try:
            write_manifest(self.result, self.manifest(device))
            self.result.rename(self.directory)
        except (FileNotFoundError, OSError):
            if not _already_there(self.directory, self.config):
                raise
        shutil.rmtree(self.folder, ignore_errors=True)

    def manifest(self, device: str) -> dict[str, Any]:
        records = [json.loads(self.record(block).read_bytes()) for block in range(self.n_blocks)]
        splits = {split: [record[split] for record in records if record[split]] for split in SPLITS}
        if not splits["train"]:
            raise InputError("data.source", f"{len(self.source)} images", "at least one training image")
        mean, std = _statistics([entry.pop("totals") for entry in splits["train"]])
        for entry in splits["validation"]:
            del entry["totals"]
        folder = self.result / "autoencoder"
        files = (
            [_file_entry(self.result, path) for path in sorted(folder.glob("*"))] if folder.is_dir() else []
        )
        kind = self.config["autoencoder"]["kind"]
        autoencoder = self.autoencoder(device)
        psnr, n = self.reconstruction(autoencoder, splits["validation"], device)
        return {
            "format": FORMAT,
            "name": self.name,
            "config": self.config,
            "source": self.config["source"],
            "autoencoder": self.config["autoencoder"]
            | {"files": files, "sha256": hashlib.sha256(canonical(files)).hexdigest() if files else None}
            | {"reconstruction_psnr_db": psnr, "reconstruction_images": n},
            "shape": list(self.spec.latent_shape(self.config["image_size"])),
            "image_shape": [3, self.config["image_size"], self.config["image_size"]],
            "dtype": self.config["dtype"],
            "posterior": kind != "identity",
            "flip": self.config["flip"],
            "channel_mean": mean,
            "channel_std": std,
            "num_classes": len(self.source.class_names),
            "class_names": list(self.source.class_names),
            "splits": {
                split: {"count": sum(entry["count"] for entry in entries), "shards": entries}
                for split, entries in splits.items()
            },
        }

    def reconstruction(
        self, autoencoder: Autoencoder, entries: list[dict[str, Any]], device: str
    ) -> tuple[float | None, int]:
        """PSNR in dB (peak 255, over all pixels of the images together) of decoded posterior means, as
        stored; and n.
        """
        if autoencoder.module is None or not entries:
            return None, 0
        squared = elements = n = 0
        for entry in entries:
            shard = Shard(self.result / entry["file"])
            index = shard.integers("index")[: PSNR_IMAGES - n].tolist()
            for first in range(0, len(index), 64):
                chunk = index[first : first + 64]
                moments = shard.rows("moments", first, len(chunk), DTYPES[self.config["dtype"]]).float()
                decoded = to_uint8(autoencoder.decode(moments[:, : self.channels].to(device))).cpu()
                originals = [pixels for _, pixels in self.read(chunk, "validation")]
                images = torch.from_numpy(np.stack(originals)).permute(0, 3, 1, 2)
                squared += (decoded.double() - images.double()).square().sum().item()
                elements += images.numel()
            n += len(index)
        return round(10 * float(np.log10(255**2 * elements / max(squared, 1e-12))), 3), n


def _totals(moments: Iterable[Tensor], channels: int) -> dict[str, Any]:
    """Sums per channel over stored moments, in float64: count, sum of means, sum of squares, sum of
    variances.
    """
    count, first, second = 0, 0.0, 0.0
    for stored in moments:
        numbers = stored.double() / 127.5 - 1 if stored.dtype == torch.uint8 else stored.double()
        mean = numbers[:, :channels]
        variance = numbers[:, channels:].exp() if numbers.shape[1] > channels else torch.zeros_like(mean)
        count += mean[:, 0].numel()
        first = first + mean.sum(dim=(0, 2, 3))
        second = second + (mean.square() + variance).sum(dim=(0, 2, 3))
    assert isinstance(first, Tensor) and isinstance(second, Tensor), "no moments"
    return {"elements": count, "first": first.tolist(), "second": second.tolist()}


def _statistics(totals: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of posterior draws: var = E[mean^2] + E[posterior variance] -
    E[mean]^2.
    """
    elements = sum(part["elements"] for part in totals)
    first = np.sum([part["first"] for part in totals], axis=0) / elements
    second = np.sum([part["second"] for part in totals], axis=0) / elements
    std = np.sqrt(np.maximum(second - first**2, 0))
    return first.tolist(), np.where(std > 0, std, 1.0).tolist()  # a constant channel stays as it is


def _file_entry(root: Path, path: Path) -> dict[str, Any]:
    return {"file": str(path.relative_to(root)), "bytes": path.stat().st_size, "sha256": file_sha256(path)}


def _write_whole(path: Path, data: bytes) -> None:
    """Writes a file that is either absent or complete."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    with open(partial, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
