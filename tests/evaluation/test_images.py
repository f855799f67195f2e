"""Images on disk: read, written, refused."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dit.errors import InputError
from dit.evaluation.files import evaluate_images, measure_images, open_reference
from dit.evaluation.images import open_images, write_folder, write_npz
from dit.evaluation.protocol import require_equal
from dit.evaluation.reference import measure_reference
from dit.evaluation.statistics import Statistics, read_arrays
from tests.evaluation.test_measure import Pooled

pytestmark = pytest.mark.filterwarnings(
    "ignore::dit.evaluation.metrics.MetricWarning"
)  # few images on purpose


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "png")
    return file.getvalue()


@pytest.fixture
def stored(tmp_path, images):
    """The first 30 images in every form."""
    few = images[:30]
    write_folder(tmp_path / "folder", few.split(8))
    write_npz(tmp_path / "set.npz", few.split(7), 30, labels=torch.arange(30))
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in sorted((tmp_path / "folder").iterdir()):
            archive.write(path, path.name)
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"bytes": path.read_bytes(), "path": path.name} for path in sorted((tmp_path / "folder").iterdir())
    ]
    pq.write_table(pa.table({"image": rows, "label": list(range(30))}), tmp_path / "set.parquet")
    return tmp_path


@pytest.mark.parametrize("name", ["folder", "set.npz", "set.zip", "set.parquet"])
def test_every_form_gives_the_same_pixels_and_numbers(stored, images, name: str) -> None:
    found = open_images(stored / name)
    assert len(found) == 30
    assert torch.equal(found.read(3, 30), images[3:30])
    assert torch.equal(found.read(0, 2), images[:2]), "reading goes back too"
    reference = measure_reference(images, Pooled())
    result = evaluate_images(found, Pooled(), reference, subsets=[20], preview=4)
    assert result.metrics["n"] == 30 and result.protocol.rounding == "as stored"
    expected = evaluate_images(open_images(stored / "set.npz"), Pooled(), reference, subsets=[20])
    assert result.metrics == expected.metrics
    assert result.subsets[0].protocol.n == 20 and result.preview.shape[0] == 4


def test_numpy_reads_the_npz_as_adms_tools_would(stored, images) -> None:
    with np.load(stored / "set.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["arr_0"], images[:30].permute(0, 2, 3, 1).numpy())
        assert file["arr_1"].tolist() == list(range(30))
    again = write_npz(stored / "again.npz", images[:30].split(30), 30, labels=torch.arange(30))
    assert again.read_bytes() == (stored / "set.npz").read_bytes(), "batches do not show in the bytes"


def test_numpys_own_compressed_npz_is_read(tmp_path, images) -> None:
    pixels = images[:10].permute(0, 2, 3, 1).numpy()
    np.savez_compressed(tmp_path / "c.npz", arr_0=pixels)
    assert torch.equal(open_images(tmp_path / "c.npz").read(4, 9), images[4:9])


@pytest.mark.parametrize(
    "arrays",
    [
        {"arr_0": np.zeros((4, 8, 8, 3), np.float32)},
        {"arr_0": np.zeros((4, 3, 8, 8), np.uint8)},
        {"arr_0": np.zeros((4, 8, 8, 3), np.int64)},
        {"images": np.zeros((4, 8, 8, 3), np.uint8)},
    ],
    ids=["floats", "channels first", "wide integers", "another name"],
)
def test_arrays_that_are_no_images_are_refused(tmp_path, arrays) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(InputError, match="arr_0"):
        open_images(tmp_path / "bad.npz")


def test_pixels_of_another_range_are_refused(tmp_path) -> None:
    np.savez(
        tmp_path / "bad.npz", arr_0=np.random.default_rng(0).integers(0, 2, (9, 8, 8, 3), dtype=np.uint8)
    )
    with pytest.raises(InputError, match=r"arr_0: got \(values 0\.\.1\); allowed: values 0\.\.255"):
        open_images(tmp_path / "bad.npz").read(0, 9)


def test_broken_files_are_refused_by_name(tmp_path, images) -> None:
    (tmp_path / "bad.npz").write_bytes(b"PK nothing")
    with pytest.raises(InputError, match=r"bad\.npz"):
        open_images(tmp_path / "bad.npz")
    with pytest.raises(InputError, match="that exists"):
        open_images(tmp_path / "absent")
    whole = png(images[0].permute(1, 2, 0).numpy())
    for name, content in (("empty", b""), ("cut", whole[:200]), ("text", b"hello")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "0.png").write_bytes(whole)
        (folder / "1.png").write_bytes(content)
        with pytest.raises(InputError, match=r"1\.png.*can be read"):
            open_images(folder).read(0, 2)


def test_unusual_files_are_converted_as_documented(tmp_path) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(grey).save(tmp_path / "0.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "1.png")
    found = open_images(tmp_path).read(0, 2)
    for image in found:
        for channel in image:
            np.testing.assert_array_equal(channel.numpy(), grey)


def test_sizes_must_agree_or_be_made_to(tmp_path, images) -> None:
    (tmp_path / "0.png").write_bytes(png(np.zeros((32, 32, 3), np.uint8)))
    (tmp_path / "1.png").write_bytes(png(np.zeros((40, 32, 3), np.uint8)))
    with pytest.raises(InputError, match=r"1\.png.*32x40.*32x32"):
        open_images(tmp_path).read(0, 2)
    assert open_images(tmp_path, image_size=16).read(0, 2).shape == (2, 3, 16, 16)
    write_npz(tmp_path / "set.npz", [images], len(images))
    assert len(open_images(tmp_path / "set.npz", image_size=images.shape[-1])) == len(images)
    with pytest.raises(InputError, match=r"image_size: got \(7 for .*taken as it is"):
        open_images(tmp_path / "set.npz", image_size=7)
    with pytest.raises(InputError, match="image_size: got 'small'"):
        open_images(tmp_path, image_size="small")  # type: ignore[arg-type]


def test_the_protocol_names_the_crop(stored, images) -> None:
    reference = measure_reference(images, Pooled())
    whole = evaluate_images(open_images(stored / "folder"), Pooled(), reference).protocol
    cropped = evaluate_images(
        open_images(stored / "folder", image_size=images.shape[-1]), Pooled(), reference
    ).protocol
    assert (
        whole.rounding == "as stored"
        and cropped.rounding == f"as stored, ADM's centre crop to {images.shape[-1]}"
    )
    with pytest.raises(InputError, match=r"protocol\.rounding"):
        require_equal([whole, cropped])


def test_fewer_images_than_asked_is_an_error(stored, images) -> None:
    reference = measure_reference(images, Pooled())
    with pytest.raises(InputError, match="at most 30"):
        evaluate_images(open_images(stored / "set.npz"), Pooled(), reference, n=31)


def test_an_adm_file_serves_with_its_statistics_and_its_batch_of_images(tmp_path, images) -> None:
    """mu and sigma of all 300 images, arr_0 with 50: the distance is to all, precision among the 50."""
    stats = Statistics(48).update(Pooled().features(images))
    pixels = images[:50].permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "adm.npz", arr_0=pixels, mu=stats.mean, sigma=stats.cov)
    reference = open_reference(tmp_path / "adm.npz", Pooled(), ("fd", "precision_recall"))
    np.testing.assert_array_equal(reference.stats.mean, stats.mean)
    assert reference.features is not None and reference.features.shape == (50, 48)
    assert len(str(reference.stats.metadata["images"])) == 16
    write_npz(tmp_path / "sample.npz", [images[:50]], 50)
    found = evaluate_images(
        open_images(tmp_path / "sample.npz"), Pooled(), reference, metrics=("fd", "precision_recall")
    )
    assert found.metrics["precision"] == 1.0 and found.protocol.reference_n is None


def test_an_adm_file_without_images_refuses_what_needs_them(tmp_path, images) -> None:
    stats = Statistics(48).update(Pooled().features(images))
    np.savez(tmp_path / "adm.npz", mu=stats.mean, sigma=stats.cov)
    reference = open_reference(tmp_path / "adm.npz", Pooled(), ("kid",))
    write_npz(tmp_path / "sample.npz", [images[:50]], 50)
    with pytest.raises(InputError, match=r"kid: got \(statistics alone\)"):
        evaluate_images(open_images(tmp_path / "sample.npz"), Pooled(), reference, metrics=("kid",))


def test_a_stored_reference_is_the_measured_one_and_refuses_another_extractor(tmp_path, images) -> None:
    write_npz(tmp_path / "real.npz", images.split(64), 300)
    measured = open_reference(tmp_path / "real.npz", Pooled(), ("fd", "sfid", "kid"))
    measured.save(tmp_path / "stats.npz")
    read = open_reference(tmp_path / "stats.npz", Pooled(), ("fd", "kid"))
    assert read.stats.metadata == measured.stats.metadata
    np.testing.assert_array_equal(read.features, measured.features)

    class Other(Pooled):
        sha256 = "1"

    with pytest.raises(InputError, match="extractor_sha256"):
        evaluate_images(open_images(tmp_path / "real.npz"), Other(), read)


def test_images_of_cifar_are_read_from_the_hubs_parquet(shared) -> None:
    found = open_images(shared / "data/cifar10/train.parquet")
    assert len(found) == 50_000
    assert found.read(0, 3).shape == (3, 3, 32, 32)
    measured = measure_images(found, Pooled(), counts=[64])[0]
    assert measured.stats.n == 64


def npz_of(path: Path, shape: str, data: bytes) -> Path:
    """An .npz whose only array has any header."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(10 + len(text) + 1) % 64) + b"\n"
    with zipfile.ZipFile(path, "w") as file:
        content = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data
        for name in ("arr_0", "mu", "sigma"):
            file.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize(
    "shape",
    [
        "(-1, 8, 8, 3)",
        "(-1, -8, 8, 3)",
        "(1, 0, 8, 3)",
        f"({2**60}, 8, 8, 3)",
        "(2, 8, 8, 3)",
        "(1, 8, 7, 3)",
    ],
)
def test_a_header_that_does_not_agree_with_its_file(shape, tmp_path) -> None:
    path = npz_of(tmp_path / "a.npz", shape, b"x" * 192)
    with pytest.raises(InputError, match=r"arr_0.*a header that agrees with its file"):
        open_images(path)
    if "-" in shape or str(2**60) in shape or shape.startswith("(2"):
        with pytest.raises(InputError, match="reference"):
            read_arrays(path, ("mu", "sigma"))
    assert len(open_images(npz_of(path, "(1, 8, 8, 3)", b"x" * 192))) == 1


def test_a_pipe_is_no_npz(tmp_path) -> None:
    os.mkfifo(tmp_path / "a.npz")
    with pytest.raises(InputError, match="regular files"):
        open_images(tmp_path / "a.npz")
    with pytest.raises(InputError, match="regular files"):
        read_arrays(tmp_path / "a.npz", ("mu", "sigma"))


def test_hidden_parquet_files_beside_pictures(tmp_path, images) -> None:
    write_folder(tmp_path, [images[:3]])
    (tmp_path / "._a.parquet").write_bytes(b"Mac OS X")
    assert len(open_images(tmp_path)) == 3
