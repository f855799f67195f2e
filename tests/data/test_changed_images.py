"""Latents are of the very images that were encoded: others of the same names and sizes are not taken for them."""

import logging
import os
import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from PIL import Image

from dit.config.data import check_images
from dit.config.encoding import encode_if_missing
from dit.config.parts import Parts
from dit.data.autoencoder import Identity
from dit.data.encode import encode_dataset
from dit.data.images import Digits
from dit.data.manifest import manifest_hash
from dit.data.origin import check_origin
from dit.data.sources.folder import Folder, Zip
from dit.data.sources.parquet import Parquet
from dit.data.sources.vision import Torchvision
from dit.data.sources.webdataset import Tar
from dit.data.split import ByContent
from dit.errors import InputError
from tests.data import test_parquet
from tests.data.test_archives import write_tar, write_zip

YEAR = 365 * 24 * 3600


def write(root: Path, colours: list[int]) -> Folder:
    """Pictures without compression: the same size whatever they show."""
    for number, colour in enumerate(colours):
        path = root / f"class{number % 2}" / f"{number}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (colour, 0, 0)).save(path)
    return Folder(str(root))


def encode(directory: Path, source, **options):
    options = {"name": "test", "image_size": 8, "shard_images": 2} | options
    return encode_dataset(directory, source, Identity(), ByContent(0.2), **options)


@pytest.fixture
def made(tmp_path) -> tuple[Path, Path]:
    """(images, latents)."""
    encode(tmp_path / "latents", write(tmp_path / "images", [0, 50, 100, 150, 200, 250]))
    return tmp_path / "images", tmp_path / "latents"


def config(images: Path, latents: Path):
    source = {"_target_": "dit.data.sources.folder.Folder", "path": str(images)}
    return OmegaConf.create({"data": {"directory": str(latents), "source": source}})


def test_the_same_images_are_not_read_again(made, monkeypatch):
    images, latents = made
    monkeypatch.setattr(Folder, "content", lambda *_: pytest.fail("read"))
    assert not encode(latents, Folder(str(images))).fresh
    check_images(Parts(config(images, latents)))


def test_other_images_of_the_same_names_and_sizes(made):
    images, latents = made
    write(images, [0, 50, 100, 151, 200, 250])
    changed = r"data\.source: got \(images that have changed .*content_sha256.*Remove .*latents"
    with pytest.raises(InputError, match=changed):
        encode(latents, Folder(str(images)))
    with pytest.raises(InputError, match=changed):  # dit train and dit evaluate
        check_images(Parts(config(images, latents)))
    with pytest.raises(InputError, match=changed):  # dit study
        encode_if_missing(Parts(config(images, latents)), {})


