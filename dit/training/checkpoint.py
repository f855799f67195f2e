"""Checkpoints that cannot be lost, torn or silently wrong.

A checkpoint is a directory ``images-<images_seen>/`` of one safetensors file per rank and a manifest with the size and
SHA-256 of each. It is written beside its final name, synced, and renamed: it exists whole or not at all. Loading
verifies every byte first. There is no pickle in it, so a checkpoint from a stranger can be wrong but cannot run code.

Tensors sharded over ranks (DTensor, dimension 0) are stored as the local piece with its offset, and are put together
from whichever files hold the pieces: any number of ranks can read what any other number wrote.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

from dit.errors import RunError

log = logging.getLogger("dit")

FORMAT = 1
_NAME = re.compile(r"images-(\d+)")
_SEPARATOR = "|"


class CheckpointError(RunError):
    """A checkpoint is damaged; the message names the file."""


@dataclass(frozen=True)
class Checkpoint:
    """One verified checkpoint on disk.

    Attributes:
        directory: where it lies.
        manifest: ``images_seen``, ``step``, ``world_size``, ``config_hash``, ``files`` and what the run added.
    """

    directory: Path
    manifest: Mapping[str, Any]

    @property
    def images_seen(self) -> int:
        return int(self.manifest["images_seen"])

    def read(self, names: Iterable[str] | None = None) -> dict[str, torch.Tensor]:
        """Whole (unsharded) tensors by name; all of them where ``names`` is None."""
        try:
            return self._read(names)
        except SafetensorError as error:  # the hashes agree, so it was made this way: by no trainer of ours
            raise CheckpointError(
                f"{self.directory} holds a file that is no safetensors file: {error}"
            ) from error

    def _read(self, names: Iterable[str] | None) -> dict[str, torch.Tensor]:
        pieces: dict[str, list[tuple[int, Path, str]]] = {}
        for file in self.manifest["files"]:
            with safe_open(self.directory / file, framework="pt") as handle:
                for stored in handle.keys():  # noqa: SIM118 - not a dict
                    name, offset = stored.rsplit(_SEPARATOR, 1)
                    pieces.setdefault(name, []).append((int(offset), self.directory / file, stored))
        wanted = pieces if names is None else {name: pieces[name] for name in names}
        return {name: _join(found) for name, found in wanted.items()}


class CheckpointManager:
    """The checkpoints of one run.

    Args:
        directory: the run's ``checkpoints/`` folder; made where missing.
        keep_last: how many of the newest to keep; those saved with ``keep=True`` are never removed.
        rank, world_size: this process and how many there are; every rank calls ``save``.
    """

    def __init__(self, directory: Path, keep_last: int = 2, rank: int = 0, world_size: int = 1) -> None:
        self.directory, self.keep_last, self.rank, self.world_size = directory, keep_last, rank, world_size

    def save(
        self,
        tensors: Mapping[str, torch.Tensor],
        images_seen: int,
        facts: Mapping[str, Any],
        keep: bool = False,
    ) -> None:
        """Writes one checkpoint, unless a whole one of this clock reading exists already.

        Args:
            tensors: everything that must survive, by name; DTensors are stored as this rank's piece.
            images_seen: the clock.
            facts: what else goes into the manifest (JSON values).
            keep: never remove it.
        """
        final = self.directory / f"images-{images_seen:012d}"
        if final.exists():
            return
        partial = final.with_name(f"{final.name}.tmp")
        if self.rank == 0:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        _barrier(self.world_size)
        file = partial / f"rank-{self.rank:05d}.safetensors"
        save_file(_local_pieces(tensors, self.rank), file)
        entry = {file.name: {"bytes": file.stat().st_size, "sha256": _digest(file)}}
        _sync(file)
        entries = _gather(entry, self.world_size)
        if self.rank == 0:
            manifest = {
                "format": FORMAT,
                "images_seen": images_seen,
                "world_size": self.world_size,
                "keep": keep,
                **facts,
                "files": {name: value for part in entries for name, value in part.items()},
            }
            text = json.dumps(manifest, indent=1, sort_keys=True)
            seal = hashlib.sha256(text.encode()).hexdigest()
            (partial / "manifest.json").write_text(text + "\n" + seal + "\n")
            _sync(partial / "manifest.json")
            _sync(partial)
            os.rename(partial, final)
            _sync(self.directory)
            self._remove_old()
        _barrier(self.world_size)

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint whose every byte is as written; None where there is none at all.

        Damaged ones that are newer are set aside as ``*.damaged``, so that training can write them anew.

        Raises:
            CheckpointError: there are checkpoints, and all of them are damaged.
        """
        damaged: list[tuple[Path, CheckpointError]] = []
        for directory in reversed(self.directories()):
            try:
                good = open_checkpoint(directory)
            except CheckpointError as error:
                log.warning("%s; trying the one before", error)
                damaged.append((directory, error))
                continue
            if self.rank == 0:
                for path, _ in damaged:
                    shutil.rmtree(f"{path}.damaged", ignore_errors=True)
                    path.rename(f"{path}.damaged")
            return good
        if damaged:
            raise CheckpointError(f"{damaged[0][1]}; no good checkpoint is left in {self.directory}")
        return None

    def directories(self) -> list[Path]:
        """The checkpoint folders, oldest first."""
        if not self.directory.is_dir():
            return []
        return sorted(path for path in self.directory.iterdir() if _NAME.fullmatch(path.name))

    def _remove_old(self) -> None:
        """Removes all but the newest ``keep_last`` and the kept ones; one that cannot be read is left alone."""
        for directory in self.directories()[: -self.keep_last]:
            try:
                if not _read_manifest(directory)["keep"]:
                    shutil.rmtree(directory)
            except CheckpointError as error:
                log.warning("%s", error)


