"""The unfinished latent directory: blocks of consecutive images, each written whole or not at all.

B batch, C H W latent, K stored channels (2C where there is a posterior, else C).
"""

import hashlib
import json
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dit.condition import Classes
from dit.data.autoencoder import AutoencoderSpec, Progress, files_sha256, silent
from dit.data.codec import Autoencoder, to_uint8
from dit.data.conditions.base import Captions, Conditions
from dit.data.images import Source, UnreadableImage, check_bad
from dit.data.latents import DTYPES, Shard
from dit.data.manifest import canonical, columns_of, file_sha256, write_manifest
from dit.data.schema import FORMAT
from dit.data.shards import ShardWriter, statistics, write_safetensors
from dit.data.split import Chooser
from dit.domain import Domain
from dit.errors import InputError
from dit.files import whole

SPLITS = ("train", "validation")
PSNR_IMAGES = 512  # reconstruction is measured on at most this many held-out images
CHUNK = 16  # images that a decoding thread takes at a time


class Loaded(NamedTuple):
    """One image of the source, or the reason why it cannot be read."""

    index: int
    held_out: bool
    content: bytes
    pixels: np.ndarray | None
    reason: str


@dataclass(frozen=True)
class Work:
    """``<directory>.tmp-<hash>``, shared by all processes that make one latent directory.

    Args:
        folder: holds ``result`` (what will be renamed), ``blocks`` (a record per finished block),
            ``scratch``.
        config: what the latents are a function of.
        name: of the data.
        source: the images.
        autoencoder: its spec.
        held_out: which images are validation images.
        domain: what one latent is.
        condition: what shards hold for networks to be told.
        captions: the texts that are part of it; None where there are none.
    """

    folder: Path
    config: dict[str, Any]
    name: str
    source: Source
    autoencoder: AutoencoderSpec
    held_out: Chooser
    domain: Domain
    condition: Conditions
    captions: Captions | None

    def make_folders(self) -> None:
        """Makes the folders; fails where nothing can be written."""
        for folder in (self.result, self.scratch, self.folder / "blocks"):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                got = f"{folder} ({error.strerror})"
                raise InputError("data.directory", got, "a place that can be written") from error

    @property
    def result(self) -> Path:
        """What will be renamed to the latent directory."""
        return self.folder / "result"

    @property
    def scratch(self) -> Path:
        """Unfinished files."""
        return self.folder / "scratch"

    @property
    def n_blocks(self) -> int:
        """How many blocks the source has."""
        return -(-len(self.source) // self.config["shard_images"])

    @property
    def image_size(self) -> int | None:
        """Pixels per side; None where the source gives arrays."""
        return self.config.get("image_size")

    def block(self, number: int) -> range:
        """The images of one block."""
        size = self.config["shard_images"]
        return range(number * size, min(len(self.source), (number + 1) * size))

    def record_path(self, number: int) -> Path:
        """The record of a finished block."""
        return self.folder / "blocks" / f"{number:05d}.json"

    def record(self, number: int) -> dict[str, Any] | None:
        """What a finished block holds; None where it is not finished."""
        path = self.record_path(number)
        return json.loads(path.read_bytes()) if path.is_file() else None

    def open_autoencoder(self, device: str, progress: Progress = silent) -> Autoencoder:
        """The working autoencoder; trained first, if need be."""
        folder = self.result / "autoencoder"
        return self.autoencoder.obtain(folder, self.scratch, self._training_images, progress).to(device)

    def _training_images(self) -> Iterator[Tensor]:
        for loaded in self.load(range(len(self.source)), 0):
            if loaded.pixels is not None and not loaded.held_out:
                yield torch.from_numpy(loaded.pixels).permute(2, 0, 1)[None]

    def load(self, indices: Iterable[int], threads: int) -> Iterator[Loaded]:
        """Reads and decodes images, in order; ``threads`` decode ahead (0: none)."""
        if threads == 0:
            yield from map(self._load, indices)
            return
        positions = list(indices)
        pending: deque[Future[list[Loaded]]] = deque()
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, len(positions), CHUNK):
                chunk = positions[start : start + CHUNK]
                pending.append(pool.submit(lambda chunk: [*map(self._load, chunk)], chunk))
                if len(pending) > 2 * threads:
                    yield from pending.popleft().result()
            for future in pending:
                yield from future.result()

    def _load(self, index: int) -> Loaded:
        try:
            content = self.source.content(index)
        except UnreadableImage as error:
            return Loaded(index, False, b"", None, str(error))
        held_out = self.held_out(index, content)
        try:
            pixels = self.source.pixels(content, self.image_size)
        except UnreadableImage as error:
            return Loaded(index, held_out, content, None, str(error))
        return Loaded(index, held_out, content, pixels, "")

    def encode_block(
        self, number: int, autoencoder: Autoencoder, batch_size: int, device: str, threads: int
    ) -> Iterator[int]:
        """Writes one block; yields the number of images read so far, now and then."""
        dtype, flip = DTYPES[self.config["dtype"]], self.config["flip"]
        writers = {
            split: ShardWriter(autoencoder, self.domain, dtype, flip, batch_size, device) for split in SPLITS
        }
        digest, bad, read = hashlib.sha256(), [], 0
        for loaded in self.load(self.block(number), threads):
            digest.update(loaded.content)
            if loaded.pixels is None:
                name = self.source.describe(loaded.index)
                bad.append({"index": loaded.index, "name": name, "why": loaded.reason})
            else:
                writers[SPLITS[loaded.held_out]].add(loaded.index, loaded.pixels)
            read += 1
            if read % batch_size == 0:
                yield read
        record = {split: self._write_shard(writer, split, number) for split, writer in writers.items()}
        with whole(self.record_path(number), self.scratch) as partial:
            partial.write_bytes(canonical(record | {"bad": bad, "content_sha256": digest.hexdigest()}))
        yield read

    def _write_shard(self, writer: ShardWriter, split: str, number: int) -> dict[str, Any] | None:
        if not writer.index:
            return None
        writer.flush()
        posterior = writer.parts["moments"][0].shape[1] > self.domain.channels
        label = torch.tensor([self.source.label(index) for index in writer.index])
        path = self.result / f"{split}-{number:05d}.safetensors"
        columns = writer.parts | {"label": [label], "index": [torch.tensor(writer.index)]}
        columns |= self.captions.columns(writer.index) if self.captions else {}
        with whole(path, self.scratch) as partial:
            size, digest = write_safetensors(partial, columns)
        entry = {"file": path.name, "count": len(label), "bytes": size, "sha256": digest}
        return entry | {"totals": writer.totals.as_dict(), "posterior": posterior}

    def finish(self, device: str, allow_bad: int, normalise: str) -> None:
        """Writes the manifest, once all blocks are there."""
        records = [self.record(number) for number in range(self.n_blocks)]
        assert all(records), "all blocks are finished"
        complete = [record for record in records if record]
        bad = [item for record in complete for item in record["bad"]]
        check_bad(bad, allow_bad)
        splits = {split: [record[split] for record in complete if record[split]] for split in SPLITS}
        if not splits["train"]:
            got = f"(all {len(self.source)} images held out or skipped)"
            remedy = "Lower data.split.fraction; copies of an image are held out together."
            raise InputError("data.split", got, "at least one training image", remedy)
        entries = [_file_entry(self.result, path) for path in sorted((self.result / "autoencoder").glob("*"))]
        autoencoder = self.open_autoencoder(device)
        if normalise == "channel":
            mean, std = statistics([entry["totals"] for entry in splits["train"]])
        else:  # of tokens 0 and 1: the identity states no others
            mean, std = autoencoder.own_statistics(self.domain.channels)
        psnr, n = self._reconstruction(autoencoder, splits["validation"], device)
        digests = "".join(record["content_sha256"] for record in complete)
        content = {"content_sha256": hashlib.sha256(digests.encode()).hexdigest()}
        manifest = {
            "format": FORMAT,
            "name": self.name,
            "config": self.config,
            "source": self.config["source"] | content,
            "skipped": bad,
            "autoencoder": self.config["autoencoder"]
            | {"files": entries, "sha256": files_sha256(entries)}
            | {"reconstruction_psnr_db": psnr, "reconstruction_images": n},
            "shape": list(self.domain.shape),
            "dtype": self.config["dtype"],
            "posterior": splits["train"][0]["posterior"],
            "flip": self.config["flip"],
            "channel_mean": mean,
            "channel_std": std,
            "num_classes": len(self.source.class_names),
            "class_names": list(self.source.class_names),
            "splits": {split: _split_entry(shards) for split, shards in splits.items()},
        }
        if self.image_size is not None:
            manifest["image_shape"] = [3, self.image_size, self.image_size]
        if self.domain.vocabulary:
            manifest["vocabulary"] = self.domain.vocabulary
            manifest["tokens_are_levels"] = getattr(self.source, "tokens_are_levels", False)
        if self.condition != Conditions():
            manifest["columns"] = columns_of(self.condition.kind(Classes(manifest["num_classes"])))
        if empty := self._empty_classes(splits["train"]):
            manifest["empty_classes"] = empty
        write_manifest(self.result, self.scratch, manifest)

    def _empty_classes(self, shards: list[dict[str, Any]]) -> list[int]:
        """Classes without a training image: nobody has learnt them."""
        seen = {
            label
            for shard in shards
            for label in Shard(self.result / shard["file"]).integers("label").tolist()
        }
        return sorted(set(range(len(self.source.class_names))) - seen)

    def _reconstruction(
        self, autoencoder: Autoencoder, shards: list[dict[str, Any]], device: str
    ) -> tuple[float | None, int]:
        """PSNR in dB (peak 255, over all pixels together) of decoded posterior means as stored, and of how
        many images.
        """
        if autoencoder.module is None or not shards:
            return None, 0
        squared = elements = n = 0
        for entry in shards:
            shard = Shard(self.result / entry["file"])
            index = shard.integers("index")[: PSNR_IMAGES - n].tolist()
            for first in range(0, len(index), 32):
                chunk = index[first : first + 32]
                moments = shard.rows("moments", first, len(chunk), DTYPES[self.config["dtype"]]).float()
                decoded = to_uint8(autoencoder.decode(moments[:, : self.domain.channels].to(device))).cpu()
                originals = [loaded.pixels for loaded in self.load(chunk, 0) if loaded.pixels is not None]
                images = torch.from_numpy(np.stack(originals)).permute(0, 3, 1, 2)
                squared += (decoded.double() - images.double()).square().sum().item()
                elements += images.numel()
            n += len(index)
        return round(10 * float(np.log10(255**2 * elements / max(squared, 1e-12))), 3), n

    def remove(self) -> None:
        """Removes what is left after the rename."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _split_entry(shards: list[dict[str, Any]]) -> dict[str, Any]:
    listed = [{key: shard[key] for key in ("file", "count", "bytes", "sha256")} for shard in shards]
    return {"count": sum(shard["count"] for shard in shards), "shards": listed}


def _file_entry(root: Path, path: Path) -> dict[str, Any]:
    name = path.relative_to(root).as_posix()
    return {"file": name, "bytes": path.stat().st_size, "sha256": file_sha256(path)}
