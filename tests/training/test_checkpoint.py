import errno
import hashlib
import json
import pickle
import random
import shutil
from pathlib import Path

import pytest
import torch

from dit.errors import InputError
from dit.training.checkpoint import CheckpointError, open_checkpoint
from dit.training.saving import CheckpointManager


def tensors(scale=1.0):
    generator = torch.Generator().manual_seed(0)
    return {
        "network/weight": scale * torch.randn(17, 5, generator=generator),
        "optimizer/weight/step": torch.tensor(3.0),
        "meters": torch.arange(3, dtype=torch.float64),
        "empty": torch.zeros(0),
    }


def save(manager, images_seen, scale=1.0, keep=False):
    manager.save(tensors(scale), images_seen, {"step": images_seen // 8}, keep=keep)
    manager.wait()


def test_round_trip_is_bit_exact(tmp_path):
    manager = CheckpointManager(tmp_path)
    save(manager, 8)
    found = manager.latest()
    assert found.images_seen == 8 and found.manifest["step"] == 1
    read = found.read()
    assert {name: value.dtype for name, value in read.items()} == {k: v.dtype for k, v in tensors().items()}
    assert all(torch.equal(read[name], value) for name, value in tensors().items())


def test_keeps_the_newest_and_those_marked(tmp_path):
    manager = CheckpointManager(tmp_path, keep_last=2)
    for images_seen in range(8, 56, 8):
        save(manager, images_seen, keep=images_seen == 16)
    assert [int(path.name[7:]) for path in manager.directories()] == [16, 40, 48]


def test_a_save_that_was_killed_anywhere_is_tidied_up(tmp_path):
    """Half a checkpoint, and one more than are kept: it got its name, but the oldest were not yet removed."""
    for images_seen in (8, 16, 24):
        save(CheckpointManager(tmp_path, keep_last=9), images_seen)
    (tmp_path / "images-000000000032.tmp").mkdir()
    CheckpointManager(tmp_path, keep_last=2).tidy()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images-000000000016", "images-000000000024"]


def test_a_removal_that_was_killed_leaves_nothing_that_looks_like_a_checkpoint(tmp_path, monkeypatch):
    manager = CheckpointManager(tmp_path, keep_last=1)
    save(manager, 8)

    def half(path):  # as far as a killed process came
        (path / "manifest.json").unlink()

    with monkeypatch.context() as patch:
        patch.setattr(
            "shutil.rmtree", lambda path, ignore_errors=False: None if ignore_errors else half(path)
        )
        save(manager, 16)
    assert [path.name for path in manager.directories()] == ["images-000000000016"]
    manager.tidy()
    assert [path.name for path in tmp_path.iterdir()] == ["images-000000000016"]


def test_never_overwrites(tmp_path):
    manager = CheckpointManager(tmp_path)
    save(manager, 8)
    save(manager, 8, scale=2.0)
    assert torch.equal(manager.latest().read()["network/weight"], tensors()["network/weight"])


def test_a_half_written_checkpoint_is_no_checkpoint(tmp_path):
    manager = CheckpointManager(tmp_path)
    save(manager, 8)
    torn = tmp_path / "images-000000000016.tmp"
    torn.mkdir()
    (torn / "rank-00000.safetensors").write_bytes(b"half")
    assert manager.latest().images_seen == 8
    save(manager, 16)  # and it does not stand in the way of the real one
    assert manager.latest().images_seen == 16


def damage(directory, rng):
    file = rng.choice(sorted(directory.iterdir()))
    data = bytearray(file.read_bytes())
    if rng.random() < 0.3:
        del data[rng.randrange(len(data)) :]
    else:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    file.write_bytes(data)
    return file


def test_no_flipped_bit_or_truncation_loads(tmp_path):
    """500 random faults over every file of a checkpoint: each is found, and the checkpoint before is used."""
    rng = random.Random(0)
    manager = CheckpointManager(tmp_path / "run")
    save(manager, 8)
    save(manager, 16, scale=2.0)
    newest = manager.directories()[-1]
    original = {file.name: file.read_bytes() for file in newest.iterdir()}
    for _ in range(500):
        damage(newest, rng)
        with pytest.raises(CheckpointError):
            open_checkpoint(newest)
        for name, data in original.items():
            (newest / name).write_bytes(data)
    damage(newest, rng)
    assert manager.latest().images_seen == 8
    assert manager.directories()[-1] == newest  # a reader leaves the run as it is
    manager.tidy()
    assert [path.name for path in (tmp_path / "run").iterdir() if path.suffix == ".damaged"]


def test_with_no_good_checkpoint_the_error_names_the_file(tmp_path):
    manager = CheckpointManager(tmp_path)
    save(manager, 8)
    file = damage(manager.directories()[0], random.Random(1))
    with pytest.raises(CheckpointError, match=file.name):
        manager.latest()


def test_a_whole_checkpoint_under_the_name_of_another_is_none(tmp_path):
    manager = CheckpointManager(tmp_path)
    for images_seen in (8, 16):
        save(manager, images_seen, keep=True)
    older, newer = manager.directories()
    newer.rename(tmp_path / "kept")
    shutil.copytree(older, newer)
    with pytest.raises(CheckpointError, match="belongs to images-000000000008"):
        open_checkpoint(newer)
    assert manager.latest().images_seen == 8
    assert open_checkpoint(tmp_path / "kept").images_seen == 16  # under a name of the user's, to branch from


def test_a_file_that_cannot_be_read_is_damaged(tmp_path, monkeypatch):
    manager = CheckpointManager(tmp_path)
    for images_seen in (8, 16):
        save(manager, images_seen)
    opened = Path.open

    def failing(path, *arguments, **named):
        if path.parent.name.endswith("16") and path.suffix == ".safetensors":
            raise OSError(errno.EIO, "Input/output error")
        return opened(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", failing)
    assert manager.latest().images_seen == 8


@pytest.mark.parametrize("text", ['{"format": 2, "images_seen": 8}', "{}", "[1]", "8"])
def test_a_manifest_of_another_format_is_refused(tmp_path, text):
    """And not set aside as a damaged one: a later version of the program can read it."""
    manager = CheckpointManager(tmp_path)
    save(manager, 8)
    (directory,) = manager.directories()
    seal = hashlib.sha256(text.encode()).hexdigest()
    (directory / "manifest.json").write_text(f"{text}\n{seal}\n")
    with pytest.raises(InputError, match=r"manifest\.json"):
        manager.latest()
    assert manager.directories() == [directory]


def test_nothing_in_a_checkpoint_is_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    manager = CheckpointManager(tmp_path / "run")
    save(manager, 8)
    directory = manager.directories()[0]
    (directory / "rank-00000.safetensors").write_bytes(pickle.dumps(Bomb()))
    forged = json.loads((directory / "manifest.json").read_text().rsplit("\n", 2)[0])
    data = (directory / "rank-00000.safetensors").read_bytes()
    forged["files"]["rank-00000.safetensors"] = {
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    text = json.dumps(forged, indent=1, sort_keys=True)
    (directory / "manifest.json").write_text(f"{text}\n{hashlib.sha256(text.encode()).hexdigest()}\n")
    with pytest.raises(InputError, match="run no code"):
        manager.latest().read()
    assert not (tmp_path / "ran").exists()


def resealed(directory, **changes):
    """The manifest with other values and a seal that agrees, as somebody forges it."""
    file = directory / "manifest.json"
    manifest = {**json.loads(file.read_text().rsplit("\n", 2)[0]), **changes}
    text = json.dumps(manifest, indent=1, sort_keys=True)
    file.write_text(f"{text}\n{hashlib.sha256(text.encode()).hexdigest()}\n")
    return manifest


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path):
    save(CheckpointManager(tmp_path), 8)
    (directory,) = CheckpointManager(tmp_path).directories()
    resealed(directory, config_hash="a" * 16)
    open_checkpoint(directory).check_run("a" * 16)
    with pytest.raises(InputError, match="a" * 16):
        open_checkpoint(directory).check_run("b" * 16)


def test_a_manifest_names_files_of_its_own_folder_alone(tmp_path):
    save(CheckpointManager(tmp_path / "run"), 8)
    (directory,) = CheckpointManager(tmp_path / "run").directories()
    (file,) = directory.glob("*.safetensors")
    entry = resealed(directory)["files"][file.name]
    shutil.copy(file, tmp_path / "elsewhere")
    for name in ("../../elsewhere", str(tmp_path / "elsewhere")):
        resealed(directory, files={name: entry})
        with pytest.raises(InputError, match="files"):
            open_checkpoint(directory)
    resealed(directory, files={file.name: entry})
    file.unlink()
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="files"):
        open_checkpoint(directory)


@pytest.mark.parametrize(
    "changes", [{"images_seen": "8"}, {"files": []}, {"files": {"a": 3}}, {"files": {"a": {}}}]
)
def test_a_manifest_of_another_kind_is_one_message(tmp_path, changes):
    save(CheckpointManager(tmp_path), 8)
    (directory,) = CheckpointManager(tmp_path).directories()
    resealed(directory, **changes)
    with pytest.raises(InputError, match=r"manifest\.json"):
        open_checkpoint(directory)
