"""Inception score, kernel distance, precision and recall against torch-fidelity; extrapolation of a bias."""

import warnings

import numpy as np
import pytest
import scipy.spatial.distance
import torch
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from dit.errors import InputError
from dit.evaluation.metrics import (
    MetricWarning,
    frechet_at_infinity,
    frechet_distance,
    inception_score,
    kernel_distance,
)
from dit.evaluation.neighbours import memorisation, nearest_training, precision_recall
from dit.evaluation.statistics import Statistics
from tests.evaluation.conftest import correlated

A, B = correlated(700, 24, seed=0), correlated(600, 24, seed=1, offset=0.2)


def test_inception_score_equals_torch_fidelitys() -> None:
    logits = correlated(1003, 20, seed=2) * 3
    theirs = isc_features_to_metric(torch.from_numpy(logits))
    ours = inception_score(logits)
    assert ours["inception_score"] == pytest.approx(theirs["inception_score_mean"], rel=1e-6)
    assert ours["inception_score_sd"] == pytest.approx(theirs["inception_score_std"], rel=1e-6)


def test_inception_score_of_certain_even_classes_is_their_number() -> None:
    logits = np.tile(np.eye(5) * 1000, (40, 1))
    assert inception_score(logits, splits=1)["inception_score"] == pytest.approx(5.0, rel=1e-9)


@pytest.mark.parametrize("subset_size", [100, 600])
def test_kernel_distance_equals_torch_fidelitys_on_equal_subsets(subset_size: int) -> None:
    wide = [torch.from_numpy(features.astype(np.float64)) for features in (A, B)]
    theirs = kid_features_to_metric(*wide, kid_subset_size=subset_size, kid_subsets=20, verbose=False)
    ours = kernel_distance(A, B, subsets=20, subset_size=subset_size)
    assert ours["kernel_distance"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-6)
    assert ours["kernel_distance_sd"] == pytest.approx(
        theirs["kernel_inception_distance_std"], rel=1e-6, abs=1e-12
    )


def test_kernel_distance_warns_where_its_sd_means_nothing() -> None:
    """All of 600 in each subset: a hundred times the same number."""
    with pytest.warns(MetricWarning, match="share most of them"):
        assert kernel_distance(A, B[:100])["kernel_distance_sd"] < 0.1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kernel_distance(A, B, subset_size=300, subsets=2)


def test_kernel_distance_says_which_subset_size_it_took() -> None:
    assert kernel_distance(A, B, subsets=1)["kernel_subset_size"] == 600
    with pytest.raises(InputError, match="subset_size"):
        kernel_distance(A, B, subset_size=601)


@pytest.mark.parametrize("neighbourhood", [1, 3, 5])
def test_precision_and_recall_equal_torch_fidelitys(neighbourhood: int) -> None:
    narrow = A * 0.7  # a sample that covers part of the data: the two numbers differ
    theirs = prc_features_to_metric(
        torch.from_numpy(narrow), torch.from_numpy(B), prc_neighborhood=neighbourhood, verbose=False
    )
    ours = precision_recall(narrow, B, neighbourhood)
    assert ours["precision"] == pytest.approx(theirs["precision"], rel=1e-6)
    assert ours["recall"] == pytest.approx(theirs["recall"], rel=1e-6)
    assert ours["precision"] != ours["recall"]


def test_precision_and_recall_in_small_blocks_are_the_same(monkeypatch) -> None:
    whole = precision_recall(A, B)
    monkeypatch.setattr("dit.evaluation.neighbours.BLOCK_ELEMENTS", 7 * 600)
    assert precision_recall(A, B) == whole


def test_a_neighbourhood_larger_than_the_set_is_refused() -> None:
    with pytest.raises(InputError, match="neighbourhood"):
        precision_recall(A[:3], B, 3)


def test_memorisation_tells_copies_from_fresh_draws() -> None:
    training, fresh, held_out = (correlated(3000, 8, seed=4)[part::3] for part in range(3))
    honest = memorisation(fresh, training, held_out)
    assert 0.4 < honest["authenticity"] < 0.6 and honest["copies"] < 0.04
    copied = memorisation(training[:200] + 1e-4, training, held_out)
    assert copied["authenticity"] < 0.01 and copied["copies"] > 0.99


def test_nearest_training_agrees_with_scipy() -> None:
    distances = scipy.spatial.distance.cdist(A.astype(float), B.astype(float))
    nearest = nearest_training(A, B)
    np.testing.assert_array_equal(nearest.index, distances.argmin(1))
    np.testing.assert_allclose(nearest.distance, distances.min(1), rtol=1e-9)


def test_extrapolation_removes_the_bias_of_few_samples() -> None:
    """Both sets standard normal: the true distance is 0, that of 400 samples about 0.2."""
    dim = 16
    features = np.random.default_rng(0).normal(size=(2000, dim))
    truth = Statistics.of_moments(None, np.zeros(dim), np.eye(dim))
    at_400 = frechet_distance(Statistics(dim).update(features[:400]), truth)
    found = frechet_at_infinity(features, truth)
    assert 0.1 < at_400 < 0.4
    assert abs(found["frechet_distance_infinity"]) < 0.1 * at_400
    assert 0 < found["frechet_distance_infinity_se"] < 0.1 * at_400


def test_extrapolation_needs_eight_sizes() -> None:
    stats = Statistics(24).update(B)
    with pytest.raises(InputError, match="at least 8 sizes"):
        frechet_at_infinity(A, stats, sizes=[100, 200, 300])
    with pytest.raises(InputError, match="sizes"):
        frechet_at_infinity(A[:5], stats)
