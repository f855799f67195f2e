import json

import numpy as np
import pytest
import torch

from dit.errors import InputError
from dit.evaluation.catalogue import METRICS
from dit.evaluation.evaluate import evaluate_samples
from dit.evaluation.extractors import load_extractor
from dit.evaluation.features import Extractor, Outputs
from dit.evaluation.measure import compare
from dit.evaluation.measured import Measured
from dit.evaluation.meter import Meter, images_hash, images_sum
from dit.evaluation.metrics import frechet_distance
from dit.evaluation.protocol import Protocol, over_seeds
from dit.evaluation.reference import measure_reference
from dit.evaluation.statistics import Statistics


class Pooled(Extractor):
    """Means over blocks as features, corner pixels as spatial features, three of the means as logits."""

    name, sha256, preprocessing = "pooled", "0", "none"

    def outputs(self, images: torch.Tensor) -> Outputs:
        pooled = torch.nn.functional.avg_pool2d(images.float(), 8).flatten(1)  # (B, 48)
        return Outputs(pooled, pooled[:, :3], images[:, 0, :4, :4].float().flatten(1))


def test_every_metric_comes_out_by_its_recorded_name(images) -> None:
    sample = measure_reference(images[:200], Pooled(), [name for name in METRICS])
    meter = Meter(Pooled(), METRICS, [200])
    meter.update(images[:200], np.arange(200))
    found = compare(meter.results()[0], measure_reference(images, Pooled(), METRICS), METRICS)
    assert {
        "frechet_distance",
        "spatial_frechet_distance",
        "inception_score",
        "kernel_distance",
        "precision",
        "recall",
        "frechet_distance_infinity",
        "authenticity",
    } <= found.keys()
    assert found["precision"] == 1.0 and found["authenticity"] == 0.0  # the sample is part of the reference
    corners = images[:, 0, :4, :4].reshape(300, 16).double().numpy()
    expected = frechet_distance(Statistics(16).update(corners[:200]), Statistics(16).update(corners))
    assert found["spatial_frechet_distance"] == pytest.approx(expected, rel=1e-9)
    assert sample.logits is None


def test_the_spatial_distance_equals_an_independent_computation(images) -> None:
    import scipy.linalg

    corners = images[:, 0, :4, :4].reshape(300, 16).double().numpy()
    a, b = corners[:150], corners[150:]
    roots = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * roots)
    sets = [measure_reference(part, Pooled(), ("fd", "sfid")) for part in (images[:150], images[150:])]
    assert compare(*sets, metrics=["sfid"])["spatial_frechet_distance"] == pytest.approx(expected, rel=1e-6)


def test_subsets_of_one_pass_equal_passes_of_their_own(images) -> None:
    meter = Meter(Pooled(), ("fd", "kid"), [50, 120, 300])
    for low in range(0, 300, 64):
        meter.update(images[low : low + 64], np.arange(low, min(low + 64, 300)))
    for n, measured in zip((50, 120, 300), meter.results()):
        alone = measure_reference(images[:n], Pooled(), ("fd", "kid"))
        np.testing.assert_allclose(measured.stats.cov, alone.stats.cov, rtol=1e-9)
        np.testing.assert_array_equal(measured.features, alone.features)
        assert measured.stats.n == n


def test_features_come_back_in_the_order_of_their_index(images) -> None:
    order = np.random.default_rng(0).permutation(300)
    meter = Meter(Pooled(), ("kid",), [300])
    for part in np.array_split(order, 7):
        meter.update(images[part], part)
    np.testing.assert_array_equal(meter.results()[0].features, Pooled().features(images).numpy())


def test_measured_sets_survive_a_file(tmp_path, images) -> None:
    measured = measure_reference(images, Pooled(), ("fd", "sfid", "kid"), cache=tmp_path)
    read = measure_reference(images, Pooled(), ("fd", "sfid", "kid"), cache=tmp_path)
    assert read.stats.metadata == measured.stats.metadata
    np.testing.assert_array_equal(read.features, measured.features)
    np.testing.assert_allclose(read.spatial.cov, measured.spatial.cov, rtol=1e-14)
    without = measure_reference(images, Pooled(), ("fd",), cache=tmp_path)
    assert without.features is None and len(list(tmp_path.iterdir())) == 2


