"""Latent directories of strangers: every hash fits, but what they say need not. Refused in words, in little memory."""

import copy
import hashlib
import json
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dit.data.codec import Codec
from dit.data.draws import validation_draws
from dit.data.latents import LatentSet, Shard
from dit.data.manifest import read_manifest, verify
from dit.errors import InputError


@pytest.fixture
def made(pixels, tmp_path) -> Path:
    shutil.copytree(pixels, tmp_path / "latents")
    return tmp_path / "latents"


def rewrite(directory: Path, manifest: object) -> None:
    """A manifest whose hash fits."""
    text = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    (directory / "manifest.json").write_bytes(text)
    (directory / "manifest.sha256").write_text(hashlib.sha256(text).hexdigest())


def changed(manifest: dict, path: str, value: object) -> dict:
    manifest = copy.deepcopy(manifest)
    *parents, last = path.split(".")
    node = manifest
    for key in parents:
        node = node[int(key)] if isinstance(node, list) else node[key]
    node[last] = value
    return manifest


BAD = [
    ("shape", [-3, 32, 32]), ("shape", [2**60, 1, 1]), ("shape", [3, 32]), ("shape", None), ("shape", [3, 32.0, 32]),
    ("image_shape", "3x32x32"), ("dtype", "float64"), ("dtype", []), ("posterior", 1), ("flip", None),
    ("channel_std", [1, 1, 0]), ("channel_std", [1, 1]), ("channel_mean", [float("nan")] * 3),
    ("channel_mean", ["0", 0, 0]), ("num_classes", -1), ("num_classes", 2**60),
    ("class_names", {}), ("name", None), ("config", []), ("config.shard_images", 0),
    ("source", {}), ("autoencoder", {"kind": "identity"}),
    ("autoencoder.files", [{"file": "../../x", "bytes": 1, "sha256": "0" * 64}]), ("splits", {"train": {}}),
    ("splits.train.count", 2**60), ("splits.train.count", 1), ("splits.train.shards", None),
    ("splits.train.shards.0.file", "/etc/passwd"), ("splits.train.shards.0.file", "../x.safetensors"),
    ("splits.train.shards.0.count", -1), ("splits.train.shards.0.bytes", 1.5),
    ("splits.train.shards.0.sha256", "abc"), ("format", 2), ("format", None), ("empty_classes", {"a": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value"), BAD, ids=lambda value: str(value)[:30])
def test_bad_fields_are_named(made, path, value):
    field = path if path.endswith("count") and path.count(".") == 2 else path.split(".")[0]
    rewrite(made, changed(read_manifest(made), path, value))
    with pytest.raises(InputError, match=field if field != "splits.train.count" else "splits"):
        read_manifest(made)


@pytest.mark.parametrize(("length", "cut"), [(80, False), (81, True)])
def test_a_long_value_is_cut_at_80_characters(made, length, cut):
    name = ["x" * (length - 4)]  # two brackets and two quotes
    rewrite(made, changed(json.loads((made / "manifest.json").read_text()), "name", name))
    with pytest.raises(InputError) as caught:
        read_manifest(made)
    assert (f"({repr(name)[:80]}...)" in str(caught.value)) == cut


@pytest.mark.parametrize("text", [b"[]", b"null", b"3", b"{", b"\xff", b"[" * 100_000, b'"format"', b"{}"])
def test_a_manifest_that_is_none(made, text):
    rewrite(made, text)
    with pytest.raises(InputError, match=r"manifest\.json"):
        read_manifest(made)


def test_every_field_that_is_missing_is_named(made):
    manifest = read_manifest(made)
    for field in set(manifest) - {"skipped"}:
        rewrite(made, {key: value for key, value in manifest.items() if key != field})
        with pytest.raises(InputError, match=field):
            read_manifest(made)


def test_a_pipe_is_no_manifest(tmp_path):
    os.mkfifo(tmp_path / "manifest.json")
    with pytest.raises(InputError, match="no readable manifest"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("name", ["x" * 5000, "x/" * 3000])
def test_a_directory_of_too_long_a_name_is_none(name):
    """As a stranger's config.yaml may hold one."""
    with pytest.raises(InputError, match="no such directory"):
        read_manifest(name)


def put_shard(directory: Path, content: bytes) -> None:
    """Replaces the first shard of the training split, with a manifest that agrees."""
    manifest = read_manifest(directory)
    entry = manifest["splits"]["train"]["shards"][0]
    (directory / entry["file"]).write_bytes(content)
    entry |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    rewrite(directory, manifest)


def header(value: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


ONE = {"dtype": "U8", "shape": [1, 1], "data_offsets": [0, 1]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        header(b"{}", length=2**60),
        header(b"[]"),
        header(b"{"),
        header({"__metadata__": 3}),
        header({"moments": 3}),
        header({"moments": ONE | {"shape": [-1, 1]}}, b"x"),
        header({"moments": ONE | {"shape": [2**60, 1], "data_offsets": [0, 2**60]}}, b"x"),
        header({"moments": ONE | {"data_offsets": [1, 0]}}, b"x"),
        header({"moments": ONE | {"shape": [2**40, 2**40]}}, b"x"),
        header({"moments": ONE}, b"x"),
    ],
)
def test_shards_that_promise_what_they_do_not_hold(made, content):
    put_shard(made, content)
    assert verify(made)  # the hashes fit
    with pytest.raises(InputError, match=r"train-00000\.safetensors"):
        LatentSet(made, "train")


def test_shards_that_differ_from_their_manifest(made):
    path = made / "train-00000.safetensors"
    shard = Shard(path)
    count = shard.shape["moments"][0]
    good = {
        "moments": torch.zeros(count, 3, 32, 32, dtype=torch.uint8),
        "label": torch.zeros(count, dtype=torch.int64),
        "index": torch.zeros(count, dtype=torch.int64),
    }
    bad = [
        {"moments": good["moments"][:-1]},
        {"moments": good["moments"].float()},
        {"moments": good["moments"][:, :2].contiguous()},
        {"label": good["label"].int()},
        {"label": good["label"][:-1]},
        {"label": good["label"] - 1},
        {"label": good["label"] + 10},
        {"index": good["index"][:-1]},
        {"label": None},
    ]
    for change in [{}, *bad]:
        tensors = {name: tensor for name, tensor in (good | change).items() if tensor is not None}
        save_file(tensors, path)
        put_shard(made, path.read_bytes())
        if not change:
            assert len(LatentSet(made, "train")) == 1500
            continue
        with pytest.raises(InputError, match=r"manifest\.json"):
            LatentSet(made, "train")


# -- what is read has been checked


def flip_bit(path: Path, place: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_both_splits_are_checked_before_they_are_read(made):
    """One flipped bit of a validation shard gave a wrong loss, and wrong draws that were stored under a good hash."""
    for split in ("train", "validation"):
        path = sorted(made.glob(f"{split}-*.safetensors"))[-1]
        flip_bit(path, 5000)
        with pytest.raises(InputError, match=rf"{path.name}: got 'sha256"):
            LatentSet(made, split)
        flip_bit(path, 5000)
        LatentSet(made, split)
    assert not list(made.glob("draws-*"))


def test_draws_are_made_of_checked_shards_alone(made):
    flip_bit(next(made.glob("validation-*.safetensors")), 5000)
    with pytest.raises(InputError, match="sha256"):
        validation_draws(LatentSet(made, "validation"), 64, 8)
    assert not list(made.glob("draws-*"))


def test_a_process_checks_a_file_once(made, monkeypatch):
    """Where it has not changed since, as far as its times tell, and is older than their precision."""
    from dit.data import manifest

    monkeypatch.setattr(manifest, "SETTLED_NS", 0)
    read = []
    whole = manifest.file_sha256
    monkeypatch.setattr(manifest, "file_sha256", lambda path: read.append(Path(path).name) or whole(path))
    for _ in range(3):
        LatentSet(made, "train")
    shards = sorted(path.name for path in made.glob("train-*.safetensors"))
    assert sorted(read) == shards
    assert verify(made) == len(shards) + len(list(made.glob("validation-*"))) and len(read) > 2 * len(shards)
    path = made / shards[0]
    flip_bit(path)
    with pytest.raises(InputError, match="sha256"):
        LatentSet(made, "train")


def test_stored_draws_of_other_names_are_made_anew(made):
    held_out = LatentSet(made, "validation")
    first = validation_draws(held_out, 64, 8)
    path = next(made.glob("draws-*"))
    for content in (b"", b"\xff" * 100, header({"x": ONE}, b"x")):
        path.write_bytes(content)
        assert validation_draws(held_out, 64, 8).sha256 == first.sha256


def test_the_autoencoder_is_checked_too(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "latents")
    flip_bit(tmp_path / "latents" / "autoencoder" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(InputError, match="sha256"):
        Codec.open(tmp_path / "latents")


def test_labels_and_index_are_what_was_stored(pixels):
    """The checks read nothing wrong: against the arrays of the library."""
    from safetensors.numpy import load_file

    train = LatentSet(pixels, "train")
    parts = [load_file(pixels / entry["file"]) for entry in train.manifest["splits"]["train"]["shards"]]
    assert np.array_equal(train.labels.numpy(), np.concatenate([part["label"] for part in parts]))
    assert np.array_equal(train.source_index.numpy(), np.concatenate([part["index"] for part in parts]))
