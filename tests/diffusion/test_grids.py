import math
from functools import partial

import diffusers
import pytest
import torch

from dit.diffusion import grids
from dit.diffusion.paths import VE, VP, Cosine, Discrete, Linear
from dit.errors import InputError
from tests.diffusion.values import PATHS

every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
CONTINUOUS_GRIDS = {
    "uniform": grids.uniform,
    "log_snr": grids.log_snr,
    "karras": grids.karras,
    "karras_rho_3": partial(grids.karras, rho=3.0),
    "shifted": grids.shifted,
    "shifted_back": partial(grids.shifted, shift=0.5),
}


@every_path
@pytest.mark.parametrize("grid", CONTINUOUS_GRIDS.values(), ids=CONTINUOUS_GRIDS.keys())
@pytest.mark.parametrize("n_steps", [2, 3, 18, 50])
def test_a_grid_falls_within_the_path_and_ends_at_data(path, grid, n_steps):
    ts = grid(path, n_steps)
    assert ts.dtype == torch.float64 and ts.shape == (n_steps + 1,)
    assert (ts.diff() < 0).all()
    assert path.t_min <= ts[-2] and ts[0] <= path.t_max
    assert ts[-1] < path.t_min and ts[-1] == grids.data_end(path)


@every_path
def test_one_step_goes_from_noise_to_data(path):
    for grid in (grids.uniform, grids.shifted):
        ts = grid(path, 1)
        assert float(ts[0]) == pytest.approx(path.t_max, rel=1e-9) and len(ts) == 2


@pytest.mark.parametrize("path", [Linear(), Cosine(), VP(), VE()])
def test_uniform_steps_are_equal(path):
    steps = grids.uniform(path, 20).diff()
    torch.testing.assert_close(steps, torch.full_like(steps, -path.t_max / 20))


def test_uniform_on_a_discrete_path_is_the_trailing_spacing_of_diffusers():
    """At every number of steps; for a few diffusers' floats make one step too many, to data before the first."""
    scheduler = diffusers.DDIMScheduler(timestep_spacing="trailing")
    for n_steps in range(1, 1001):
        steps = 1000 * grids.uniform(Discrete(), n_steps)[:-1]
        assert (steps.round() - steps).abs().max() < 1e-9
        scheduler.set_timesteps(n_steps)
        assert steps.round().int().tolist() == [k for k in scheduler.timesteps.tolist() if k >= 0], n_steps


