"""What a set of images is known by: its pictures, not their names, sizes and times."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dit.errors import InputError
from dit.evaluation.files import images_identity
from dit.evaluation.measured import Measured
from dit.evaluation.statistics import Statistics


def bitmap(seed: int) -> bytes:
    """A picture whose file has one size whatever it shows."""
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(256, size=(8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "BMP")
    return file.getvalue()


def put(path: Path, content: bytes) -> None:
    """Always at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(10**18, 10**18))


def folder(path: Path, seeds: list[int]) -> None:
    for number, seed in enumerate(seeds):
        put(path / "class" / f"{number}.bmp", bitmap(seed))


def parquet(path: Path, seeds: list[int]) -> None:
    path.mkdir(exist_ok=True)
    rows = [{"bytes": bitmap(seed), "path": None} for seed in seeds]
    file = io.BytesIO()
    pq.write_table(pa.table({"image": rows}), file, compression="none", use_dictionary=False)
    put(path / "data.parquet", file.getvalue())


def archive(path: Path, seeds: list[int]) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for number, seed in enumerate(seeds):
            file.writestr(zipfile.ZipInfo(f"{number}.bmp"), bitmap(seed))


@pytest.mark.parametrize("make", [folder, parquet, archive])
def test_a_changed_picture_is_another_set_whatever_its_name_size_and_time(make, tmp_path) -> None:
    path = tmp_path / "set.zip" if make is archive else tmp_path / "set"
    found = []
    for seeds in ([1, 2, 3], [1, 2, 4], [1, 3, 2], [1, 2, 3]):
        make(path, seeds)
        found.append(images_identity(path))
    assert found[0] == found[3] and len(set(found)) == 3


def test_a_set_that_has_only_been_moved_or_touched_is_the_same(tmp_path) -> None:
    folder(tmp_path / "a", [1, 2])
    folder(tmp_path / "b", [1, 2])
    os.utime(tmp_path / "b/class/0.bmp")
    assert images_identity(tmp_path / "a") == images_identity(tmp_path / "b")


def test_a_picture_that_cannot_be_read_is_named(tmp_path) -> None:
    rows = [{"bytes": bitmap(1), "path": None}, {"bytes": None, "path": "elsewhere.bmp"}]
    (tmp_path / "set").mkdir()
    pq.write_table(pa.table({"image": rows}), tmp_path / "set/data.parquet")
    with pytest.raises(InputError, match=r"data\.parquet:1"):
        images_identity(tmp_path / "set")


def test_no_flip_or_cut_of_a_file_of_statistics_passes(tmp_path) -> None:
    stats = Statistics.of_moments(10, np.arange(4.0), 2 * np.eye(4), {"images": "abc", "extractor": "x"})
    whole = Measured(stats, stats, np.ones((10, 4), np.float32)).save(tmp_path / "whole.npz").read_bytes()
    generator, refused = np.random.default_rng(0), 0
    for number in range(300):
        torn = bytearray(whole)
        place = int(generator.integers(len(whole)))
        if number % 2:
            torn[place] ^= 1 << int(generator.integers(8))
        (tmp_path / "torn.npz").write_bytes(torn if number % 2 else torn[:place])
        try:
            found = Measured.load(tmp_path / "torn.npz")
        except InputError:
            refused += 1
            continue
        assert found.stats.metadata == stats.metadata and found.stats.n == 10
        assert found.stats.mean.tolist() == [0, 1, 2, 3] and np.array_equal(found.stats.cov, 2 * np.eye(4))
        assert found.spatial is not None and found.features is not None and found.features.sum() == 40
    assert refused > 200
