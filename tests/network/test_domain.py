"""Networks on samples of one, two and three axes, with patches of their own along each."""

import itertools
import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dit.condition import Classes, labelled
from dit.domain import Domain
from dit.errors import InputError
from dit.network.config import DiTConfig
from dit.network.embeddings import rope_table, sincos_table
from dit.network.options import CONDITIONINGS
from tests.network.test_dit import trained

# a trajectory, a spectrogram, a latent picture, a clip
CASES = [(7, (12,), 3), (1, (8, 20), (4, 2)), (4, (8, 8), 2), (2, (4, 6, 8), (1, 3, 4))]


@pytest.mark.parametrize(("channels", "sizes", "patch"), CASES, ids=str)
@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_it_runs_counts_itself_and_is_larger_elsewhere(channels, sizes, patch, conditioning):
    """Multiply-adds are those of torch's counter; a network takes other sizes; samples do not see each other."""
    config = DiTConfig(32, 3, 4, patch, conditioning=conditioning, rope=True, positions="learned")
    domain, kind = Domain(channels, sizes), Classes(5)
    counts, network = config.count(domain, kind), trained(config.build(domain, kind))
    x, told = (
        torch.randn(2, *domain.shape, generator=torch.Generator().manual_seed(0)),
        labelled(torch.tensor([1, 5])),
    )
    t = torch.tensor([10.0, 900.0])
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        out = network(x, t, told)
    assert counter.get_total_flops() == 2 * 2 * counts.macs_per_image
    assert counts.n_params_total == sum(parameter.numel() for parameter in network.parameters())
    assert out.shape == x.shape
    torch.testing.assert_close(network(x[1:], t[1:], told.part(slice(1, 2))), out[1:], atol=1e-5, rtol=1e-4)
    assert network(torch.cat([x, x], -1), t, told).shape == (2, *domain.shape[:-1], 2 * sizes[-1])


@pytest.mark.parametrize(("channels", "sizes", "patch"), CASES, ids=str)
def test_a_patch_is_a_block_of_neighbours(channels, sizes, patch):
    """With the head as the inverse of the embedding, what goes in comes out: no point is lost, doubled or moved."""
    domain, patch_points = Domain(channels, sizes), math.prod(DiTConfig(32, 1, 4, patch).patch(len(sizes)))
    network = DiTConfig(channels * patch_points * 4, 1, 1, patch).build(domain, Classes(0))
    x = torch.arange(math.prod(domain.shape), dtype=torch.float32).reshape(1, *domain.shape)
    tokens = network.x_embedder.proj.weight.new_zeros(0)
    with torch.no_grad():
        weight = network.x_embedder.proj.weight.zero_()
        weight[: weight.shape[1]] = torch.eye(weight.shape[1])
        tokens = network.x_embedder(x)[0, :, : weight.shape[1]]
    sizes_of_patch = DiTConfig(32, 1, 4, patch).patch(len(sizes))
    starts = [range(0, size, p) for size, p in zip(sizes, sizes_of_patch)]
    expected = []
    for corner in itertools.product(*starts):
        block = x[0][(slice(None), *(slice(c, c + p) for c, p in zip(corner, sizes_of_patch)))]
        expected.append(block.flatten())
    assert torch.equal(tokens, torch.stack(expected))


def test_positions_of_three_axes():
    """Each token's angles are place / 10000^(j/k) along each axis, and the axes share the pairs."""
    grid, head_dim = (2, 3, 4), 16  # 8 pairs: 3 + 3 + 2
    table = rope_table(head_dim, grid)
    waves = sincos_table(head_dim, grid)
    for i, place in enumerate(itertools.product(*map(range, grid))):
        angles = [p / 10_000 ** (j / k) for p, k in zip(place, (3, 3, 2)) for j in range(k)]
        torch.testing.assert_close(
            table[:, i], torch.tensor([[math.cos(a) for a in angles], [math.sin(a) for a in angles]])
        )
        axes = [[p / 10_000 ** (j / k) for j in range(k)] for p, k in zip(place, (3, 3, 2))]
        expected = [f(a) for axis in reversed(axes) for f in (math.sin, math.cos) for a in axis]
        torch.testing.assert_close(waves[i], torch.tensor(expected))


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Domain(4, ()), "input_shape"),
        (lambda: Domain(4, (8, 0)), "input_shape.2"),
        (lambda: Domain(0, (8,)), "input_shape.0"),
        (lambda: DiTConfig(32, 1, 4, (2, 0)), "network.patch_size"),
        (lambda: DiTConfig(32, 1, 4, ()), "network.patch_size"),
        (lambda: DiTConfig(32, 1, 4, "22"), "network.patch_size"),
        (lambda: DiTConfig(32, 1, 4, (2, 2)).count(Domain(4, (8,)), Classes(0)), "network.patch_size"),
        (lambda: DiTConfig(32, 1, 4, (2, 3)).build(Domain(4, (8, 8)), Classes(0)), "network.patch_size"),
        (lambda: DiTConfig(32, 1, 8, 2, rope=True).count(Domain(4, (8, 8, 8)), Classes(0)), "network.heads"),
        (lambda: DiTConfig(3, 1, 1, 2).count(Domain(4, (8, 8)), Classes(0)), "network.width"),
        (lambda: DiTConfig(5, 1, 1, 2).count(Domain(4, (8, 8, 8)), Classes(0)), "network.width"),
    ],
)
def test_what_does_not_fit_is_refused(make, key):
    with pytest.raises(InputError) as caught:
        make()
    assert caught.value.key == key


def test_a_patch_comes_from_yaml_and_json_as_a_list():
    config = DiTConfig(32, 1, 4, [2, 4])
    assert config.patch_size == (2, 4) and DiTConfig(**config.as_dict()) == config
    assert DiTConfig(32, 1, 4, 2).patch(3) == (2, 2, 2) and DiTConfig(32, 1, 4, 2).patch_size == 2
