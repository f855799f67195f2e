import io
import json
import os
import pickle
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torchvision
from PIL import Image

from dit.data.autoencoder import Identity
from dit.data.encode import encode_dataset
from dit.data.images import UnreadableImage
from dit.data.latents import LatentSet
from dit.data.manifest import read_manifest
from dit.data.pixels import decode_square
from dit.data.sources.folder import Folder, Zip
from dit.data.sources.parquet import Parquet
from dit.data.sources.vision import Torchvision
from dit.data.sources.webdataset import Tar
from dit.data.split import ByContent
from dit.errors import InputError

CLASSES = ("ant", "bee", "cat")


def jpeg(seed: int, size: tuple[int, int] = (20, 24)) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


FILES = {f"{CLASSES[seed % 3]}/{seed % 3}{seed:03d}.jpg": jpeg(seed) for seed in range(40)}
ORDERED = sorted(FILES)


def make_folder(root: Path) -> Folder:
    for name, content in FILES.items():
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (root / "images" / "ant" / "notes.txt").write_text("not an image")
    return Folder(str(root / "images"))


def make_zip(root: Path) -> Zip:
    with zipfile.ZipFile(root / "images.zip", "w") as file:
        for name, content in FILES.items():
            file.writestr(f"imagenet/{name}", content)
        file.writestr("imagenet/readme.md", "x")
    return Zip(str(root / "images.zip"))


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def make_tar(root: Path) -> Tar:
    for shard, names in enumerate((ORDERED[:15], ORDERED[15:])):
        with tarfile.open(root / f"train-{shard:03d}.tar", "w") as tar:
            for position, name in enumerate(names):
                add(tar, f"{position:05d}.jpg", FILES[name])
                add(tar, f"{position:05d}.cls", str(CLASSES.index(name.split("/")[0])).encode())
                add(tar, f"{position:05d}.json", b"{}")
    return Tar(str(root / "train-*.tar"))


