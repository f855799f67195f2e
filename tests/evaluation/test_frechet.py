"""The Fréchet distance against torch-fidelity, scipy and closed forms."""

import warnings

import numpy as np
import pytest
import scipy.linalg
from torch_fidelity.metric_fid import fid_statistics_to_metric

from dit.errors import InputError
from dit.evaluation.metrics import MetricWarning, frechet_distance
from dit.evaluation.statistics import Statistics
from tests.evaluation.conftest import correlated


def of(features: np.ndarray, **metadata: object) -> Statistics:
    return Statistics(features.shape[1], metadata).update(features)


@pytest.mark.parametrize("offset", [0.0, 0.3])
def test_equals_torch_fidelity_on_shared_features(offset: float) -> None:
    a, b = of(correlated(600, 48, seed=0)), of(correlated(500, 48, seed=1, offset=offset))
    theirs = fid_statistics_to_metric(
        {"mu": a.mean, "sigma": a.cov}, {"mu": b.mean, "sigma": b.cov}, verbose=False
    )
    assert frechet_distance(a, b) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)


def test_equals_the_closed_form_of_commuting_covariances() -> None:
    a = Statistics.of_moments(10, np.zeros(3), np.diag([1.0, 4.0, 9.0]))
    b = Statistics.of_moments(10, np.array([0.0, 3.0, 4.0]), np.diag([4.0, 4.0, 1.0]))
    # sum of (sqrt(lambda_a) - sqrt(lambda_b))^2, plus |mu|^2 = 25
    assert frechet_distance(a, b) == pytest.approx(1 + 0 + 4 + 25, rel=1e-12)


def test_singular_covariances_give_the_exact_number_and_a_warning() -> None:
    """n < d. With A, B the centred data over sqrt(n - 1), tr (S_a S_b)^(1/2) is the nuclear norm of A B^T."""
    x, y = correlated(20, 64, seed=0), correlated(30, 64, seed=1)
    a, b = of(x), of(y)
    centred = [
        (z - z.mean(0)).astype(np.float64) / np.sqrt(len(z) - 1) for z in (x.astype(float), y.astype(float))
    ]
    nuclear = np.linalg.norm(centred[0] @ centred[1].T, "nuc")
    expected = ((a.mean - b.mean) ** 2).sum() + np.trace(a.cov) + np.trace(b.cov) - 2 * nuclear
    with pytest.warns(MetricWarning) as caught:
        assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    said = [str(warning.message) for warning in caught]
    assert "20 images for 64 features" in said[0] and "30 images for 64 features" in said[1]


@pytest.mark.parametrize("n", [2, 40, 65, 70])
def test_a_set_against_itself_is_zero_however_few_images(n: int) -> None:
    stats = of(correlated(n, 64, seed=2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MetricWarning)
        assert 0 <= frechet_distance(stats, stats) < 1e-9 * np.trace(stats.cov)


def test_ill_conditioned_covariances_agree_with_scipys_root() -> None:
    scales = np.logspace(0, -6, 32)  # variances over twelve decades
    a, b = of(correlated(400, 32, seed=0) * scales), of(correlated(400, 32, seed=1) * scales)
    root = scipy.linalg.sqrtm(a.cov @ b.cov)
    expected = ((a.mean - b.mean) ** 2).sum() + np.trace(a.cov + b.cov - 2 * root.real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_it_is_symmetric_and_a_constant_feature_changes_nothing() -> None:
    x, y = correlated(200, 8, seed=0), correlated(200, 8, seed=1)
    distance = frechet_distance(of(x), of(y))
    assert frechet_distance(of(y), of(x)) == pytest.approx(distance, rel=1e-10)
    padded = [of(np.concatenate([z, np.ones((200, 1))], axis=1)) for z in (x, y)]
    assert frechet_distance(*padded) == pytest.approx(distance, rel=1e-9)


def test_statistics_of_two_extractors_do_not_meet() -> None:
    x = correlated(20, 4, seed=0)
    with pytest.raises(InputError, match="extractor_sha256"):
        frechet_distance(of(x, extractor_sha256="a"), of(x, extractor_sha256="b"))
    with pytest.raises(InputError, match="width"):
        frechet_distance(of(x), of(x[:, :3]))


def test_one_image_is_no_covariance() -> None:
    x = correlated(20, 4, seed=0)
    with pytest.raises(InputError, match="two images"), warnings.catch_warnings():
        warnings.simplefilter("ignore", MetricWarning)
        frechet_distance(of(x[:1]), of(x))
