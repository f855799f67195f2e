"""Checkpoints that cannot be lost, torn or silently wrong.

A checkpoint is a directory ``images-<images_seen>/`` of one safetensors file per rank and a manifest with the size and
SHA-256 of each. It is written beside its final name, synced, and renamed: it exists whole or not at all. Loading
verifies every byte first. There is no pickle in it, so a checkpoint from a stranger can be wrong but cannot run code.

Saving copies the tensors at once and writes them in a thread, while training goes on; ranks agree there through a
process group of their own. Tensors sharded over ranks (DTensor, dimension 0) are stored as the local piece with its
offset, and are put together from whichever files hold the pieces: any number of ranks can read what any other number
wrote.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

from dit.errors import InputError, RunError
from dit.launch import PATIENCE, World

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
        """Whole (unsharded) tensors by name; all of them where ``names`` is None.

        Raises:
            KeyError: there is no tensor of that name.
        """
        tensors = self.tensors()
        return {name: tensors[name] for name in (tensors if names is None else names)}

    def tensors(self) -> "Tensors":
        """The whole tensors by name, each read when it is asked for: never all in memory at once.

        Raises:
            InputError: the files are as their manifest says, but hold no tensors: made by no trainer of ours.
        """
        try:
            return Tensors(self.directory, self.manifest["files"])
        except SafetensorError as error:
            raise InputError(
                str(self.directory), f"({error})", "a checkpoint of safetensors files, which run no code"
            ) from error


class Tensors(Mapping[str, torch.Tensor]):
    """The tensors of a checkpoint, put together from the pieces of its files.

    Args:
        directory: the checkpoint.
        files: names of its safetensors files.
    """

    def __init__(self, directory: Path, files: Iterable[str]) -> None:
        self._handles = [safe_open(directory / file, framework="pt") for file in files]
        self._pieces: dict[str, list[tuple[int, Any, str]]] = {}
        for handle in self._handles:
            for stored in handle.keys():  # noqa: SIM118 - not a dict
                name, offset = stored.rsplit(_SEPARATOR, 1)
                self._pieces.setdefault(name, []).append((int(offset), handle, stored))

    def __getitem__(self, name: str) -> torch.Tensor:
        found = sorted(self._pieces[name], key=lambda piece: piece[0])
        parts = [handle.get_tensor(stored) for _, handle, stored in found]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._pieces)

    def __len__(self) -> int:
        return len(self._pieces)


class CheckpointManager:
    """The checkpoints of one run.

    Args:
        directory: the run's ``checkpoints/`` folder; made where missing.
        keep_last: how many of the newest to keep; those saved with ``keep=True`` are never removed.
        world: this process and how many there are; every rank calls ``save``.
        may_write: asked before a checkpoint gets its name; False leaves it unnamed (another process owns the run).
    """

    def __init__(
        self,
        directory: Path,
        keep_last: int = 2,
        world: World = World(),  # noqa: B008 - frozen
        may_write: Callable[[], bool] = lambda: True,
    ) -> None:
        self.directory, self.keep_last, self.world, self.may_write = directory, keep_last, world, may_write
        self._group: Any = None
        if world.size > 1:
            self._group = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
        self._writer: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(
        self,
        tensors: Mapping[str, torch.Tensor],
        images_seen: int,
        facts: Mapping[str, Any],
        keep: bool = False,
    ) -> None:
        """Begins to write one checkpoint, unless a whole one of this clock reading exists already.

        The tensors may change once this returns; ``wait`` says when the checkpoint is on disk.

        Args:
            tensors: everything that must survive, by name; DTensors are stored as this rank's piece.
            images_seen: the clock.
            facts: what else goes into the manifest (JSON values).
            keep: never remove it.

        Raises:
            OSError: of the save before, which could not be written.
        """
        self.wait()
        final = self.directory / f"images-{images_seen:012d}"
        if self._agree(final.exists()):
            return
        pieces = _local_pieces(tensors, self.world.rank)
        manifest = {
            "format": FORMAT,
            "images_seen": images_seen,
            "world_size": self.world.size,
            "keep": keep,
            **facts,
        }
        self._writer = threading.Thread(target=self._write_safely, args=(pieces, manifest, final))
        self._writer.start()

    def wait(self) -> None:
        """Returns when the last save is on disk.

        Raises:
            OSError: it could not be written.
        """
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _write_safely(self, *arguments: Any) -> None:
        try:
            self._write(*arguments)
        except BaseException as error:  # raised again by wait, in the thread that trains
            self._error = error

    def _write(self, pieces: dict[str, torch.Tensor], manifest: dict[str, Any], final: Path) -> None:
        # A name of this process's own: two live copies of one job must not write into each other's folder.
        partial = final.with_name(f"{final.name}.{self._of_rank_0(_copy_name())}.tmp")
        self._together(lambda: partial.mkdir(parents=True), on_rank_0=True)
        file = partial / f"rank-{self.world.rank:05d}.safetensors"
        try:
            entries = self._together(lambda: _store(pieces, file))
            manifest["files"] = {name: value for entry in entries for name, value in entry.items()}
            self._together(lambda: self._name(partial, final, manifest), on_rank_0=True)
        finally:
            if self.world.rank == 0:
                shutil.rmtree(partial, ignore_errors=True)  # it has another name by now, unless that failed

    def _together(self, act: Callable[[], Any], on_rank_0: bool = False) -> list[Any]:
        """What each rank's ``act`` returns, or rank 0's alone; what fails on one (a full disk) is raised on all."""
        value, error = None, None
        try:
            if self.world.rank == 0 or not on_rank_0:
                value = act()
        except OSError as found:
            error = str(found)
        answers = self._gather((value, error))
        for _, found in answers:
            if found is not None:
                raise OSError(f"a checkpoint could not be written: {found}")
        return [value for value, _ in answers]

    def _name(self, partial: Path, final: Path, manifest: dict[str, Any]) -> None:
        """Writes the manifest and gives the checkpoint its name: from here on it exists."""
        text = json.dumps(manifest, indent=1, sort_keys=True)
        seal = hashlib.sha256(text.encode()).hexdigest()
        (partial / "manifest.json").write_text(text + "\n" + seal + "\n")
        _sync(partial / "manifest.json")
        _sync(partial)
        if not self.may_write():
            return
        os.rename(partial, final)
        _sync(self.directory)
        self._remove_old()

    def _gather(self, value: Any) -> list[Any]:
        if self._group is None:
            return [value]
        values: list[Any] = [None] * self.world.size
        torch.distributed.all_gather_object(values, value, group=self._group)
        return values

    def _of_rank_0(self, value: Any) -> Any:
        return self._gather(value)[0]

    def _agree(self, exists: bool) -> bool:
        """What rank 0 sees: on a network file system the others may see it later."""
        return self._of_rank_0(exists)

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint whose every byte is as written; None where there is none at all.

        Damaged ones that are newer are set aside as ``*.damaged``, so that training can write them anew. Rank 0
        verifies, and all ranks get what it found.

        Raises:
            CheckpointError: there are checkpoints, and all of them are damaged.
        """
        self.wait()
        found, error = None, None
        if self.world.rank == 0:
            try:
                found = self._latest()
            except CheckpointError as raised:
                error = raised
        found, error = self._of_rank_0((found, error))
        if error is not None:
            raise error
        return found

    def tidy(self) -> None:
        """Removes what a kill in the middle of a save left behind; for the process that owns the run."""
        if self.world.rank == 0:
            for torn in self.directory.glob("images-*.tmp"):
                shutil.rmtree(torn, ignore_errors=True)
            self._remove_old()

    def _latest(self) -> Checkpoint | None:
        damaged: list[tuple[Path, CheckpointError]] = []
        for directory in reversed(self.directories()):
            try:
                good = open_checkpoint(directory)
            except CheckpointError as error:
                log.warning("%s; trying the one before", error)
                damaged.append((directory, error))
                continue
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
                    # it loses its name first: a kill amid its files leaves nothing that looks like a damaged one
                    shutil.rmtree(directory.rename(f"{directory}.tmp"))
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
    """Copies of what this rank stores: its shards of DTensors, and on rank 0 everything that is not sharded."""
    pieces = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, DTensor):
            local = tensor.to_local()
            if local.numel() and _is_first_copy(tensor):
                pieces[f"{name}{_SEPARATOR}{_offset(tensor)}"] = (
                    local.detach().to("cpu", copy=True).contiguous()
                )
        elif rank == 0:
            pieces[f"{name}{_SEPARATOR}0"] = tensor.detach().to("cpu", copy=True).contiguous()
    return pieces


def _is_first_copy(tensor: DTensor) -> bool:
    """Whether, of the ranks that hold the same piece, this one comes first."""
    coordinate = tensor.device_mesh.get_coordinate()
    assert coordinate is not None, "a rank of the mesh"
    return all(
        place == 0 for place, part in zip(coordinate, tensor.placements, strict=True) if part.is_replicate()
    )


def _offset(tensor: DTensor) -> int:
    """Where this rank's rows begin in the whole tensor (sharding on dimension 0, as FSDP2 does)."""
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    _, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    assert not any(offset[1:]), "only dimension 0 is sharded"
    return offset[0] if offset else 0


def _store(pieces: dict[str, torch.Tensor], file: Path) -> dict[str, Any]:
    """Writes one file; its entry in the manifest."""
    save_file(pieces, file)
    file.chmod(0o644)  # safetensors keeps its files to the user
    _sync(file)
    return {file.name: {"bytes": file.stat().st_size, "sha256": _digest(file)}}


def _digest(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy_name() -> str:
    """Names this process among all that may write to a run."""
    return f"{socket.gethostname()}-{os.getpid()}"