def write_parquet(path: Path, names: list[str], labels=None, label_type=None, features: bool = True) -> None:
    images = [{"bytes": FILES[name], "path": name} for name in names]
    labels = labels or [CLASSES.index(name.split("/")[0]) for name in names]
    table = pa.table({"image": images, "label": pa.array(labels, label_type or pa.int64())})
    if features:
        info = {"info": {"features": {"label": {"names": list(CLASSES), "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(table, path, row_group_size=7)


def make_parquet(root: Path) -> Parquet:
    folder = root / "hub" / "data"
    folder.mkdir(parents=True)
    write_parquet(folder / "train-00000-of-00002.parquet", ORDERED[:18])
    write_parquet(folder / "train-00001-of-00002.parquet", ORDERED[18:])
    return Parquet(str(root / "hub"))


MAKERS = [make_folder, make_zip, make_tar, make_parquet]


@pytest.mark.parametrize("make", MAKERS)
def test_every_container_lists_the_same_images(make, tmp_path):
    source = make(tmp_path)
    assert len(source) == 40
    assert [source.content(i) for i in range(40)] == [FILES[name] for name in ORDERED]
    assert [source.label(i) for i in range(40)] == [CLASSES.index(name.split("/")[0]) for name in ORDERED]
    if make is make_tar:  # WebDataset stores no names of classes
        assert source.class_names == ("0", "1", "2")
    else:
        assert source.class_names == CLASSES
    assert np.array_equal(source.pixels(source.content(3), 16), decode_square(FILES[ORDERED[3]], 16))
    assert str(tmp_path) not in json.dumps(source.identity())


@pytest.mark.parametrize("make", MAKERS)
def test_reading_from_many_threads(make, tmp_path):
    source = make(tmp_path)
    order = np.random.default_rng(0).integers(0, 40, 400).tolist()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(source.content, order)) == [FILES[ORDERED[i]] for i in order]


def encode(directory: Path, source, **options) -> Path:
    options = {"name": "test", "image_size": 16, "shard_images": 11, "batch_size": 4} | options
    encode_dataset(directory, source, Identity(), ByContent(0.3), **options)
    return directory


def test_every_container_gives_the_same_shards(tmp_path):
    manifests = [read_manifest(encode(tmp_path / make.__name__, make(tmp_path))) for make in MAKERS]
    assert manifests[0]["splits"]["validation"]["count"] in range(4, 21)
    for manifest in manifests[1:]:
        for key in ("splits", "channel_mean", "channel_std"):
            assert manifest[key] == manifests[0][key]
        assert manifest["source"]["content_sha256"] == manifests[0]["source"]["content_sha256"]
        assert manifest["source"] != manifests[0]["source"]


def test_decoding_threads_change_nothing(tmp_path):
    source = make_folder(tmp_path)
    one, many = encode(tmp_path / "one", source), encode(tmp_path / "many", source, decode_threads=3)
    assert (one / "manifest.sha256").read_text() == (many / "manifest.sha256").read_text()


def test_changed_source_is_noticed(tmp_path):
    source = make_folder(tmp_path)
    encode(tmp_path / "latents", source)
    (tmp_path / "images" / ORDERED[0]).write_bytes(jpeg(1000, (30, 30)))
    with pytest.raises(InputError, match="encoded another way: source"):
        encode(tmp_path / "latents", Folder(source.path))


def test_folder_without_classes_is_one_class(tmp_path):
    (tmp_path / "flat").mkdir()
    for seed in range(3):
        (tmp_path / "flat" / f"{seed}.jpg").write_bytes(jpeg(seed))
    source = Folder(str(tmp_path / "flat"))
    assert source.class_names == ("all",) and source.label(2) == 0
    (tmp_path / "flat" / "ant").mkdir()
    (tmp_path / "flat" / "ant" / "x.jpg").write_bytes(jpeg(9))
    with pytest.raises(InputError, match=r"0\.jpg beside class folders"):
        len(Folder(str(tmp_path / "flat")))


def test_torchvision_dataset(tmp_path, monkeypatch):
    """Against torchvision's own reader, on a CIFAR-10 made here in the layout of its python version."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        data = generator.integers(0, 256, (4, 3072)).astype(np.uint8)
        (folder / name).write_bytes(
            pickle.dumps({"data": data, "labels": generator.integers(0, 10, 4).tolist()})
        )
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
    # The real files' checksums do not hold here.
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *_: True)
    reference = torchvision.datasets.CIFAR10(str(tmp_path))
    source = Torchvision("CIFAR10", str(tmp_path), {"train": True})
    assert len(source) == 20 and source.class_names == tuple(names)
    for index, (image, label) in enumerate(reference):
        assert source.label(index) == label
        assert np.array_equal(source.pixels(source.content(index), 32), np.asarray(image))


def test_torchvision_messages(tmp_path):
    with pytest.raises(InputError, match=r"data.source.root.*download=True"):
        len(Torchvision("CIFAR10", str(tmp_path)))
    with pytest.raises(InputError, match=r"data.source.name"):
        len(Torchvision("CIFAR11", str(tmp_path)))
    with pytest.raises(InputError, match=r"data.source.options"):
        len(Torchvision("CIFAR10", str(tmp_path), {"split": "train"}))


@pytest.mark.parametrize("kind", [Folder, Zip, Tar, Parquet])
def test_missing_path_is_named(kind, tmp_path):
    with pytest.raises(InputError, match=r"data.source.path.*nowhere"):
        len(kind(str(tmp_path / "nowhere")))


@pytest.mark.parametrize(("kind", "ending"), [(Zip, "zip"), (Tar, "tar"), (Parquet, "parquet")])
def test_a_file_that_is_something_else_is_named(kind, ending, tmp_path):
    path = tmp_path / f"file.{ending}"
    path.write_bytes(b"PK not really" * 100)
    with pytest.raises(InputError, match=rf"data.source.path.*file\.{ending}"):
        len(kind(str(path)))


def test_folder_without_images(tmp_path):
    with pytest.raises(InputError, match=r"one folder per class"):
        len(Folder(str(tmp_path)))


def test_wrong_label_types(tmp_path):
    write_parquet(tmp_path / "a.parquet", ORDERED[:2], [0.5, 1.5], pa.float64(), features=False)
    with pytest.raises(InputError, match=r"a\.parquet: label.*double.*integer"):
        len(Parquet(str(tmp_path / "a.parquet")))
    write_parquet(tmp_path / "b.parquet", ORDERED[:2], [-1, -1], features=False)
    with pytest.raises(InputError, match=r"b\.parquet: label.*-1.*>= 0"):
        len(Parquet(str(tmp_path / "b.parquet")))
    write_parquet(tmp_path / "c.parquet", ORDERED[:2], [0, 3])
    with pytest.raises(InputError, match=r"label 3.*number of class names, 3"):
        len(Parquet(str(tmp_path / "c.parquet")))
    with pytest.raises(InputError, match=r"label_column.*fine_label"):
        len(Parquet(str(tmp_path / "c.parquet"), label_column="fine_label"))
    with tarfile.open(tmp_path / "d.tar", "w") as tar:
        add(tar, "0.jpg", FILES[ORDERED[0]])
        add(tar, "0.cls", b"ant")
    with pytest.raises(InputError, match=r"d\.tar/0\.cls.*ant.*integer"):
        len(Tar(str(tmp_path / "d.tar")))
    with tarfile.open(tmp_path / "e.tar", "w") as tar:
        add(tar, "0.jpg", FILES[ORDERED[0]])
    with pytest.raises(InputError, match=r"e\.tar/0 without a label"):
        len(Tar(str(tmp_path / "e.tar")))


def test_unreadable_images_are_listed_then_skipped_when_allowed(tmp_path):
    source = make_folder(tmp_path)
    broken = {ORDERED[3]: b"", ORDERED[20]: FILES[ORDERED[20]][:300], ORDERED[39]: b"GIF89a?"}
    for name, content in broken.items():
        (tmp_path / "images" / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        encode(tmp_path / "latents", Folder(source.path))
    for name in broken:
        assert name in str(caught.value)
    assert "data.allow_bad=3" in str(caught.value) and not (tmp_path / "latents").exists()
    with pytest.raises(InputError, match="3 unreadable images"):
        encode(tmp_path / "latents", Folder(source.path), allow_bad=2)
    encode(tmp_path / "latents", Folder(source.path), allow_bad=3)
    sets = [LatentSet(tmp_path / "latents", split) for split in ("train", "validation")]
    kept = sorted(i for latent_set in sets for i in latent_set.source_index.tolist())
    assert kept == [i for i in range(40) if i not in (3, 20, 39)]
    manifest = read_manifest(tmp_path / "latents")
    assert [item["name"] for item in manifest["skipped"]] == list(broken)


def test_unusual_files_go_through_with_their_documented_conversion(tmp_path):
    """CMYK, greyscale, 16-bit and animated files in one folder: encoded, in order, as `pixels` says."""
    folder = tmp_path / "images" / "all"
    folder.mkdir(parents=True)
    Image.new("CMYK", (16, 16), (255, 0, 0, 0)).save(folder / "a.jpg", quality=100)
    Image.new("L", (16, 16), 77).save(folder / "b.png")
    Image.fromarray(np.full((16, 16), 257 * 99, np.uint16)).save(folder / "c.png")
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "d.gif", save_all=True, append_images=frames[1:])
    encode_dataset(
        tmp_path / "latents",
        Folder(str(tmp_path / "images")),
        Identity(),
        ByContent(0),
        name="odd",
        image_size=16,
        normalise="autoencoder",
    )
    train = LatentSet(tmp_path / "latents", "train")
    colours = (train.moments(train.source_index.argsort())[:, :, 8, 8] + 1) * 127.5
    expected = [(0, 255, 255), (77, 77, 77), (99, 99, 99), (255, 0, 0)]
    assert np.abs(colours.numpy() - expected).max() <= 3


def test_a_damaged_member_of_a_zip_file_is_one_unreadable_image(tmp_path):
    source = make_zip(tmp_path)
    data = bytearray((tmp_path / "images.zip").read_bytes())
    place = data.find(FILES[ORDERED[5]]) + 200
    data[place] ^= 255
    (tmp_path / "images.zip").write_bytes(bytes(data))
    with pytest.raises(InputError, match=rf"1 unreadable images: {ORDERED[5]}: .*CRC"):
        encode(tmp_path / "latents", Zip(source.path))


@pytest.mark.parametrize(("local", "central", "value"), [(6, 8, 1), (8, 10, 99)])
def test_a_zip_member_that_python_cannot_read_is_one_unreadable_image(local, central, value, tmp_path):
    """Marked as encrypted, or as compressed by an unknown method (APPNOTE 4.3.7 and 4.3.12)."""
    data = bytearray(Path(make_zip(tmp_path).path).read_bytes())
    data[local] = data[data.index(b"PK\x01\x02") + central] = value
    (tmp_path / "images.zip").write_bytes(data)
    source = Zip(str(tmp_path / "images.zip"))
    with pytest.raises(UnreadableImage):
        source.content(0)


def test_a_file_removed_after_listing_is_one_unreadable_image(tmp_path):
    source = make_folder(tmp_path)
    assert len(source) == 40
    os.unlink(tmp_path / "images" / ORDERED[5])
    with pytest.raises(InputError, match=rf"1 unreadable images: {ORDERED[5]}"):
        encode(tmp_path / "latents", source)


def test_hidden_files_and_macos_copies_are_no_images(tmp_path):
    folder = make_folder(tmp_path)
    for name in ("ant/._1001.jpg", ".thumbnails/1001.jpg", "__MACOSX/ant/1001.jpg"):
        path = Path(folder.path) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not an image")
    archive = tmp_path / "with_copies.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in FILES.items():
            file.writestr(f"imagenet/{name}", content)
        file.writestr("__MACOSX/imagenet/ant/._1001.jpg", b"not an image")
    for source in (Folder(folder.path), Zip(str(archive))):
        assert source.class_names == CLASSES
        assert [source.describe(index) for index in range(len(source))] == ORDERED


def test_a_file_that_cannot_be_listed_is_named(tmp_path):
    folder = make_folder(tmp_path)
    (Path(folder.path) / "bee" / "gone.jpg").symlink_to(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"bee/gone\.jpg \(No such file"):
        len(folder)


def test_parquet_without_labels_is_one_class_on_request(tmp_path):
    rows = [{"bytes": FILES[name], "path": name} for name in ORDERED]
    pq.write_table(pa.table({"image": rows}), tmp_path / "images.parquet")
    with pytest.raises(InputError, match="label_column"):
        len(Parquet(str(tmp_path / "images.parquet")))
    source = Parquet(str(tmp_path / "images.parquet"), label_column=None)
    assert source.class_names == ("all",) and len(source) == len(ORDERED)
    assert {source.label(index) for index in range(len(source))} == {0}
    assert [source.content(index) for index in range(len(source))] == [FILES[name] for name in ORDERED]


def test_a_tar_sample_has_one_image(tmp_path):
    """A mask beside an image is not the image; two images, or a key that comes twice, are a mistake."""
    members = [("0.jpg", jpeg(0)), ("0.mask.png", jpeg(1)), ("0.cls", b"0")]
    for name, more in (("mask", []), ("two", [("0.png", jpeg(2))]), ("twice", members)):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as tar:
            for member in [*members, *more]:
                add(tar, *member)
    assert Tar(str(tmp_path / "mask.tar")).content(0) == jpeg(0)
    for name, member in (("two", "0.png, a second image of this key"), ("twice", "0.jpg is there twice")):
        with pytest.raises(InputError, match=rf"{name}\.tar/{member}"):
            len(Tar(str(tmp_path / f"{name}.tar")))


def test_an_absurd_label_is_refused(tmp_path):
    with tarfile.open(tmp_path / "labels.tar", "w") as tar:
        add(tar, "0.jpg", jpeg(0))
        add(tar, "0.cls", b"100000000")
    with pytest.raises(InputError, match=r"0\.cls: got 100000000; allowed: class labels below"):
        len(Tar(str(tmp_path / "labels.tar")))


def test_a_path_that_is_not_there_at_all_is_named():
    for kind in (Folder, Zip, Tar, Parquet):
        for path in (None, ""):
            with pytest.raises(InputError, match=r"data\.source\.path"):
                kind(path)
