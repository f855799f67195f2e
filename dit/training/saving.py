"""The checkpoints of a run: when they are written, found again, kept and removed.

Saving copies the tensors at once and writes them in a thread, while training goes on; ranks agree there through a
process group of their own.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from dit.errors import InputError, RunError
from dit.files import sync
from dit.launch import PATIENCE, World
from dit.training.checkpoint import (
    FORMAT,
    Checkpoint,
    CheckpointError,
    folder,
    local_pieces,
    open_checkpoint,
    read_manifest,
    store,
)

log = logging.getLogger("dit")

_NAME = re.compile(r"images-(\d+)")


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
        self._damaged: list[Path] = []  # found by ``latest``, with a good one before them

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
            RunError: the save before could not be written.
        """
        self.wait()
        final = self.directory / folder(images_seen)
        if self._agree(final.exists()):
            return
        pieces = local_pieces(tensors, self.world.rank)
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
            RunError: it could not be written.
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
        if not self._of_rank_0(self.may_write()):
            return  # nor makes the directory again that somebody has removed
        partial = final.with_name(f"{final.name}.{self._of_rank_0(_copy_name())}.tmp")
        self._together(lambda: partial.mkdir(parents=True), on_rank_0=True)
        file = partial / f"rank-{self.world.rank:05d}.safetensors"
        try:
            entries = self._together(lambda: store(pieces, file))
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
                raise RunError(f"a checkpoint could not be written: {found}")
        return [value for value, _ in answers]

    def _name(self, partial: Path, final: Path, manifest: dict[str, Any]) -> None:
        """Writes the manifest and gives the checkpoint its name: from here on it exists."""
        text = json.dumps(manifest, indent=1, sort_keys=True)
        seal = hashlib.sha256(text.encode()).hexdigest()
        (partial / "manifest.json").write_text(text + "\n" + seal + "\n")
        sync(partial / "manifest.json")
        sync(partial)
        if not self.may_write():
            return
        os.rename(partial, final)
        sync(self.directory)
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

        Says which newer ones are damaged; ``tidy`` sets them aside. Rank 0 verifies, and all ranks get what it found.

        Raises:
            CheckpointError: there are checkpoints, and all of them are damaged.
        """
        self.wait()
        found, error = None, None
        if self.world.rank == 0:
            try:
                found = self._latest()
            except (CheckpointError, InputError) as raised:
                error = raised
        found, error = self._of_rank_0((found, error))
        if error is not None:
            raise error
        return found

    def tidy(self) -> None:
        """Removes what a kill in the middle of a save left behind; for the process that owns the run.

        What ``latest`` found damaged becomes ``*.damaged``, so that training can write it anew.
        """
        if self.world.rank == 0:
            for path in self._damaged:
                shutil.rmtree(f"{path}.damaged", ignore_errors=True)
                path.rename(f"{path}.damaged")
            self._damaged = []
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
            self._damaged = [path for path, _ in damaged]
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
                if not read_manifest(directory)["keep"]:
                    # it loses its name first: a kill amid its files leaves nothing that looks like a damaged one
                    shutil.rmtree(directory.rename(f"{directory}.tmp"))
            except CheckpointError as error:
                log.warning("%s", error)


def _copy_name() -> str:
    """Names this process among all that may write to a run."""
    return f"{socket.gethostname()}-{os.getpid()}"
