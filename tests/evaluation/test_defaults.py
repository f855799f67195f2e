"""Numbers that published values rest on, each against its source."""

import hashlib
import inspect
import warnings
import zipfile

import numpy as np
import pytest
import torch
from torch_fidelity.defaults import DEFAULTS
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from dit.errors import InputError
from dit.evaluation.extractors import DINOV2_OFFSET, DINOV2_SIDE, SPATIAL_CHANNELS
from dit.evaluation.generate import sample_seeds
from dit.evaluation.images import open_images, write_npz
from dit.evaluation.measure import measure_images
from dit.evaluation.meter import Meter, images_hash, images_sum
from dit.evaluation.metrics import (
    MetricWarning,
    frechet_at_infinity,
    frechet_distance,
    inception_score,
    kernel_distance,
)
from dit.evaluation.neighbours import memorisation, precision_recall
from dit.evaluation.protocol import Protocol
from dit.evaluation.statistics import Statistics
from tests.values import changeable, defaults

pytestmark = pytest.mark.filterwarnings("ignore::dit.evaluation.metrics.MetricWarning")
NORMAL = np.random.default_rng(0).normal(size=(1200, 6)).astype(np.float32)


def test_the_inception_score_is_of_ten_parts_as_published() -> None:
    """Salimans et al. (1606.03498) and torch-fidelity; more parts give a lower score."""
    assert DEFAULTS["isc_splits"] == 10
    theirs = isc_features_to_metric(
        torch.from_numpy(NORMAL), DEFAULTS["isc_splits"], True, DEFAULTS["rng_seed"]
    )
    ours = inception_score(NORMAL)
    assert ours["inception_score"] == pytest.approx(theirs["inception_score_mean"], rel=1e-6)
    assert ours["inception_score_sd"] == pytest.approx(theirs["inception_score_std"], rel=1e-5)


def test_the_kernel_distance_is_of_a_hundred_subsets_of_a_thousand() -> None:
    """With equal settings it equals torch-fidelity's: test_metrics.py."""
    defaults = inspect.signature(kernel_distance).parameters
    assert defaults["subsets"].default == DEFAULTS["kid_subsets"] == 100
    found = kernel_distance(NORMAL, NORMAL, subsets=1)
    assert found["kernel_subset_size"] == DEFAULTS["kid_subset_size"] == 1000
    assert defaults["seed"].default == DEFAULTS["rng_seed"]


def test_precision_and_recall_are_of_three_neighbours() -> None:
    other = NORMAL[:300] * np.float32(1.3) + np.float32(0.4)
    settings = {name: DEFAULTS[name] for name in ("prc_neighborhood", "prc_batch_size", "save_cpu_ram")}
    theirs = prc_features_to_metric(
        torch.from_numpy(other), torch.from_numpy(NORMAL[300:700]), verbose=False, **settings
    )
    ours = precision_recall(other, NORMAL[300:700])
    assert ours["precision"] == pytest.approx(theirs["precision"], abs=1e-6)
    assert ours["recall"] == pytest.approx(theirs["recall"], abs=1e-6)


def test_the_distance_at_infinity_is_the_intercept_of_ten_sizes_from_a_fifth() -> None:
    """Chong & Forsyth (1911.07023): a line in 1/N through evenly spaced sizes, by the normal equations."""
    sample, reference = NORMAL[:500], Statistics(6).update(NORMAL[500:] * np.float32(1.2))
    generator, sizes = np.random.default_rng(DEFAULTS["rng_seed"]), 100 + np.arange(10) * 400 / 9
    found = []
    for size in sizes.astype(int):
        part = sample[generator.choice(500, size, replace=False)]
        found.append(frechet_distance(Statistics(6).update(part), reference))
    x, y = 1 / sizes.astype(int), np.array(found)
    slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    intercept = y.mean() - slope * x.mean()
    residual = ((y - intercept - slope * x) ** 2).sum() / (10 - 2)
    error = np.sqrt(residual * (1 / 10 + x.mean() ** 2 / ((x - x.mean()) ** 2).sum()))
    ours = frechet_at_infinity(sample, reference)
    assert ours["frechet_distance_infinity"] == pytest.approx(intercept, rel=1e-9)
    assert ours["frechet_distance_infinity_se"] == pytest.approx(error, rel=1e-9)


