"""Checkpoints that cannot be lost, torn or silently wrong.

A checkpoint is a directory ``images-<images_seen>/`` of one safetensors file per rank and a manifest with the size and
SHA-256 of each. It is written beside its final name, synced, and renamed: it exists whole or not at all. Loading
verifies every byte first. There is no pickle in it, so a checkpoint from a stranger can be wrong but cannot run code.

Tensors sharded over ranks (DTensor, dimension 0) are stored as the local piece with its
offset, and are put together from whichever files hold the pieces: any number of ranks can read what any other number
wrote.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

from dit.errors import InputError, RunError
from dit.files import sync
from dit.trust import INTEGER, NULL, OBJECT, TEXT, check_fields, parse

FORMAT = 1
NEEDS = {"images_seen": INTEGER, "files": OBJECT}  # of a manifest
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

    @property
    def n_bytes(self) -> int:
        """Bytes of all its files."""
        return sum(int(entry["bytes"]) for entry in self.manifest["files"].values())

    def check_run(self, config_hash: str | None) -> None:
        """Raises InputError where it is another run's: copied here, or of another configuration."""
        found = self.manifest.get("config_hash")
        if None not in (found, config_hash) and found != config_hash:
            allowed = f"a checkpoint of this run, whose configuration's hash is {config_hash}"
            remedy = "Remove it; to begin from another run's checkpoint, use branch_from."
            raise InputError(str(self.directory), f"(a checkpoint of the run {found})", allowed, remedy)

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
        except (SafetensorError, ValueError) as error:  # ValueError: tensors of other names
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


def folder(images_seen: int) -> str:
    """The name of the checkpoint of a clock."""
    return f"images-{images_seen:012d}"


def clock(directory: Path) -> int:
    """The clock in the name of a checkpoint."""
    return int(directory.name.removeprefix("images-"))


def open_checkpoint(directory: Path) -> Checkpoint:
    """A checkpoint after verifying its manifest, that the name is its own, and the size and hash of every file.

    Raises:
        CheckpointError: something is missing or not as written; the message names the file.
    """
    manifest = read_manifest(directory)
    if directory.name.startswith("images-") and directory.name != folder(manifest["images_seen"]):
        raise CheckpointError(f"{directory / 'manifest.json'} belongs to {folder(manifest['images_seen'])}")
    for name, expected in manifest["files"].items():
        file = directory / name
        if not file.is_file():
            raise CheckpointError(f"{file} is missing")
        if Path(name).name != name or file.is_symlink():
            raise InputError(f"{directory / 'manifest.json'}: files", name, "files of the checkpoint itself")
        try:
            size, digest = file.stat().st_size, _digest(file)
        except OSError as error:  # a disk that fails, or a file of another user
            raise CheckpointError(f"{file} cannot be read: {error}") from error
        if size != expected["bytes"]:
            raise CheckpointError(f"{file} has {size} bytes, {expected['bytes']} were written")
        if digest != expected["sha256"]:
            raise CheckpointError(f"{file} is corrupted: its SHA-256 is not the one in the manifest")
    return Checkpoint(directory, manifest)


def read_manifest(directory: Path) -> dict[str, Any]:
    """What a checkpoint's manifest says, once its seal is found whole.

    Raises:
        CheckpointError: it is not as written.
        InputError: it was written so, but not by this trainer.
    """
    file = directory / "manifest.json"
    try:
        text, seal = file.read_text().rstrip("\n").rsplit("\n", 1)
    except (OSError, ValueError) as error:  # ValueError: torn (no second line) or no longer text
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    if hashlib.sha256(text.encode()).hexdigest() != seal:
        raise CheckpointError(f"{file} is corrupted: its seal does not match")
    manifest = parse(text, str(file))
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(str(file), f"({text[:40]} ...)", f"a checkpoint of format {FORMAT}")
    check_fields(str(file), manifest, NEEDS, {"config_hash": (str, NULL), "keep": (bool,)})
    for name, entry in manifest["files"].items():
        where = f"{file}: files.{name}"
        if not isinstance(entry, dict):
            raise InputError(where, entry, "an object")
        check_fields(where, entry, {"bytes": INTEGER, "sha256": TEXT})
    return manifest


def local_pieces(tensors: Mapping[str, torch.Tensor], rank: int) -> dict[str, torch.Tensor]:
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


def store(pieces: dict[str, torch.Tensor], file: Path) -> dict[str, Any]:
    """Writes one file; its entry in the manifest.

    Raises:
        OSError: the disk is full, say.
    """
    try:
        save_file(pieces, file)
    except SafetensorError as error:  # its name for what the disk refuses
        raise OSError(str(error)) from error
    file.chmod(0o644)  # safetensors keeps its files to the user
    sync(file)
    return {file.name: {"bytes": file.stat().st_size, "sha256": _digest(file)}}


def _digest(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