@pytest.mark.parametrize("how", ["written", "put in its place"])
def test_other_images_of_the_same_names_sizes_and_times(made, how):
    """Archives give all pictures one time, and pictures without compression one size."""
    images, latents = made
    old = images / "class1" / "3.bmp"
    status = old.stat()
    new = write(images.parent / "other", [0, 0, 0, 151]).path + "/class1/3.bmp"
    if how == "written":
        old.write_bytes(Path(new).read_bytes())
    os.utime(old if how == "written" else new, ns=(status.st_atime_ns, status.st_mtime_ns))
    if how != "written":
        os.replace(new, old)
    assert (old.stat().st_size, old.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    with pytest.raises(InputError, match="images that have changed"):
        check_images(Parts(config(images, latents)))


def test_interrupted_work_goes_on_with_copies_that_kept_their_times(made, tmp_path):
    images, _ = made
    shutil.copytree(images, tmp_path / "copies")  # with times, as rsync -t
    one, two = Folder(str(images)), Folder(str(tmp_path / "copies"))
    assert one.stamp(of_copies=True) == two.stamp(of_copies=True) and one.stamp() != two.stamp()


def test_images_that_came_went_or_changed_their_class(made):
    images, latents = made
    (images / "class0" / "0.bmp").rename(images / "class1" / "0.bmp")
    with pytest.raises(InputError, match=r"images that have changed.*listing_sha256"):
        check_images(Parts(config(images, latents)))
    (images / "class1" / "0.bmp").rename(images / "class0" / "0.bmp")
    check_images(Parts(config(images, latents)))
    (images / "class0" / "0.bmp").unlink()
    with pytest.raises(InputError, match=r"images that have changed.*count"):
        check_images(Parts(config(images, latents)))


def test_copies_with_other_times_are_read_once(made, caplog, monkeypatch):
    images, latents = made
    caplog.set_level(logging.INFO, "dit")
    before = manifest_hash(latents)
    for path in images.rglob("*.bmp"):
        os.utime(path, (path.stat().st_atime - YEAR, path.stat().st_mtime - YEAR))
    assert not encode(latents, Folder(str(images))).fresh
    assert "reading the images" in caplog.text and manifest_hash(latents) == before
    monkeypatch.setattr(Folder, "content", lambda *_: pytest.fail("read again"))
    check_images(Parts(config(images, latents)))


def test_another_container_of_the_same_images_is_the_same_data(made):
    images, latents = made
    write_zip(
        images / "all.zip", {p.relative_to(images).as_posix(): p.read_bytes() for p in images.rglob("*.bmp")}
    )
    check_origin(latents, Zip(str(images / "all.zip")))


def test_a_run_needs_no_images(made):
    images, latents = made
    shutil.rmtree(images)
    check_images(Parts(config(images, latents)))


def test_latents_without_a_stamp_are_checked_by_encode_alone(made):
    """As those of older versions are: their images are read once."""
    images, latents = made
    (latents / "origin.json").unlink()
    check_images(Parts(config(images, latents)))
    assert not (latents / "origin.json").exists()
    assert not encode(latents, Folder(str(images))).fresh
    assert (latents / "origin.json").exists()
    for damage in (b"", b"[]", b"{", b'{"stamp": 3}'):
        (latents / "origin.json").write_bytes(damage)
        assert not encode(latents, Folder(str(images))).fresh


class Stopped(Exception):
    pass


def test_unfinished_work_is_not_mixed_with_changed_images(tmp_path):
    source = write(tmp_path / "images", [0, 50, 100, 150, 200, 250])

    def stop(stage, done, total, detail):
        if done >= 4:
            raise Stopped

    with pytest.raises(Stopped):
        encode(tmp_path / "latents", source, progress=stop, batch_size=1)
    write(tmp_path / "images", [1, 50, 100, 150, 200, 250])
    with pytest.raises(InputError, match=r"files that have changed since .*tmp-.*Remove"):
        encode(tmp_path / "latents", Folder(source.path))
    assert not (tmp_path / "latents").exists()
    shutil.rmtree(next(tmp_path.glob("latents.tmp-*")))
    assert encode(tmp_path / "latents", Folder(source.path)).fresh


def make_container(kind: type, path: Path):
    image = test_parquet.IMAGES[0]
    if kind is Zip:
        return write_zip(path, {"cat/1.jpg": image})
    if kind is Tar:
        return write_tar(path, {"1.jpg": image, "1.cls": b"0"})
    test_parquet.write(path, {"image": test_parquet.STRUCTS[:1], "label": [0]})
    return Parquet(str(path))


@pytest.mark.parametrize("kind", [Zip, Tar, Parquet])
def test_containers_are_stamped_by_size_and_time(kind, tmp_path):
    path = tmp_path / "a"
    stamp = make_container(kind, path).stamp()
    assert kind(str(path)).stamp() == stamp
    os.utime(path, (0, 10**9))
    assert kind(str(path)).stamp() != stamp


def test_torchvision_is_stamped_by_its_files_and_digits_by_their_content(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "batch").write_bytes(b"x")
    source = Torchvision("CIFAR10", str(tmp_path))
    stamp = source.stamp()
    (tmp_path / "data" / "batch").write_bytes(b"xy")
    assert source.stamp() != stamp
    assert Digits().stamp() == ""
