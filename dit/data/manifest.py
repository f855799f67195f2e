"""The manifest of a latent directory: what is in it, how it was made, and the hash of every file.

A finished directory holds ``manifest.json``, ``manifest.sha256`` (its hash, so that the manifest is
protected too), the shards and, unless the latents are pixels, ``autoencoder/`` (a diffusers directory). It
appears by one rename: it is complete or absent. Imports no torch: a plan reads the shape and the classes of
its data from here.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dit.condition import Classes, ConditionKind, Text, find, together
from dit.data.schema import REENCODE, check_manifest
from dit.data.split import FEWEST_HELD_OUT
from dit.domain import Domain
from dit.errors import InputError
from dit.files import whole
from dit.trust import file_below


def canonical(value: object) -> bytes:
    """The one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(directory: Path, scratch: Path, manifest: dict[str, Any]) -> None:
    """Writes manifest and hash into a directory that is still being built."""
    text = json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"
    digest = hashlib.sha256(text).hexdigest().encode() + b"\n"
    for name, data in (("manifest.json", text), ("manifest.sha256", digest)):
        with whole(directory / name, scratch) as partial:
            partial.write_bytes(data)


@dataclass(frozen=True)
class Manifest:
    """The manifest of a finished latent directory as it was read, checked against its hash.

    Attributes:
        directory: of the latents.
        content: what the file holds.
        sha256: of the file: names the data of a run, since the manifest holds the hash of every shard.
    """

    directory: Path
    content: dict[str, Any]
    sha256: str

    @classmethod
    def read(cls, directory: "str | Path | Manifest") -> "Manifest":
        """That of a directory; one that was read already is itself.

        Raises:
            InputError: there is none, it was changed after it was written, or it is of another format.
        """
        return directory if isinstance(directory, Manifest) else _read(Path(directory))


def read_manifest(directory: str | Path) -> dict[str, Any]:
    """What the manifest of a finished latent directory holds; raises as ``Manifest.read``."""
    return Manifest.read(directory).content


def manifest_hash(directory: str | Path) -> str:
    """SHA-256 of the manifest; raises as ``Manifest.read``."""
    return Manifest.read(directory).sha256


def domain_of(manifest: dict[str, Any]) -> Domain:
    """What one sample is."""
    return Domain.of(manifest["shape"], manifest.get("vocabulary", 0))


LABEL = {"label": {"dtype": "int64", "shape": []}}  # the only column of directories that name none


def columns_of(kind: ConditionKind) -> dict[str, Any]:
    """The columns of shards that hold conditions of a kind: name -> dtype and shape of one sample's."""
    columns = LABEL if find(kind, Classes) else {}
    if (text := find(kind, Text)) is None:
        return columns
    half = {"dtype": "float16"}
    columns = columns | {
        "text": half | {"shape": [text.length, text.width]},
        "text_mask": {"dtype": "bool", "shape": [text.length]},
    }
    return columns | ({"pooled": half | {"shape": [text.pooled]}} if text.pooled else {})


def condition_kind(manifest: dict[str, Any]) -> ConditionKind:
    """The kind of the conditions that a directory's columns hold."""
    columns, kinds = manifest.get("columns", LABEL), list[ConditionKind]()
    if "label" in columns:
        kinds.append(Classes(manifest["num_classes"], tuple(manifest.get("empty_classes", ()))))
    if "text" in columns:
        pooled = columns.get("pooled", {"shape": [0]})["shape"]
        kinds.append(Text(*columns["text"]["shape"], *pooled))
    return together(kinds)


def doubts(manifest: dict[str, Any]) -> list[str]:
    """Warnings about the data, for a user who has just encoded them."""
    found, held_out = [], manifest["splits"]["validation"]["count"]
    if not held_out:
        found.append("no image is held out: there will be no loss to measure, and dit train refuses the data")
    elif held_out < FEWEST_HELD_OUT:
        found.append(
            f"{held_out} images are held out: every exponent rests on their loss, and {FEWEST_HELD_OUT} or more make "
            "it a loss of the data"
        )
    if empty := manifest.get("empty_classes"):
        names = ", ".join(str(manifest["class_names"][label]) for label in empty[:10])
        found.append(
            f"{len(empty)} of {manifest['num_classes']} classes have no training image: {names}"
            + (", ..." if len(empty) > 10 else "")
        )
    return found