def test_karras_is_equation_5_of_edm():
    """And the table of sigmas that EDM's scheduler in diffusers has for 18 steps."""
    n, rho, low, high = 18, 7, 0.002, 80.0
    formula = [
        (high ** (1 / rho) + i / (n - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho for i in range(n)
    ]
    ts = grids.karras(VE(), n)
    torch.testing.assert_close(ts, torch.tensor([*formula, 0.0], dtype=torch.float64), rtol=1e-12, atol=0)
    scheduler = diffusers.EDMEulerScheduler(sigma_min=low, sigma_max=high)
    scheduler.set_timesteps(n)
    torch.testing.assert_close(ts, scheduler.sigmas.double(), rtol=1e-6, atol=0)


@every_path
def test_levels_are_those_asked_for_on_any_path(path):
    ts = grids.karras(path, 6, rho=1.0, sigma_min=0.5, sigma_max=10.5)[:-1]
    levels = torch.exp(-path.log_snr(ts) / 2)
    torch.testing.assert_close(levels, torch.linspace(10.5, 0.5, 6, dtype=torch.float64), rtol=1e-9, atol=0)
    steps = path.log_snr(grids.log_snr(path, 6, sigma_min=0.5, sigma_max=10.5)[:-1]).diff()
    torch.testing.assert_close(steps, torch.full_like(steps, 2 * math.log(21) / 5), rtol=1e-9, atol=0)


@every_path
@pytest.mark.parametrize("grid", [grids.karras, grids.log_snr])
def test_open_ends_are_those_of_the_path_within_a_thousand(path, grid):
    ts = grid(path, 8)
    got = torch.exp(-path.log_snr(ts[[0, -2]]) / 2).tolist()
    ends = torch.exp(-path.log_snr(torch.tensor([path.t_max, path.t_min], dtype=torch.float64)) / 2).tolist()
    assert got == pytest.approx([min(ends[0], 1000), max(ends[1], 0.001)], rel=1e-6)


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
def test_shifted_is_equation_23_of_sd3(shift):
    t = torch.arange(20, 0, -1, dtype=torch.float64) / 20
    expected = shift * t / (1 + (shift - 1) * t)
    torch.testing.assert_close(grids.shifted(Linear(), 20, shift=shift)[:-1], expected, rtol=1e-4, atol=1e-4)


@every_path
def test_shifted_by_one_is_uniform_and_by_more_still_starts_at_the_end(path):
    uniform = torch.linspace(path.t_max, grids.data_end(path), 11, dtype=torch.float64)
    torch.testing.assert_close(grids.shifted(path, 10, shift=1.0), uniform, rtol=1e-8, atol=1e-12)
    assert float(grids.shifted(path, 10, shift=3.0)[0]) == pytest.approx(path.t_max, rel=1e-9)


@pytest.mark.parametrize("n_steps", [1, 2, 10, 25, 100, 250, 1000])
def test_respaced_is_the_papers_rounding(n_steps):
    """2102.09672, section 4: K evenly spaced real numbers between 1 and T (inclusive), rounded."""
    expected = [0.0] if n_steps == 1 else [1 + 999 * i / (n_steps - 1) - 1 for i in range(n_steps)]
    steps = (1000 * grids.respaced(Discrete(), n_steps)).round().int().tolist()
    assert steps == [round(step) for step in reversed(expected)] + [-1]


def test_respaced_by_sections():
    """10 of steps 0..332 and so on: 1000 = 334 + 333 + 333."""
    steps = (1000 * grids.respaced(Discrete(), [10, 15, 20])).round().int().tolist()[::-1]
    assert steps[0] == -1 and len(steps) == 46
    assert steps[1] == 0 and steps[10] == 333 and steps[11] == 334 and steps[25] == 666
    assert steps[26] == 667 and steps[45] == 999
    assert set(torch.tensor(steps[1:11]).diff().tolist()) == {37}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: grids.uniform(Linear(), 0), "grid.n_steps: got 0"),
        (lambda: grids.uniform(Linear(), 2.5), "grid.n_steps: got 2.5"),
        (lambda: grids.uniform(Linear(), True), "grid.n_steps: got True"),
        (lambda: grids.uniform(Discrete(steps=50), 51), "grid.n_steps: got 51"),
        (lambda: grids.karras(VE(), 1), "grid.n_steps: got 1"),
        (lambda: grids.karras(VE(), 5, rho=0.0), "grid.rho: got 0.0"),
        (lambda: grids.karras(VE(), 5, sigma_max=81.0), "grid.sigma_max: got 81.0; allowed: .* 0.002 to 80"),
        (lambda: grids.log_snr(Discrete(), 5, sigma_min=0.002), "grid.sigma_min: got 0.002"),
        (lambda: grids.log_snr(VE(), 5, sigma_min=5.0, sigma_max=4.0), "grid.sigma_min: got 5.0"),
        (lambda: grids.shifted(Linear(), 5, shift=-1.0), "grid.shift: got -1.0"),
        (lambda: grids.respaced(Linear(), 5), "grid: got 'respaced'.*grid=uniform"),
        (lambda: grids.respaced(Discrete(), 1001), "grid.n_steps: got 1001"),
        (lambda: grids.respaced(Discrete(), [400, 10, 10]), "grid.n_steps: got 400"),
    ],
)
def test_values_are_checked(make, message):
    with pytest.raises(InputError, match=message):
        make()
