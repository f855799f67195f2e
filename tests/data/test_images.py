import numpy as np
import pytest
from sklearn.datasets import load_digits

from dit.data.images import Digits
from dit.data.split import ByContent, Stratified
from dit.errors import InputError


def test_digits_are_scikit_learns():
    digits, reference = Digits(), load_digits()
    assert len(digits) == 1797
    assert [digits.label(i) for i in range(1797)] == reference.target.tolist()
    scans = [np.frombuffer(digits.content(i), np.uint8) for i in range(1797)]
    assert np.array_equal(np.stack(scans), reference.data)


def test_digits_at_their_own_size_are_the_scans_in_255_levels():
    digits, reference = Digits(), load_digits()
    pixels = digits.pixels(digits.content(5), 8)
    assert pixels.shape == (8, 8, 3) and pixels.dtype == np.uint8
    assert np.array_equal(pixels[:, :, 1], np.rint(reference.images[5] * 255 / 16))


def test_enlarged_digits_keep_their_mean():
    digits = Digits()
    small, large = digits.pixels(digits.content(5), 8), digits.pixels(digits.content(5), 32)
    assert large.shape == (32, 32, 3)
    assert abs(small.mean() - large.mean()) < 4


def test_too_small_an_image_size_is_refused():
    with pytest.raises(InputError, match="image_size"):
        Digits().pixels(Digits().content(0), 4)


def test_stratified_split_is_exact_and_in_proportion():
    digits = Digits()
    chooser = Stratified(297).chooser(digits)
    held_out = [i for i in range(1797) if chooser(i, b"")]
    assert len(held_out) == 297
    share = np.bincount([digits.label(i) for i in held_out], minlength=10)
    sizes = np.bincount([digits.label(i) for i in range(1797)])
    assert (abs(share - sizes * 297 / 1797) < 1).all()


class Renumbered(Digits):
    """The same images in reversed order."""

    def label(self, index):
        return super().label(1796 - index)

    def content(self, index):
        return super().content(1796 - index)


@pytest.mark.parametrize("split", [Stratified(297), ByContent(0.2)])
def test_split_depends_on_content_not_on_order(split):
    forward, backward = Digits(), Renumbered()
    first, second = split.chooser(forward), split.chooser(backward)
    one = {forward.content(i) for i in range(1797) if first(i, forward.content(i))}
    other = {backward.content(i) for i in range(1797) if second(i, backward.content(i))}
    assert one == other


def test_split_by_content_has_the_expected_share():
    digits = Digits()
    chooser = ByContent(0.2).chooser(digits)
    count = sum(chooser(i, digits.content(i)) for i in range(300))
    assert abs(count - 60) < 5 * (300 * 0.2 * 0.8) ** 0.5
    other = ByContent(0.2, salt=1).chooser(digits)
    assert any(chooser(i, str(i).encode()) != other(i, str(i).encode()) for i in range(100))


@pytest.mark.parametrize("make", [lambda: ByContent(1.0), lambda: ByContent("a"), lambda: Stratified(True)])
def test_split_refuses_bad_values(make):
    with pytest.raises(InputError, match=r"data\.split"):
        make()


def test_stratified_refuses_more_than_there_is():
    with pytest.raises(InputError, match=r"data\.split\.count"):
        Stratified(2000).chooser(Digits())