def test_a_reference_without_features_refuses_what_needs_them(images) -> None:
    reference, sample = measure_reference(images, Pooled()), measure_reference(images, Pooled(), METRICS)
    for metric in ("kid", "precision_recall", "memorisation"):
        with pytest.raises(InputError, match=f"{metric}.*features"):
            compare(sample, reference, [metric])
    with pytest.raises(InputError, match="sfid"):
        compare(sample, reference, ["sfid"])
    assert "frechet_distance_infinity" in compare(sample, reference, ["fd_infinity"])


def test_metrics_the_extractor_cannot_give_are_refused_at_the_first_image(images) -> None:
    meter = Meter(load_extractor("digits"), ("sfid",), [300])
    with pytest.raises(InputError, match="spatial features"):
        meter.update(images, np.arange(300))
    with pytest.raises(InputError, match=r"evaluation\.metrics.*fid"):
        Meter(Pooled(), ("fidelity",), [10])
    with pytest.raises(InputError, match="increasing"):
        Meter(Pooled(), ("fd",), [10, 5])
    with pytest.raises(InputError, match="at least one image"):
        Meter(Pooled(), ("fd",), [10]).results()


def test_the_hash_of_images_ignores_their_order_and_minds_their_number(images) -> None:
    flipped = images.flip(0)
    assert images_hash(images_sum(images), 300) == images_hash(images_sum(flipped), 300)
    assert images_hash(images_sum(images), 300) != images_hash(images_sum(images[:299]), 299)
    twice = torch.cat([images, images])
    assert images_hash(images_sum(images), 300) != images_hash(images_sum(twice), 600)


def test_evaluate_samples_reports_subsets_and_accuracy_only_where_classes_are_the_datas(
    denoiser, codec, sampling, images
) -> None:
    reference = measure_reference(images, Pooled(), ("fd", "kid"))
    result = evaluate_samples(
        denoiser,
        codec,
        Pooled(),
        reference,
        n=70,
        subsets=[60, 64],
        metrics=("fd", "kid"),
        preview=3,
        **sampling,
    )
    assert [found.metrics["n"] for found in result.subsets] == [60, 64]
    assert result.subsets[0].protocol.n == 60 and result.protocol.n == 70
    alone = evaluate_samples(denoiser, codec, Pooled(), reference, n=60, **sampling)
    assert result.subsets[0].metrics["frechet_distance"] == pytest.approx(
        alone.metrics["frechet_distance"], rel=1e-6
    )
    assert result.metrics["accuracy"] is None  # 3 logits, 10 classes


def test_seeds_are_summarised_by_mean_and_sd(denoiser, codec, sampling, images) -> None:
    reference = measure_reference(images, Pooled())
    runs = [
        evaluate_samples(denoiser, codec, Pooled(), reference, n=60, seed=seed, **sampling)
        for seed in (0, 1, 2)
    ]
    values = [run.metrics["frechet_distance"] for run in runs]
    assert len(set(values)) == 3
    summary, protocol = over_seeds([(run.metrics, run.protocol) for run in runs])
    assert (
        protocol.seed == (0, 1, 2)
        and Protocol.from_dict(json.loads(json.dumps(protocol.as_dict()))) == protocol
    )
    assert summary["frechet_distance"] == pytest.approx(np.mean(values))
    assert summary["frechet_distance_sd_over_seeds"] == pytest.approx(np.std(values, ddof=1))
    assert summary["seeds"] == 3 and summary["n"] == 60
    other = evaluate_samples(denoiser, codec, Pooled(), reference, n=60, labels="random", **sampling)
    with pytest.raises(InputError, match=r"protocol\.labels"):
        over_seeds([(run.metrics, run.protocol) for run in (runs[0], other)])


def test_statistics_alone_are_a_reference(images) -> None:
    reference = Measured(Statistics(48).update(Pooled().features(images)))
    assert compare(measure_reference(images, Pooled()), reference)["frechet_distance"] < 1e-6