def test_constants_of_extractors() -> None:
    """7 channels: Nash et al. (2103.03841), as ADM's evaluator. 224/14 and 0.1: facebookresearch/dinov2."""
    assert (SPATIAL_CHANNELS, DINOV2_SIDE, DINOV2_OFFSET) == (7, 16, 0.1)


@pytest.mark.parametrize(
    ("name", "fewest"), [("is", 10), ("precision_recall", 4), ("fd_infinity", 10), ("fd", 2)]
)
def test_the_fewest_images_that_a_metric_can_do_with(name, fewest) -> None:
    """Parts, neighbours and sizes of which there must be as many."""
    from tests.evaluation.test_measure import Pooled

    Meter(Pooled(), [name], [fewest])
    with pytest.raises(InputError, match=f"at least {fewest}"):
        Meter(Pooled(), [name], [fewest - 1])


def test_the_fewest_images_of_subsets() -> None:
    assert "frechet_distance_infinity" in frechet_at_infinity(NORMAL[:10], Statistics(6).update(NORMAL))
    assert kernel_distance(NORMAL[:4], NORMAL, subset_size=2)["kernel_subset_size"] == 2
    with pytest.raises(InputError, match="subset_size"):
        kernel_distance(NORMAL[:4], NORMAL, subset_size=1)


def test_a_copy_is_nearer_than_the_held_out_images_and_not_as_near() -> None:
    training, held_out = np.array([[0.0], [10.0]]), np.array([[1.0], [11.0]])
    assert memorisation(np.array([[1.0]]), training, held_out)["copies"] == 0
    assert memorisation(np.array([[0.9]]), training, held_out)["copies"] == 1


def test_a_set_is_named_after_its_pixels(images) -> None:
    from tests.evaluation.test_measure import Pooled

    class Listed:
        def __len__(self) -> int:
            return 20

        def read(self, start: int, stop: int) -> torch.Tensor:
            return images[start:stop]

    (found,) = measure_images(Listed(), Pooled(), batch_size=1)
    assert found.stats.metadata["images"] == images_hash(images_sum(images[:20]), 20)


def test_sets_of_images_may_pass_four_gigabytes(tmp_path) -> None:
    """The member's header announces sizes of 64 bits (version 4.5, PKWARE's APPNOTE 4.4.3.2) before they are known."""
    path = write_npz(tmp_path / "a.npz", [torch.zeros(1, 3, 2, 2, dtype=torch.uint8)], 1)
    assert int.from_bytes(path.read_bytes()[4:6], "little") == 45


def test_values_do_not_change() -> None:
    assert changeable("dit.evaluation") == {"Measured"}  # whose features may be made later
    kinds = {one.kind for one in inspect.signature(Protocol).parameters.values()}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}


def test_defaults_are_those_of_the_documents() -> None:
    found = defaults("dit.evaluation")
    same = {
        "batch_size": 128,
        "preview": 0,
        "guidance_scale": 1.0,
        "distributed": False,
        "hashed": False,
        "pil": False,
    }
    for name, value in same.items():
        assert set(found[name].values()) == {value}, name
    assert found["seed"]["evaluate_samples"] == 0 and set(found["neighbourhood"].values()) == {3}
    assert (found["gap"], found["magnify"]) == ({"picture_grid": 2}, {"picture_grid": 1})


def test_a_copy_is_nearer_than_all_but_one_percent_of_held_out_images() -> None:
    training, held_out = np.array([[0.0], [1e6]]), np.arange(1, 1002.0)[:, None]  # the quantile of .01 is 11
    assert memorisation(np.array([[11.5]]), training, held_out)["copies"] == 0
    assert memorisation(np.array([[10.5]]), training, held_out)["copies"] == 1


