"""Values of the data's settings: their defaults, the lowest that is accepted, and numbers that are not whole."""

import dataclasses
import inspect
import struct
import tarfile

import pytest

from dit.data import draws, encode, images, loader, pixels
from dit.data.autoencoder import Pretrained, TrainedKL
from dit.data.autoencoder_training import rate_share
from dit.data.encode import encode_dataset
from dit.data.images import Digits, UnreadableImage, check_file_bytes
from dit.data.latents import LatentSet
from dit.data.schema import is_count
from dit.data.sources.base import MAX_CLASSES, check_labels
from dit.data.sources.names import check_one_split, class_folders
from dit.data.sources.webdataset import Tar, _WithinFile
from dit.data.split import ByContent, Stratified, StratifiedShare
from dit.errors import InputError
from tests.data.conftest import TINY_KL, encode_digits
from tests.data.test_archives import write_tar, write_zip
from tests.data.test_sources import jpeg
from tests.values import changeable, defaults

KL = dataclasses.asdict(TINY_KL)
HUB = {"kind": "AutoencoderKL", "path": "a/b", "latent_channels": 4, "reduction": 8}


@pytest.mark.parametrize(
    ("make", "key", "field", "lowest"),
    [
        (lambda **v: TrainedKL(**KL | v), "autoencoder.latent_channels", "latent_channels", 1),
        (lambda **v: TrainedKL(**KL | v), "autoencoder.batch_size", "batch_size", 1),
        (lambda **v: TrainedKL(**KL | v), "autoencoder.steps", "steps", 1),
        (lambda **v: TrainedKL(**KL | v), "autoencoder.seed", "seed", 0),
        (lambda widths: TrainedKL(**KL | {"widths": [widths]}), "autoencoder.widths", "widths", 8),
        (lambda **v: Pretrained(**HUB | v), "autoencoder.latent_channels", "latent_channels", 1),
        (lambda **v: Pretrained(**HUB | v), "autoencoder.reduction", "reduction", 1),
        (Stratified, "data.split.count", "count", 1),
        (lambda salt: Stratified(1, salt), "data.split.salt", "salt", 0),
        (lambda salt: ByContent(0.1, salt), "data.split.salt", "salt", 0),
        (StratifiedShare, "data.split.at_least", "at_least", 1),
        (StratifiedShare, "data.split.per_class", "per_class", 0),
        (StratifiedShare, "data.split.salt", "salt", 0),
        (lambda n: loader.indices(0, n, 0, 1), "n", "n", 1),
        (lambda images_seen: loader.indices(0, 1, images_seen, 1), "images_seen", "images_seen", 0),
        (lambda batch: loader.indices(0, 1, 0, batch), "batch", "batch", 1),
        (
            lambda image_size: Digits().pixels(Digits().content(0), image_size),
            "data.image_size",
            "image_size",
            8,
        ),
    ],
)
def test_whole_numbers_from_the_lowest_on(make, key, field, lowest):
    make(**{field: lowest})
    for value in (lowest - 1, float(lowest), lowest + 0.5):
        with pytest.raises(InputError, match=key):
            make(**{field: value})


@pytest.mark.parametrize(
    ("field", "lowest"),
    [("batch_size", 1), ("shard_images", 1), ("image_size", 1), ("allow_bad", 0), ("decode_threads", 0),
     ("world_size", 1), ("rank", 0)],
)  # fmt: skip
def test_numbers_of_encoding(field, lowest, tmp_path):
    for value in (lowest - 1, float(lowest), lowest + 0.5):
        with pytest.raises(InputError, match=field):
            encode_digits(tmp_path / "latents", **{field: value})


def test_numbers_of_draws(pixels):
    held_out = LatentSet(pixels, "validation")
    made = draws.validation_draws(held_out, 64)
    assert len(made.edges) == 9  # eight bins where nothing is said
    assert made.sha256 == draws.validation_draws(held_out, 64, 8, 0).sha256
    assert len(draws.validation_draws(held_out, 1, 1)) == 1
    for wrong in (
        {"n_draws": 64.0},
        {"n_bins": 8.0},
        {"n_bins": 0},
        {"seed": 0.0},
        {"seed": -1},
        {"n_draws": 7},
    ):
        with pytest.raises(InputError, match=f"validation.{next(iter(wrong))}"):
            draws.validation_draws(held_out, **{"n_draws": 64, **wrong})
    for path in pixels.glob("draws-*"):
        path.unlink()


def test_times_of_draws_lie_in_their_strata(pixels):
    """One in each of n equal parts of [.02, .98], and the bin of each holds it."""
    made = draws._make(LatentSet(pixels, "validation"), 160, 8, seed=0)
    t = made["t_linear"].double()
    assert sorted(((t - 0.02) / 0.96 * 160).floor().int().tolist()) == list(range(160))
    edges = made["edges"][made["bin_id"]], made["edges"][made["bin_id"] + 1]
    assert bool(((edges[0] <= made["log_snr"] + 1e-5) & (made["log_snr"] <= edges[1] + 1e-5)).all())


def test_defaults_of_encoding_are_those_of_the_documents():
    expected = {
        "flip": False,
        "dtype": "float32",
        "normalise": "channel",
        "batch_size": 64,
        "shard_images": 4096,
    }
    expected |= {"allow_bad": 0, "device": "cpu", "decode_threads": 0, "rank": 0, "world_size": 1}
    found = {key: value.default for key, value in inspect.signature(encode_dataset).parameters.items()}
    assert {key: found[key] for key in expected} == expected
    assert StratifiedShare() == StratifiedShare(0.02, 256, 4, 0.25, 0)
    assert encode.ENCODING_THREADS == 1  # the same bits for any setting of the caller


