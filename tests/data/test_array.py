"""Arrays as data: what a .npy file may hold, what is refused before anything is allocated; a modality of your own."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from dit.data.autoencoder import Identity
from dit.data.codec import Codec
from dit.data.encode import encode_dataset
from dit.data.latents import LatentSet
from dit.data.sources.array import Array
from dit.data.split import Stratified
from dit.errors import InputError

ADDING = Path(__file__).parents[2] / "docs" / "adding.md"


def saved(path: Path, array: np.ndarray, **options) -> str:
    np.save(path, array, **options)
    return str(path)


def encoded(folder: Path, source, **options):
    return encode_dataset(folder / "latents", source, Identity(), Stratified(2), name="a", **options)


def header(shape: str, descr: str = "<f4") -> bytes:
    """The first bytes of a .npy file, by the format's description: numpy.lib.format, version 1.0."""
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8", "u1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_numbers_are_those_of_the_file(tmp_path, dtype, order):
    x = np.asarray(np.random.default_rng(0).uniform(0, 200, (9, 2, 3, 4)).astype(dtype), order=order)
    encoded(tmp_path, Array(saved(tmp_path / "x.npy", x)))
    train = LatentSet(tmp_path / "latents", "train")
    moments = train.moments(torch.arange(len(train))).numpy()
    assert np.array_equal(moments, x[train.source_index.numpy()].astype(np.float32))
    assert (train.manifest["dtype"], train.shape, train.kind.n) == ("float32", (2, 3, 4), 1)


@pytest.mark.parametrize(
    "content",
    [
        header("(1099511627776, 3, 1099511627776)") + b"\0" * 64,
        header("(2, 3, 4)") + b"\0" * 95,
        header("(2, 3, 4)") + b"\0" * 97,
        header("(2, -3, 4)"),
        header("(2, 3, 4)", "|O") + b"\0" * 192,
        header("__import__('os')"),
        b"\x80\x04N.",
        b"PK\x03\x04",
        b"",
    ],
)
def test_a_header_is_checked_before_anything_is_allocated(tmp_path, content):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"data\.source\.path.*npy"):
        len(Array(str(tmp_path / "x.npy")))


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.zeros((4, 3)), "channels, size"),
        (np.zeros((0, 3, 4)), "at least one"),
        (np.zeros((4, 3, 4), np.int64), "uint8"),
        (np.zeros((4, 3, 4), complex), "uint8"),
        (np.zeros((4, 3, 4), bool), "uint8"),
    ],
)
def test_other_arrays_are_refused(tmp_path, array, told):
    with pytest.raises(InputError, match=told):
        len(Array(saved(tmp_path / "x.npy", array)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_not_finite_are_named(tmp_path, value):
    x = np.random.default_rng(0).normal(size=(9, 1, 5))
    x[3, 0, 2] = value
    with pytest.raises(InputError, match=r"x\.npy\[3\]: numbers that are not finite"):
        encoded(tmp_path, Array(saved(tmp_path / "x.npy", x)))


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (np.zeros(8, np.int64), "one for each"),
        (np.zeros(9), "integers"),
        (np.full(9, -1), ">= 0"),
        (np.zeros((9, 1), np.int64), "one for each"),
        (np.full(9, 2**40), "below"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path, labels, told):
    x, y = saved(tmp_path / "x.npy", np.zeros((9, 1, 5))), saved(tmp_path / "y.npy", labels)
    with pytest.raises(InputError, match=f"labels.*{told}"):
        encoded(tmp_path, Array(x, y))


@pytest.mark.parametrize("options", [{"image_size": 8}, {"flip": True}, {"dtype": "bfloat16"}])
def test_settings_of_pictures_are_refused(tmp_path, options):
    source = Array(saved(tmp_path / "x.npy", np.zeros((9, 1, 5))))
    with pytest.raises(InputError, match=f"data.{next(iter(options))}"):
        encoded(tmp_path, source, **options)


def test_an_edited_file_is_other_data(tmp_path):
    """Same shape, other numbers: the second encoding into the directory is refused."""
    x = np.random.default_rng(0).normal(size=(9, 1, 5))
    encoded(tmp_path, Array(saved(tmp_path / "x.npy", x)))
    encoded(tmp_path, Array(saved(tmp_path / "x.npy", x)))  # saved again: the very same numbers
    with pytest.raises(InputError, match="content_sha256"):
        encoded(tmp_path, Array(saved(tmp_path / "x.npy", x + 1)))


def test_the_example_of_the_documentation(tmp_path):
    """docs/adding.md: its first example, a source, becomes latents of its own domain."""
    code, *_ = re.findall(r"^```python\n(.*?)^```", ADDING.read_text(), re.M | re.S)
    found: dict = {"__name__": "sines"}
    exec(code, found)
    encoded(tmp_path, found["Sines"](40))
    train = LatentSet(tmp_path / "latents", "train")
    assert (train.shape, len(train), train.kind.n) == ((1, 32), 38, 2)
    x0 = train.draw(torch.arange(38))
    torch.testing.assert_close(x0.std(correction=0), torch.tensor(1.0))


def test_arrays_are_decoded_as_they_are(tmp_path):
    """Nothing of them is rounded to the 256 levels of pictures."""
    encoded(tmp_path, Array(saved(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(9, 1, 5)))))
    assert not Codec.open(tmp_path / "latents").pictures