def test_a_name_of_images_is_the_hash_of_the_sum_of_their_hashes(images) -> None:
    """Modulo 2^128, 16 digits of it; with their count, so that a picture twice is another set."""
    one = images[:1].numpy()[0]
    digest = hashlib.sha256(repr(one.shape).encode() + one.tobytes()).digest()
    total = int.from_bytes(digest[:16], "little")
    assert images_sum(images[:1]) == total
    assert images_sum(images[[0] * 40]) == 40 * total % 2**128
    assert images_hash(2**128 + 5, 3) == images_hash(5, 3) == hashlib.sha256(b"3 5").hexdigest()[:16]


@pytest.mark.parametrize(("uneven", "fine"), [(0.95e-4, True), (1.05e-4, False)])
def test_covariances_are_symmetric_to_a_ten_thousandth(uneven, fine, tmp_path) -> None:
    np.savez(tmp_path / "a.npz", mu=np.zeros(2), sigma=np.array([[1.0, 0.5 + uneven], [0.5, 0.0]]))
    if fine:
        assert Statistics.load(tmp_path / "a.npz").dim == 2
    else:
        with pytest.raises(InputError, match="is not symmetric"):
            Statistics.load(tmp_path / "a.npz")


@pytest.mark.parametrize(("n", "refused"), [(7, False), (8, True)])
def test_eight_images_are_not_all_black(n, refused, tmp_path) -> None:
    path = write_npz(tmp_path / "a.npz", [torch.ones(n, 3, 2, 2, dtype=torch.uint8)], n)
    found = open_images(path)
    if refused:
        with pytest.raises(InputError, match=r"values 0\.\.255"):
            found.read(0, n)
    else:
        assert found.read(0, n).shape[0] == n


def test_seeds_of_samples_are_blocks_of_a_million() -> None:
    assert sample_seeds(0, 3) == range(3) and sample_seeds(4294 - 1, 10**6)[-1] == 4294 * 10**6 - 1
    for seed, n in ((4294, 1), (-1, 1), (0, 0), (0, 10**6 + 1), (1.5, 1), (0, 1.5)):
        with pytest.raises(InputError):
            sample_seeds(seed, n)


def test_the_sizes_begin_at_two_and_end_with_all() -> None:
    reference = Statistics(6).update(NORMAL)
    for count in (10, 50):
        sizes = [int(size) for size in np.linspace(max(count // 5, 2), count, 10)]
        given = frechet_at_infinity(NORMAL[:count], reference, sizes)
        assert frechet_at_infinity(NORMAL[:count], reference) == given
    frechet_at_infinity(NORMAL[:20], reference, range(13, 21))
    for sizes in (range(14, 21), range(1, 12), range(13, 22)):
        with pytest.raises(InputError, match=r"at least 8 sizes in 2\.\.20"):
            frechet_at_infinity(NORMAL[:20], reference, sizes)


def test_warnings_begin_where_sets_are_too_small() -> None:
    """A covariance of D + 1 images is regular; subsets of half the images warn of nothing."""
    full = Statistics(6).update(NORMAL)
    with warnings.catch_warnings():
        warnings.simplefilter("error", MetricWarning)
        frechet_distance(Statistics(6).update(NORMAL[:7]), full)
        kernel_distance(NORMAL[:8], NORMAL, subsets=2, subset_size=4)
    for small in (
        lambda: frechet_distance(Statistics(6).update(NORMAL[:6]), full),
        lambda: kernel_distance(NORMAL[:8], NORMAL, subsets=2, subset_size=5),
    ):
        with pytest.warns(MetricWarning):
            small()


def test_an_image_as_far_from_a_training_image_as_its_neighbour_is_no_new_one() -> None:
    training = np.array([[0.0], [10.0]])
    assert memorisation(np.array([[-10.0]]), training, None)["authenticity"] == 0
    assert memorisation(np.array([[-10.5]]), training, None)["authenticity"] == 1


def test_members_of_archives_are_of_the_year_1980(tmp_path) -> None:
    """The first that a zip file can say: equal images, equal bytes."""
    path = write_npz(tmp_path / "a.npz", [torch.zeros(1, 3, 2, 2, dtype=torch.uint8)], 1, torch.zeros(1))
    with zipfile.ZipFile(path) as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
