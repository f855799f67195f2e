"""How many images are held out, which ones, and what is said where these are few or classes are empty."""

from collections import Counter

import pytest
from omegaconf import OmegaConf

from dit.config.data import check_held_out
from dit.config.facts import Facts
from dit.config.parts import Parts
from dit.data.autoencoder import Identity
from dit.data.draws import validation_draws
from dit.data.encode import encode_dataset
from dit.data.images import UnreadableImage
from dit.data.latents import LatentSet
from dit.data.manifest import Manifest, doubts, read_manifest
from dit.data.sources.folder import Folder
from dit.data.split import ByContent, Stratified, StratifiedShare, is_of_before
from dit.errors import InputError
from tests.data.test_archives import jpeg, write_folder, write_tar


class Numbers:
    """A source of ``sizes[label]`` images of each class; ``copies`` of one content in a row."""

    def __init__(self, sizes: list[int], copies: int = 1) -> None:
        self.labels = [label for label, size in enumerate(sizes) for _ in range(size)]
        self.copies, self.class_names = copies, tuple(map(str, range(len(sizes))))

    def __len__(self) -> int:
        return len(self.labels)

    def label(self, index: int) -> int:
        return self.labels[index]

    def content(self, index: int) -> bytes:
        return b"%d" % (index // self.copies)


def held(split, source) -> list[int]:
    chooser = split.chooser(source)
    return [index for index in range(len(source)) if chooser(index, source.content(index))]


@pytest.mark.parametrize(
    ("images", "classes", "expected"),
    [  # max(2 %, 256, 4 per class), but at most a quarter
        (100_000, 10, 2000),
        (13_000, 10, 260),
        (12_000, 10, 256),
        (12_000, 100, 400),
        (800, 2, 200),
        (50, 2, 12),
        (4, 2, 1),
        (2, 1, 1),
    ],
)
def test_number_held_out(images, classes, expected):
    source = Numbers([images // classes] * classes)
    assert StratifiedShare().held_out(source) == expected
    if images < 20_000:
        chosen = held(StratifiedShare(), source)
        assert len(chosen) == expected
        per_class = Counter(source.label(index) for index in chosen)
        assert max(per_class.values()) - min(per_class.get(label, 0) for label in range(classes)) <= 1


def test_each_class_in_proportion():
    source = Numbers([1000, 200, 80])
    assert Counter(map(source.label, held(StratifiedShare(), source))) == {0: 200, 1: 40, 2: 16}


def test_leftovers_go_to_the_largest_remainders():
    """10 of 3, 33 and 64: shares .3, 3.3 and 6.4 leave one over, which the 64 have most of."""
    source = Numbers([3, 33, 64])
    assert Counter(map(source.label, held(Stratified(10), source))) == {1: 3, 2: 7}


def test_salt_gives_another_split():
    source = Numbers([500, 500])
    assert held(StratifiedShare(), source) != held(StratifiedShare(salt=1), source)
    assert held(StratifiedShare(), source) == held(Stratified(250), source)


def test_latents_of_before_are_of_the_same_share():
    asked = StratifiedShare(0.1).config
    assert is_of_before(ByContent(0.1).config, asked)
    assert not is_of_before(ByContent(0.2).config, asked) and not is_of_before(Stratified(3).config, asked)
    assert not is_of_before(ByContent(0.1).config, ByContent(0.2).config) and not is_of_before(None, asked)


def test_copies_stay_together():
    """Also where the number ends among them, and where they are of two classes."""
    for split in (StratifiedShare(), Stratified(3), ByContent(0.2)):
        for sizes in ([40, 40], [39, 41], [1, 79]):
            source = Numbers(sizes, copies=4)
            chosen = set(held(split, source))
            groups = [set(range(first, first + 4)) for first in range(0, 80, 4)]
            assert all(group <= chosen or not group & chosen for group in groups)


def test_one_image_cannot_be_split():
    with pytest.raises(InputError, match="at least 2 images"):
        StratifiedShare().held_out(Numbers([1]))


@pytest.mark.parametrize(
    ("field", "value"),
    [("fraction", 0), ("fraction", 1), ("at_least", 0), ("per_class", -1), ("at_most", 1), ("at_most", 0.01),
     ("salt", -1), ("at_least", "many")],
)  # fmt: skip
def test_bad_values_of_a_share(field, value):
    with pytest.raises(InputError, match=f"data.split.{field}"):
        StratifiedShare(**{field: value})


def test_an_image_that_cannot_be_read_is_not_held_out():
    class Gone(Numbers):
        def content(self, index: int) -> bytes:
            if index == 3:
                raise UnreadableImage("gone")
            return super().content(index)

    chooser = StratifiedShare().chooser(Gone([8]))
    assert sum(chooser(index, b"%d" % index) for index in range(8)) == 2


def test_no_image_held_out_is_said_before_any_work(tmp_path):
    """2 % of 50 images by their hash are none with probability 36 %; training then divided by zero."""
    source = write_folder(tmp_path / "images", {f"cat/{n}.jpg": jpeg(n) for n in range(4)})
    encode_dataset(tmp_path / "latents", source, Identity(), ByContent(0), name="x", image_size=8)
    cfg = OmegaConf.create({"data": {"directory": str(tmp_path / "latents")}})
    parts = Parts(cfg, Facts.of_manifest(Manifest.read(tmp_path / "latents")))
    with pytest.raises(InputError, match=r"data\.split.*holds out no image.*StratifiedShare"):
        check_held_out(parts)
    with pytest.raises(InputError, match="holds out no image"):
        validation_draws(LatentSet(tmp_path / "latents", "validation"), 8, 8)
    assert "no image is held out" in doubts(read_manifest(tmp_path / "latents"))[0]


def test_classes_without_a_training_image_are_named(tmp_path):
    """Labels 1, 3 and 3: classes 0 and 2 are empty. They keep their numbers, and nobody draws them."""
    files = {f"{n}.jpg": jpeg(n) for n in range(12)}
    files |= {f"{n}.cls": b"1" if n % 2 else b"3" for n in range(12)}
    source = write_tar(tmp_path / "a.tar", files)
    encode_dataset(tmp_path / "latents", source, Identity(), StratifiedShare(), name="x", image_size=8)
    manifest = read_manifest(tmp_path / "latents")
    assert manifest["num_classes"] == 4 and manifest["empty_classes"] == [0, 2]
    few, empty = doubts(manifest)
    assert few.startswith("3 images are held out") and "500 or more" in few
    assert empty == "2 of 4 classes have no training image: 0, 2"


def test_no_doubts_about_whole_data(pixels):
    manifest = read_manifest(pixels)
    assert "empty_classes" not in manifest  # so that hashes of manifests stay what they were
    assert len(doubts(manifest)) == 1  # 297 held out
    manifest["splits"]["validation"]["count"] = 500
    assert doubts(manifest) == []


def test_folder_of_the_docs(tmp_path):
    source = write_folder(tmp_path, {f"cat/{n}.jpg": jpeg(n) for n in range(8)})
    assert len(held(StratifiedShare(), Folder(source.path))) == 2