def test_values_do_not_change():
    assert changeable("dit.data") == {"Totals"}  # which adds up


def test_waveforms_are_those_of_published_vocoders():
    """HiFi-GAN (2010.05646) and Tacotron 2 at 22.05 kHz: windows of 1024, hops of 256, 80 bands up to 8 kHz."""
    found = {
        name: one["Waveforms.__init__"]
        for name, one in defaults("dit.data").items()
        if "Waveforms.__init__" in one
    }
    published = {"sample_rate": 22050, "n_fft": 1024, "hop": 256, "n_mels": 80, "fmin": 0.0, "fmax": 8000.0}
    assert {name: found[name] for name in published} == published


def test_learning_rate_of_the_small_autoencoder():
    """Up over 50 steps, level, down to nothing over the second half (docstring of TrainedKL)."""
    share = [rate_share(step, 400) for step in range(400)]
    assert share[0] == 1 / 50 and share[24] == 0.5 and share[49:201] == [1] * 152
    assert share[300] == 0.5 and share[399] == pytest.approx(2 / 400)


def test_limits_are_where_they_are_said():
    check_file_bytes(2**30)
    for size in (2**30 + 1, -1):
        with pytest.raises(UnreadableImage):
            check_file_bytes(size)
    assert images.MAX_FILE_BYTES == 2**30 and is_count(2**40 - 1) and not is_count(2**40)
    assert MAX_CLASSES == 2**20 and check_labels([0, 2**20 - 1], "x")
    with pytest.raises(InputError, match="below 1,048,576"):
        check_labels([2**20], "x")


def test_a_label_of_a_kibibyte_is_read_and_no_more(tmp_path):
    files = {"1.jpg": jpeg(0), "1.cls": b" " * 1023 + b"7"}
    assert Tar(write_tar(tmp_path / "a.tar", files).path).label(0) == 7
    with pytest.raises(InputError, match="integer class label"):
        len(write_tar(tmp_path / "b.tar", files | {"1.cls": b" " * 1024 + b"7"}))


def test_a_link_as_long_as_a_path_of_linux_is_followed_and_no_longer(tmp_path):
    for length, good in ((4095, True), (4096, False)):
        target = "./" * ((length - 5) // 2) + "/" * ((length - 5) % 2) + "1.jpg"
        source = write_zip(tmp_path / f"{length}.zip", {"cat/1.jpg": jpeg(0)}, {"cat/2.jpg": target})
        assert len(target) == length
        if good:
            assert source.content(1) == jpeg(0)
        else:
            with pytest.raises(InputError, match="a link to"):
                len(source)


def test_order_of_any_integer_seed():
    for seed in (-1, -(2**70), 2**64 + 3):
        assert loader.permutation(seed, 9, 0).tolist() == loader.permutation(seed % 2**64, 9, 0).tolist()


def frame(marker: int, height: int, width: int) -> bytes:
    return b"\xff\xd8\xff" + bytes([marker]) + struct.pack(">HBHHB", 17, 8, height, width, 3) + b"\0" * 40


def test_plain_jpegs_take_the_short_way_and_bombs_do_not(monkeypatch):
    assert pixels._plain_jpeg(jpeg(0)).size == (24, 20)
    asked = []
    monkeypatch.setattr(pixels.Image, "frombytes", lambda mode, size, *_: asked.append(size))
    side = int(pixels.MAX_PIXELS**0.5)
    for marker in (0xC0, 0xC1, 0xC2):  # baseline, extended, progressive: ITU-T T.81, table B.1
        pixels._plain_jpeg(frame(marker, side, side))
    assert asked == [(side, side)] * 3
    for marker, height, width in ((0xC0, side + 1, side + 1), (0xC0, 0, 9), (0xC3, 9, 9), (0xC9, 9, 9)):
        assert pixels._plain_jpeg(frame(marker, height, width)) is None
    assert len(asked) == 3


def test_files_of_one_split_and_of_none_are_one_set():
    for fine in (
        ["train-0.parquet", "more.parquet"],
        ["test-0.parquet", "test-1.parquet"],
        ["a.parquet"],
        [],
    ):
        check_one_split("folder", fine)
    for wrong in (["train-0.parquet", "test-0.parquet"], ["a.parquet", "test-0.parquet"]):
        with pytest.raises(InputError, match="several splits"):
            check_one_split("folder", wrong)


def test_an_archive_is_never_read_beyond_its_end(tmp_path):
    """A record of tar, 20 blocks of 512, may be asked for at any place."""
    (tmp_path / "a").write_bytes(b"x" * 30_000)
    with _WithinFile(tmp_path / "a") as file:
        assert file.read(0) == b"" and len(file.read(20_001)) == 20_001 and len(file.read(10_240)) == 9_999
        for size in (None, -1, 10_241, 2**50):
            with pytest.raises(tarfile.ReadError):
                file.read(size)


def test_a_folder_of_one_split_is_a_class_only_where_no_classes_lie_below():
    assert class_folders("folder", ["train/1.jpg", "train/2.jpg"])[1] == ("train",)
    with pytest.raises(InputError, match="which are splits"):
        class_folders("folder", ["train/cat/1.jpg", "train/dog/2.jpg"])
