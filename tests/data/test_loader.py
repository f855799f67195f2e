import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dit.data.loader import indices, permutation


@given(st.integers(0, 2**63), st.integers(1, 500), st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_every_epoch_shows_every_image_once(seed, n, epoch):
    assert sorted(indices(seed, n, epoch * n, n).tolist()) == list(range(n))


@given(st.integers(1, 100), st.integers(0, 300), st.integers(1, 250), st.integers(1, 250))
@settings(max_examples=50, deadline=None)
def test_two_batches_are_one_larger_batch(n, seen, first, second):
    whole = indices(7, n, seen, first + second)
    parts = torch.cat([indices(7, n, seen, first), indices(7, n, seen + first, second)])
    assert torch.equal(whole, parts)


def test_epochs_and_seeds_differ():
    orders = {tuple(permutation(seed, 50, epoch).tolist()) for seed in range(20) for epoch in range(20)}
    assert len(orders) == 400


def test_order_is_uniform():
    """Position and value are independent: chi-square of a 10x10 table over 20,000 permutations of 10."""
    table = np.zeros((10, 10))
    for epoch in range(20_000):
        table[np.arange(10), permutation(3, 10, epoch)] += 1
    chi2 = ((table - 2000) ** 2 / 2000).sum()
    assert 81 - 5 * np.sqrt(2 * 81) < chi2 < 81 + 5 * np.sqrt(2 * 81)


def test_order_is_fixed_for_ever():
    """Resuming under a newer numpy must find the order of the old one: values as first made."""
    assert permutation(0, 10, 0).tolist() == [9, 6, 3, 7, 5, 1, 4, 0, 2, 8]

    assert permutation(123, 7, 2).tolist() == [4, 1, 3, 2, 5, 0, 6]


def test_the_order_that_is_kept_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        permutation(0, 10, 0)[0] = 1
