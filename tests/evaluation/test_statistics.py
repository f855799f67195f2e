import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dit.errors import InputError
from dit.evaluation.statistics import Statistics
from tests.evaluation.conftest import correlated


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 200), max_size=8), offset=st.sampled_from([0.0, 1e3]))
def test_any_split_into_batches_and_ranks_gives_numpys_covariance(cuts: list[int], offset: float) -> None:
    features = correlated(200, 12, seed=0, offset=offset)
    edges = [0, *sorted(cuts), 200]
    parts = [Statistics(12).update(features[low:high]) for low, high in itertools.pairwise(edges)]
    merged = Statistics(12)
    for part in parts:
        merged.merge(part)
    wide = features.astype(np.float64)
    assert merged.n == 200
    np.testing.assert_allclose(merged.mean, wide.mean(0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(merged.cov, np.cov(wide, rowvar=False), rtol=1e-9, atol=1e-9)


def test_half_precision_tensors_are_accumulated_in_float64() -> None:
    features = torch.from_numpy(correlated(100, 4, seed=3)).half()
    expected = np.cov(features.double().numpy(), rowvar=False)
    np.testing.assert_allclose(Statistics(4).update(features).cov, expected, rtol=1e-12)


def test_save_and_load_keep_every_bit_and_the_metadata(tmp_path) -> None:
    stats = Statistics(5, {"extractor": "x", "images": "abc"}).update(correlated(20, 5, seed=1))
    read = Statistics.load(stats.save(tmp_path / "deep" / "s.npz"))
    assert (read.n, read.metadata) == (20, {"extractor": "x", "images": "abc"})
    np.testing.assert_array_equal(read.mean, stats.mean)
    np.testing.assert_allclose(read.cov, stats.cov, rtol=1e-15)


def test_the_file_has_the_names_which_adms_tools_read_and_nothing_pickled(tmp_path) -> None:
    stats = Statistics(5).update(correlated(20, 5, seed=1))
    with np.load(stats.save(tmp_path / "s.npz"), allow_pickle=False) as file:
        np.testing.assert_array_equal(file["mu"], stats.mean)
        np.testing.assert_array_equal(file["sigma"], stats.cov)


def test_an_adm_file_is_read_as_it_is_and_cannot_grow(tmp_path) -> None:
    np.savez(
        tmp_path / "adm.npz",
        mu=np.ones(3, np.float32),
        sigma=2 * np.eye(3),
        mu_s=np.zeros(2),
        sigma_s=np.eye(2),
    )
    stats = Statistics.load(tmp_path / "adm.npz")
    assert stats.n is None and stats.metadata["images"] == "adm.npz"
    np.testing.assert_array_equal(stats.cov, 2 * np.eye(3))
    assert Statistics.load(tmp_path / "adm.npz", "_s").dim == 2
    with pytest.raises(InputError, match="known number of images"):
        stats.update(np.zeros((1, 3)))


def test_rows_give_the_same_bits_however_they_are_batched() -> None:
    features = correlated(3000, 6, seed=5)
    whole = Statistics(6).update(features)
    for size in (1, 7, 1000):
        parts = Statistics(6)
        for start in range(0, 3000, size):
            parts.update(features[start : start + size])
        assert np.array_equal(parts.cov, whole.cov) and np.array_equal(parts.mean, whole.mean)


@pytest.mark.parametrize(
    "arrays",
    [
        {"mu": np.zeros(3)},
        {"mu": np.zeros(3, np.int64), "sigma": np.eye(3)},
        {"mu": np.zeros(3), "sigma": np.eye(4)},
        {"mu": np.full(3, np.nan), "sigma": np.eye(3)},
        {"mu": np.zeros(3), "sigma": np.eye(3) + np.eye(3, k=1)},
        {"mu": np.zeros(3), "sigma": -np.eye(3)},
        {"mu": np.array([{}, {}], dtype=object), "sigma": np.eye(2)},
    ],
    ids=[
        "no sigma",
        "integers",
        "shapes disagree",
        "NaN",
        "not symmetric",
        "negative variances",
        "pickled objects",
    ],
)
def test_wrong_files_are_refused_with_one_message(tmp_path, arrays: dict) -> None:
    np.savez(tmp_path / "bad.npz", n=np.int64(10), **arrays)
    with pytest.raises(InputError, match="reference"):
        Statistics.load(tmp_path / "bad.npz")


def test_a_file_which_is_no_archive_is_refused(tmp_path) -> None:
    (tmp_path / "bad.npz").write_bytes(b"not an archive")
    with pytest.raises(InputError, match=r"bad\.npz"):
        Statistics.load(tmp_path / "bad.npz")
    with pytest.raises(InputError, match="existing"):
        Statistics.load(tmp_path / "absent.npz")


def test_features_with_nan_or_of_another_width_are_refused() -> None:
    with pytest.raises(InputError, match="NaN"):
        Statistics(2).update(np.array([[1.0, np.nan]]))
    with pytest.raises(InputError, match="shape"):
        Statistics(2).update(np.zeros((1, 3)))
