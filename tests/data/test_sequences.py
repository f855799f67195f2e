"""Tokens on disk: texts, arrays of tokens and digits in windows, held out by document, stored as integers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from dit.data.autoencoder import Identity
from dit.data.codec import Codec
from dit.data.draws import validation_draws
from dit.data.encode import encode_dataset
from dit.data.images import DigitTokens
from dit.data.latents import LatentSet
from dit.data.manifest import read_manifest, verify
from dit.data.sources.array import Array
from dit.data.sources.sequences import Text, Tokens
from dit.data.split import ByDocument, Stratified
from dit.domain import Domain
from dit.errors import InputError

POEMS = ["Über allen Gipfeln ", "ist Ruh, in allen Wipfeln ", "spürest du kaum ", "einen Hauch. "]


@pytest.fixture
def poems(tmp_path) -> Path:
    for number, line in enumerate(POEMS * 3):
        (tmp_path / "poems" / str(number % 4)).mkdir(parents=True, exist_ok=True)
        (tmp_path / "poems" / str(number % 4) / f"{number}.txt").write_text(line * (5 + number), "utf-8")
    return tmp_path / "poems"


def stored(directory: Path, source, split: Any = ByDocument(0.2)) -> tuple[LatentSet, LatentSet]:  # noqa: B008
    encode_dataset(directory, source, Identity(), split, name="x", normalise="none")
    return LatentSet(directory, "train"), LatentSet(directory, "validation")


def test_two_characters_are_an_alphabet(tmp_path):
    (tmp_path / "a.txt").write_text("abba", "utf-8")
    assert Text(str(tmp_path / "a.txt"), 2, "characters").vocabulary_size == 2


@pytest.mark.parametrize("unit", ["bytes", "characters"])
def test_windows_of_texts_are_their_texts(tmp_path, poems, unit):
    """Each window decodes to a piece of one file, in order; a rest shorter than a window is left out."""
    source = Text(str(poems), 16, unit)
    alphabet = sorted(set("".join(POEMS)))
    assert source.domain == Domain(1, (16,), 256 if unit == "bytes" else len(alphabet))
    for part in stored(tmp_path / "latents", source):
        assert part.domain == source.domain
        for tokens, index in zip(part.draw(torch.arange(len(part))), part.source_index.tolist()):
            name, span = source.describe(index).split("[")
            first, last = map(int, span[:-1].split(":"))
            text = next(poems.rglob(name)).read_text("utf-8")
            got = tokens[0].tolist()
            assert tokens.dtype == torch.int64
            if unit == "bytes":
                assert bytes(got) == text.encode()[first:last]
            else:
                assert "".join(alphabet[token] for token in got) == text[first:last]
    sizes = [
        len(file.read_bytes() if unit == "bytes" else file.read_text("utf-8"))
        for file in poems.rglob("*.txt")
    ]
    assert len(source) == sum(size // 16 for size in sizes)
    assert verify(tmp_path / "latents") == 2


def test_no_document_lies_on_both_sides(tmp_path, poems):
    source = Text(str(poems), 8)
    train, held_out = (set(part.source_index.tolist()) for part in stored(tmp_path / "latents", source))
    sides = [{index in held_out for index in items} for items in source.documents]
    assert all(len(side) == 1 for side in sides) and {True} in sides and {False} in sides
    assert train | held_out == set(range(len(source)))
    assert 0.2 <= len(held_out) / len(source) <= 0.4


def test_of_one_document_the_end_is_held_out(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(1000) % 300)
    train, held_out = stored(tmp_path / "latents", Tokens(str(tmp_path / "x.npy"), 10, 300), ByDocument(0.05))
    assert held_out.source_index.tolist() == [95, 96, 97, 98, 99]
    assert held_out.draw(torch.tensor([0])).flatten().tolist() == [n % 300 for n in range(950, 960)]
    assert read_manifest(tmp_path / "latents")["dtype"] == "uint16"
    assert len(train) == 95


def test_tokens_of_a_binary_file_and_its_separator(tmp_path):
    numbers = np.concatenate([np.full(25, 7), [50256], np.full(10, 9), [50256], np.full(4, 3)]).astype("<u2")
    numbers.tofile(tmp_path / "x.bin")
    source = Tokens(str(tmp_path / "x.bin"), 5, 50257, separator=50256)
    assert [len(items) for items in source.documents] == [5, 2, 0]
    assert source.pixels(source.content(5)).tolist() == [[9] * 5]
    assert source.pixels(source.content(6)).tolist() == [[9] * 5]


def test_digits_are_scikit_learns_and_decode_to_grey_pictures(tmp_path):
    train, held_out = stored(tmp_path / "latents", DigitTokens(), Stratified(297))
    assert (train.domain, len(train), len(held_out)) == (Domain(1, (8, 8), 17), 1500, 297)
    digits: Any = load_digits()
    known = digits.images
    x0 = held_out.draw(torch.arange(297))
    assert np.array_equal(x0[:, 0].numpy(), known[held_out.source_index.numpy()])
    pictures = Codec.open(tmp_path / "latents").decode(x0)
    assert (pictures.shape, pictures.dtype) == ((297, 3, 8, 8), torch.uint8)
    assert np.array_equal(pictures[:, 1].numpy(), np.rint(known[held_out.source_index.numpy()] * 255 / 16))


def test_draws_of_tokens_are_stratified_over_all_times(tmp_path):
    """Of a time t the log-SNR is 2 ln((1 - t)/t), and each of 64 strata of [0, 1] has one."""
    _, held_out = stored(tmp_path / "latents", DigitTokens(), Stratified(297))
    draws = validation_draws(held_out, 64, 4)
    t = torch.sigmoid(-draws.log_snr.double() / 2)
    assert (t.sort().values * 64).long().tolist() == list(range(64))
    assert bool(draws.edges.isfinite().all()) and draws.x0.dtype == torch.int64
    inner = torch.bucketize(draws.log_snr, draws.edges[1:-1], right=True)
    assert torch.equal(inner, draws.bin_id)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda path: Text("", 8), "data.source.path"),
        (lambda path: Text(str(path), 0), "data.source.length"),
        (lambda path: Text(str(path), 8, "words"), "data.source.unit"),
        (lambda path: len(Text(str(path / "latin.txt"), 10**6)), "data.source.length"),
        (lambda path: Text(str(path / "latin.txt"), 2, "characters").domain, "data.source.path"),
        (lambda path: len(Tokens(str(path / "x.npy"), 2, 5)), "data.source.vocabulary"),
        (lambda path: len(Tokens(str(path / "y.npy"), 2, 5)), "data.source.path"),
        (lambda path: len(Tokens(str(path / "z.bin"), 2, 5)), "data.source.dtype"),
        (lambda path: Tokens(str(path / "x.npy"), 2, 5, separator=5), "data.source.separator"),
        (lambda path: ByDocument().held_out(Array(str(path / "a.npy"))), "data.split"),  # type: ignore[arg-type]
        (
            lambda path: encode_dataset(path / "l", DigitTokens(), Identity(), Stratified(297), name="x"),
            "data.normalise",
        ),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, make, key):
    (tmp_path / "latin.txt").write_bytes("Über".encode("latin-1"))
    (tmp_path / "z.bin").write_bytes(b"abc")
    np.save(tmp_path / "x.npy", np.arange(9))
    np.save(tmp_path / "y.npy", np.zeros(9))
    np.save(tmp_path / "a.npy", np.zeros((4, 1, 3)))
    with pytest.raises(InputError) as error:
        make(tmp_path)
    assert error.value.key == key
