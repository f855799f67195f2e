"""Tables of positions and time equal an independent library's and turn as the papers say."""

import math

import pytest
import torch
from diffusers.models.embeddings import get_2d_sincos_pos_embed, get_timestep_embedding

from dit.network.embeddings import resize_positions, rope_table, rotate, sincos_table, time_features


@pytest.mark.parametrize("grid", [(4, 4), (16, 16), (32, 32)])
def test_sincos_table_equals_diffusers(grid: tuple[int, int]) -> None:
    theirs = get_2d_sincos_pos_embed(48, grid[0], base_size=grid[0], output_type="pt")
    torch.testing.assert_close(sincos_table(48, grid), theirs.float(), atol=1e-6, rtol=0)


def test_positions_stretch_with_the_grid_as_in_diffusers() -> None:
    """A 4x4 network at 8x8: every other token of the finer grid stands where one of the coarser did."""
    fine = sincos_table(48, (8, 8), base=(4, 4))
    theirs = get_2d_sincos_pos_embed(48, 8, base_size=4, output_type="pt").float()
    torch.testing.assert_close(fine, theirs, atol=1e-6, rtol=0)
    torch.testing.assert_close(fine.unflatten(0, (8, 8))[::2, ::2].flatten(0, 1), sincos_table(48, (4, 4)))


def test_positions_of_a_wide_grid_follow_each_axis() -> None:
    wide = sincos_table(48, (4, 8), base=(4, 4)).unflatten(0, (4, 8))
    torch.testing.assert_close(wide[:, ::2].flatten(0, 1), sincos_table(48, (4, 4)))
    fine = rope_table(8, (8, 4), base=(4, 4)).unflatten(1, (8, 4))
    torch.testing.assert_close(fine[:, ::2].flatten(1, 2), rope_table(8, (4, 4)))


@pytest.mark.parametrize("convention", ["dit", "diffusers"])
def test_time_features_equal_diffusers(convention: str) -> None:
    t = torch.tensor([0.0, 0.5, 17.0, 999.0])
    shift = {"dit": 0, "diffusers": 1}[convention]
    theirs = get_timestep_embedding(t, 256, flip_sin_to_cos=True, downscale_freq_shift=shift)
    torch.testing.assert_close(time_features(t, convention), theirs, atol=1e-6, rtol=0)


def test_sit_time_runs_from_noise_to_data_in_the_unit_interval() -> None:
    t = torch.tensor([0.0, 250.0, 1000.0])
    torch.testing.assert_close(time_features(t, "sit"), time_features(torch.tensor([1.0, 0.75, 0.0]), "dit"))


def test_rotation_keeps_lengths_and_depends_on_offsets_alone() -> None:
    torch.manual_seed(0)
    table = rope_table(16, (5, 6), n_extra=2)
    q, k = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)
    turned_q = rotate(q.expand(1, 32, 1, 16), table)[0, :, 0]
    turned_k = rotate(k.expand(1, 32, 1, 16), table)[0, :, 0]
    torch.testing.assert_close(turned_q.norm(dim=1), q.norm().expand(32))
    torch.testing.assert_close(turned_q[:2], q[0, 0].expand(2, 16))  # condition tokens stand nowhere
    scores = (
        (turned_q[2:] @ turned_k[2:].T).unflatten(0, (5, 6)).unflatten(2, (5, 6))
    )  # row, column of q and of k
    torch.testing.assert_close(scores[0, 0, 2, 3], scores[1, 2, 3, 5], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scores[3, 1, 1, 4], scores[4, 2, 2, 5], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(scores[0, 0, 2, 3], scores[0, 0, 3, 2], atol=1e-2)


def test_learned_positions_resize_smoothly() -> None:
    """Bicubic resizing reproduces a linear field inside, and is the identity on the same grid."""
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    field = torch.stack([rows, columns], dim=-1).flatten(0, 1)
    torch.testing.assert_close(resize_positions(field, (8, 8), (8, 8)), field, atol=1e-5, rtol=0)
    finer = resize_positions(field, (8, 8), (16, 16)).unflatten(0, (16, 16))
    expected = (torch.arange(16.0) + 0.5) / 2 - 0.5
    torch.testing.assert_close(finer[4:12, 8, 0], expected[4:12], atol=1e-4, rtol=0)
    torch.testing.assert_close(finer[8, 4:12, 1], expected[4:12], atol=1e-4, rtol=0)


def test_angles_of_rope_are_those_of_its_formula() -> None:
    """RoFormer eq. 15 on each axis, as LightningDiT: pair j of an axis turns by place * 10000^(-4j/head_dim)."""
    head_dim, grid = 24, (3, 5)
    table = rope_table(head_dim, grid, n_extra=1)
    for row in range(3):
        for column in range(5):
            for j in range(head_dim // 4):
                frequency = 10_000 ** (-4 * j / head_dim)
                for half, place in ((0, row), (1, column)):
                    found = table[:, 1 + row * 5 + column, half * (head_dim // 4) + j]
                    angle = place * frequency
                    assert found.tolist() == pytest.approx([math.cos(angle), math.sin(angle)], abs=1e-6)


def test_time_in_the_unit_interval_from_data_to_noise() -> None:
    t = torch.tensor([0.0, 250.0, 1000.0])
    torch.testing.assert_close(time_features(t, "repa"), time_features(torch.tensor([0.0, 0.25, 1.0]), "dit"))
    torch.testing.assert_close(time_features(t, "reversed"), time_features(t, "sit"))
