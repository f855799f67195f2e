"""The schema of a latent directory's manifest, which a stranger may have written: a good hash proves no good text."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dit.domain import Domain
from dit.errors import InputError

FORMAT = 1
REENCODE = "Remove the directory and run `dit encode` again."
MOST = 2**40  # of anything that is counted: more is no number of images, pixels or bytes of a file
TOKENS = ("uint16", "int32")  # what only tokens are stored as; up to 256 values are uint8, as pixels are
HASH = re.compile(r"[0-9a-f]{64}")
AUTOENCODERS = ("AutoencoderKL", "AutoencoderTiny", "AutoencoderDC")  # classes of diffusers


def check_manifest(path: Path, text: bytes) -> dict[str, Any]:
    """The manifest in ``text``.

    Raises:
        InputError: it is no manifest, or of another format; the message names the field.
    """
    try:
        manifest = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(str(path), "(no JSON)", "a manifest as `dit encode` writes it", REENCODE) from error
    found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
    if found != FORMAT:
        raise InputError(str(path), found, f"format {FORMAT}", REENCODE)
    for field, check in FIELDS.items():
        if field in OPTIONAL and field not in manifest:
            continue
        if field not in manifest or not check(manifest[field]):
            _refuse(path, field, manifest.get(field))
    pictures = "image_shape" in manifest
    if pictures != ("image_size" in manifest["config"]):
        _refuse(path, "image_shape", manifest.get("image_shape"))
    if pictures and len(manifest["shape"]) != 3:
        _refuse(path, "shape", manifest["shape"])
    channels = manifest["shape"][0]
    for field in ("channel_mean", "channel_std"):
        if len(manifest[field]) != channels:
            _refuse(path, field, manifest[field])
    if len(manifest["class_names"]) != manifest["num_classes"]:
        _refuse(path, "class_names", f"({len(manifest['class_names'])} names)")
    try:
        domain = Domain.of(manifest["shape"], manifest.get("vocabulary", 0))
    except InputError:
        _refuse(path, "vocabulary", manifest.get("vocabulary"))
    else:
        if bool(domain.vocabulary) != (
            manifest["dtype"] in TOKENS or manifest["config"].get("normalise") == "none"
        ):
            _refuse(path, "dtype", manifest["dtype"])
    for name, split in manifest["splits"].items():
        if split["count"] != sum(entry["count"] for entry in split["shards"]):
            _refuse(path, f"splits.{name}.count", split["count"])
    return manifest


def _refuse(path: Path, field: str, got: Any) -> None:
    shown = repr(got)
    got = f"({shown[:80]}...)" if len(shown) > 80 else got
    raise InputError(f"{path}: {field}", got, "a manifest as `dit encode` writes it", REENCODE)


def is_count(value: Any) -> bool:
    """Whether a value counts something that a machine can hold."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST


def _positive(value: Any) -> bool:
    return is_count(value) and value > 0


def _shape(value: Any) -> bool:
    """Channels, and points along one axis or more."""
    return isinstance(value, list) and len(value) >= 2 and all(map(_positive, value))


def _numbers(positive: bool) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        return isinstance(value, list) and all(
            isinstance(n, int | float)
            and not isinstance(n, bool)
            and math.isfinite(n)
            and (n > 0 or not positive)
            for n in value
        )

    return check


def _file(value: Any) -> bool:
    """An entry {file, bytes, sha256} of a file that lies in the directory itself."""
    if not isinstance(value, dict) or not isinstance(value.get("file"), str):
        return False
    parts = value["file"].split("/")
    inside = all(part not in ("", ".", "..") and "\0" not in part for part in parts)
    digest = value.get("sha256")
    return (
        inside and is_count(value.get("bytes")) and isinstance(digest, str) and bool(HASH.fullmatch(digest))
    )


def _splits(value: Any) -> bool:
    def is_split(split: Any) -> bool:
        if not isinstance(split, dict) or not is_count(split.get("count")):
            return False
        shards = split.get("shards")
        return isinstance(shards, list) and all(
            _file(entry) and is_count(entry.get("count")) for entry in shards
        )

    return (
        isinstance(value, dict)
        and {"train", "validation"} <= set(value)
        and all(map(is_split, value.values()))
    )


def _autoencoder(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("kind"), str)
        and isinstance(value.get("files"), list)
        and all(map(_file, value["files"]))
        and isinstance(value.get("sha256"), str | None)
    )


def _columns(value: Any) -> bool:
    """Columns {name: {dtype, shape}} that make up conditions: ``label``; ``text`` with its mask, and ``pooled``."""
    if not isinstance(value, dict) or not set(value) <= set(COLUMNS):
        return False
    for name, column in value.items():
        dtypes, n_axes = COLUMNS[name]
        if not isinstance(column, dict) or set(column) != {"dtype", "shape"} or column["dtype"] not in dtypes:
            return False
        shape = column["shape"]
        if not isinstance(shape, list) or len(shape) != n_axes or not all(map(_positive, shape)):
            return False
    if "text" not in value:
        return set(value) <= {"label"}
    return "text_mask" in value and value["text_mask"]["shape"] == value["text"]["shape"][:1]


# of each column that there may be: its dtypes, and the axes of one sample's
COLUMNS = {
    "label": (("int64",), 0),
    "text": (("float16", "float32"), 2),
    "text_mask": (("bool",), 1),
    "pooled": (("float16", "float32"), 1),
}
# only where there are some; only of pictures; only of tokens; only where conditions are not labels alone
OPTIONAL = {"empty_classes", "image_shape", "vocabulary", "tokens_are_levels", "columns"}
FIELDS: dict[str, Callable[[Any], bool]] = {
    "name": lambda value: isinstance(value, str),
    "config": lambda value: isinstance(value, dict) and _positive(value.get("shard_images")),
    "source": lambda value: isinstance(value, dict) and isinstance(value.get("kind"), str),
    "shape": _shape,
    "image_shape": lambda value: _shape(value) and len(value) == 3,
    "dtype": lambda value: value in ("float32", "bfloat16", "uint8", *TOKENS),
    "vocabulary": is_count,
    "tokens_are_levels": lambda value: isinstance(value, bool),
    "posterior": lambda value: isinstance(value, bool),
    "flip": lambda value: isinstance(value, bool),
    "columns": _columns,
    "empty_classes": lambda value: isinstance(value, list) and all(map(is_count, value)),
    "channel_mean": _numbers(positive=False),
    "channel_std": _numbers(positive=True),
    "num_classes": is_count,
    "class_names": lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
    "splits": _splits,
    "autoencoder": _autoencoder,
}
