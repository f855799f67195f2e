"""Images to a latent directory: by any number of processes, restartable at any point.

The source is cut into blocks of consecutive images; process r of w encodes blocks r, r + w, ... Each block
is written whole or not at all, so a killed process redoes at most one block, and what a block holds does
not depend on who wrote it. Whoever finds all blocks there writes the manifest and renames the result into
place.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dit.data.autoencoder import AutoencoderSpec, Progress, latent_domain, silent
from dit.data.autoencoder_training import fixed_threads
from dit.data.blocks import Work
from dit.data.conditions.base import Captions, Conditions
from dit.data.images import Source
from dit.data.manifest import Manifest, canonical, check_settings
from dit.data.origin import begin, check_origin
from dit.data.schema import FORMAT
from dit.data.split import ByContent, ByDocument, Stratified, StratifiedShare
from dit.domain import Domain
from dit.errors import InputError, check_choice, check_number
from dit.launch import World

# Fixed, so that the latents do not depend on the caller's setting; more processes use more cores.
ENCODING_THREADS = 1


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
    split: ByContent | ByDocument | Stratified | StratifiedShare,
    *,
    name: str,
    condition: Conditions = Conditions(),  # noqa: B008 - frozen
    image_size: int | None = None,
    flip: bool = False,
    dtype: str = "float32",
    normalise: str = "channel",
    batch_size: int = 64,
    shard_images: int = 4096,
    allow_bad: int = 0,
    device: str = "cpu",
    decode_threads: int = 0,
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
        condition: what is stored of each sample for networks to be told: its class, its caption.
        image_size: pixels per side of pictures; None for arrays.
        flip: store the mirrored image too, as an entry of its own.
        dtype: storage of the moments, float32 or bfloat16; pixels (identity) are always stored as uint8, arrays as
            float32, tokens as the smallest integers that hold them.
        normalise: ``channel``: latents are brought to zero mean and unit variance per channel, measured
            over the training split. ``autoencoder``: by the autoencoder's own ``shift_factor`` and
            ``scaling_factor``, as published checkpoints expect. ``none``, of tokens: they are as they are.
        batch_size: images per call of the autoencoder.
        shard_images: images per block of the source.
        allow_bad: how many unreadable images may be skipped; they are listed in the manifest.
        device: where the autoencoder runs.
        decode_threads: threads that read and decode images ahead; 0 decodes between the autoencoder's calls.
        rank: this process, of
        world_size: processes that share the work.
        progress: told after every batch.

    Raises:
        InputError: the directory holds something else, or the same data made another way, or of images that have
            changed since; images cannot be read; a caption is missing.
    """
    counts = {"batch_size": batch_size, "shard_images": shard_images}
    _check_settings(dtype, flip, counts, {"allow_bad": allow_bad, "decode_threads": decode_threads})
    check_number("world_size", world_size, low=1, integer=True)
    check_number("rank", rank, low=0, below=world_size, integer=True)
    domain = latent_domain(autoencoder, source, image_size)  # raises where the size does not fit
    check_choice("data.normalise", normalise, ("none",) if domain.vocabulary else ("channel", "autoencoder"))
    if image_size is None:
        _check_array_settings(flip, dtype)
    directory = Path(directory)
    if _is_foreign(directory):
        allowed = "an absent or empty directory, or latents"
        raise InputError("data.directory", str(directory), allowed, "Choose another directory.")
    config = {
        "format": FORMAT,
        "source": source.identity(),
        **({} if image_size is None else {"image_size": image_size}),
        "autoencoder": autoencoder.config,
        "split": split.config,
        "flip": flip,
        "dtype": _stored_as(domain)
        or ("uint8" if autoencoder.config["kind"] == "identity" and image_size is not None else dtype),
        "normalise": normalise,
        "shard_images": shard_images,
    }
    captions = Captions(source, condition.text, device, batch_size) if condition.text else None
    if condition.config is not None:
        config["condition"] = condition.config
    if captions is not None:
        config["texts"] = captions.identity
    if _already_there(directory, {"condition": None, **config}):
        check_origin(directory, source)
        return Encoded(directory, True, 0, False)
    digest = hashlib.sha256(canonical(config)).hexdigest()
    folder = directory.with_name(f"{directory.name}.tmp-{digest[:12]}")
    work = Work(folder, config, name, source, autoencoder, split.chooser(source), domain, condition, captions)
    work.make_folders()
    begin(folder, source)
    with fixed_threads(ENCODING_THREADS):
        _encode_share(work, rank, world_size, batch_size, device, decode_threads, progress)
        missing = sum(work.record(number) is None for number in range(work.n_blocks))
        if not missing:
            _finish(work, directory, device, allow_bad)
    return Encoded(directory, not missing, missing, True)