def _read(directory: Path) -> Manifest:
    path = directory / "manifest.json"
    try:
        if os.path.exists(path) and not path.is_file():  # pathlib raises where a name is too long
            raise OSError("it is no regular file")
        text, expected = path.read_bytes(), (directory / "manifest.sha256").read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        found = "no such directory" if not os.path.exists(directory) else f"no readable manifest ({error})"
        raise InputError(
            "data.directory",
            f"{directory}: {found}",
            "a directory written by `dit encode`",
            "Run `dit encode` first.",
        ) from error
    actual = hashlib.sha256(text).hexdigest()
    if actual != expected:
        raise InputError(str(path), f"sha256 {actual[:12]}", f"sha256 {expected[:12]} as written", REENCODE)
    return Manifest(directory, check_manifest(path, text), actual)


def check_settings(manifest: Manifest, asked: dict[str, Any]) -> None:
    """Raises InputError unless a finished directory was made with these settings, all or some of its ``config``."""
    stored = manifest.content["config"]
    changed = [f"{key}: {stored.get(key)} -> {asked[key]}" for key in asked if stored.get(key) != asked[key]]
    if changed:
        raise InputError(
            "data.directory",
            f"({manifest.directory}, encoded another way: {'; '.join(changed)})",
            "latents of this very configuration",
            "Choose another data.directory, or remove this one.",
        )


def all_files(manifest: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """Every file the manifest names: {file, bytes, sha256}."""
    for split in manifest["splits"].values():
        yield from split["shards"]
    yield from manifest["autoencoder"]["files"]


SETTLED_NS = 10**9  # a file younger than that may change again without its times telling
_checked: set[tuple[Any, ...]] = (
    set()
)  # files, with their times, whose hash this process has seen to be right


def check_file(directory: Path, entry: dict[str, Any], once: bool = True) -> None:
    """Raises InputError unless the file has the size and the hash of the manifest; ``once`` in a process."""
    path = directory / entry["file"]
    if file_below(directory, entry["file"]) is None:
        raise InputError(str(path), "no such file here", "the file listed in manifest.json", REENCODE)
    status = path.stat()
    if status.st_size != entry["bytes"]:
        raise InputError(str(path), f"{status.st_size} bytes", f"{entry['bytes']} bytes as written", REENCODE)
    seen = (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        entry["sha256"],
    )
    if once and seen in _checked:
        return
    if (actual := file_sha256(path)) != entry["sha256"]:
        raise InputError(
            str(path), f"sha256 {actual[:12]}", f"sha256 {entry['sha256'][:12]} as written", REENCODE
        )
    if time.time_ns() - status.st_ctime_ns > SETTLED_NS:
        _checked.add(seen)


def verify(directory: str | Path) -> int:
    """Checks the manifest and every file of a latent directory; returns the number of files checked.

    Raises:
        InputError: naming all files that are missing, truncated or changed.
    """
    files = list(all_files(read_manifest(directory)))
    errors = check_files(Path(directory), files, once=False)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        found = "; ".join(f"{Path(error.key).name}: {error.got}" for error in errors)
        raise InputError(str(directory), f"({found})", "the files as written", REENCODE)
    return len(files)


def check_files(directory: Path, entries: Iterable[dict[str, Any]], once: bool = True) -> list[InputError]:
    """What is wrong with files of the manifest; hashes several at a time."""

    def check(entry: dict[str, Any]) -> InputError | None:
        try:
            check_file(directory, entry, once)
        except InputError as error:
            return error
        return None

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return [error for error in pool.map(check, entries) if error is not None]