def open_checkpoint(directory: Path) -> Checkpoint:
    """A checkpoint after verifying its manifest and the size and hash of every file.

    Raises:
        CheckpointError: something is missing or not as written; the message names the file.
    """
    manifest = _read_manifest(directory)
    for name, expected in manifest["files"].items():
        file = directory / name
        if not file.is_file():
            raise CheckpointError(f"{file} is missing")
        if file.stat().st_size != expected["bytes"]:
            raise CheckpointError(f"{file} has {file.stat().st_size} bytes, {expected['bytes']} were written")
        if _digest(file) != expected["sha256"]:
            raise CheckpointError(f"{file} is corrupted: its SHA-256 is not the one in the manifest")
    return Checkpoint(directory, manifest)


def _read_manifest(directory: Path) -> dict[str, Any]:
    file = directory / "manifest.json"
    try:
        text, seal = file.read_text().rstrip("\n").rsplit("\n", 1)
    except (OSError, ValueError) as error:  # ValueError: torn (no second line) or no longer text
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    if hashlib.sha256(text.encode()).hexdigest() != seal:
        raise CheckpointError(f"{file} is corrupted: its seal does not match")
    return json.loads(text)


def _local_pieces(tensors: Mapping[str, torch.Tensor], rank: int) -> dict[str, torch.Tensor]:
    """What this rank stores: its shards of DTensors, and on rank 0 everything that is not sharded."""
    pieces = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, DTensor):
            local = tensor.to_local()
            if local.numel():
                pieces[f"{name}{_SEPARATOR}{_offset(tensor)}"] = local.detach().cpu().contiguous()
        elif rank == 0:
            # safetensors refuses tensors that share memory; a clone is cheap beside the write
            pieces[f"{name}{_SEPARATOR}0"] = tensor.detach().cpu().contiguous().clone()
    return pieces


def _offset(tensor: DTensor) -> int:
    """Where this rank's rows begin in the whole tensor (sharding on dimension 0, as FSDP2 does)."""
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    _, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    assert not any(offset[1:]), "only dimension 0 is sharded"
    return offset[0] if offset else 0


def _join(found: list[tuple[int, Path, str]]) -> torch.Tensor:
    parts = []
    for _, file, stored in sorted(found):
        with safe_open(file, framework="pt") as handle:
            parts.append(handle.get_tensor(stored))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _digest(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _barrier(world_size: int) -> None:
    if world_size > 1:
        torch.distributed.barrier()


def _gather(value: dict[str, Any], world_size: int) -> list[dict[str, Any]]:
    if world_size == 1:
        return [value]
    values: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(values, value)
    return values