def _check_settings(dtype: str, flip: bool, counts: dict[str, int], from_zero: dict[str, int]) -> None:
    """Raises InputError unless the settings are possible; ``counts`` are at least 1."""
    check_choice("data.dtype", dtype, ("float32", "bfloat16"))
    check_choice("data.flip", flip, (True, False))
    for low, numbers in ((1, counts), (0, from_zero)):
        for key, value in numbers.items():
            check_number(f"data.{key}", value, low=low, integer=True)


def _stored_as(domain: Domain) -> str | None:
    """The smallest integers that hold the tokens of a domain; None where it has none."""
    sizes = {"uint8": 2**8, "uint16": 2**16, "int32": 2**31}
    return next(name for name, n in sizes.items() if domain.vocabulary <= n) if domain.vocabulary else None


def _check_array_settings(flip: bool, dtype: str) -> None:
    for key, value, only in (("flip", flip, False), ("dtype", dtype, "float32")):
        if value != only:
            raise InputError(f"data.{key}", value, f"{only}, for arrays")


def _encode_share(
    work: Work, rank: int, world_size: int, batch_size: int, device: str, threads: int, progress: Progress
) -> None:
    """Encodes the missing blocks of one process. Blocks with unreadable images are tried again."""
    mine = [number for number in range(rank, work.n_blocks, world_size)]
    todo = [number for number in mine if (record := work.record(number)) is None or record["bad"]]
    if not todo:
        return
    autoencoder = work.open_autoencoder(device, progress)
    done, total = 0, sum(len(work.block(number)) for number in todo)
    for number in todo:
        for read in work.encode_block(number, autoencoder, batch_size, device, threads):
            progress("encode", done + read, total, f"block {number + 1} of {work.n_blocks}")
        done += len(work.block(number))


def _finish(work: Work, directory: Path, device: str, allow_bad: int) -> None:
    """The manifest and the rename; another process may be doing the same at the same time."""
    try:
        work.finish(device, allow_bad, work.config["normalise"])
        work.result.rename(directory)
    except OSError:
        if not _already_there(directory, work.config):
            raise
    work.remove()


def _is_foreign(directory: Path) -> bool:
    """Whether something is there that is no latent directory."""
    if not directory.exists():
        return False
    return not directory.is_dir() or (
        any(directory.iterdir()) and not (directory / "manifest.json").is_file()
    )


def _already_there(directory: Path, config: dict[str, Any]) -> bool:
    """Whether this very data is there; raises where it was made another way."""
    if not (directory / "manifest.json").is_file():
        return False
    check_settings(Manifest.read(directory), config)
    return True


def share_of_this_process(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """(rank, world_size) of this process: alone, under torchrun, a task of srun, or in a SLURM array of such.

    In an array, its smallest task id is the first share. A batch script that calls no srun is one process, however
    many tasks its job has.
    """
    world = World.of_launcher(environment)
    rank, world_size = world.rank, world.size
    if "SLURM_ARRAY_TASK_ID" not in environment:
        return rank, world_size
    first, step = int(environment["SLURM_ARRAY_TASK_MIN"]), int(environment.get("SLURM_ARRAY_TASK_STEP", "1"))
    task = (int(environment["SLURM_ARRAY_TASK_ID"]) - first) // step
    return task * world_size + rank, int(environment["SLURM_ARRAY_TASK_COUNT"]) * world_size
