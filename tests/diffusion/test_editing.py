import math
from functools import partial

import pytest
import torch

from dit.condition import NOTHING, labelled
from dit.diffusion import grids, solvers
from dit.diffusion.editing import image_to_image, inpaint, interpolate, slerp
from dit.diffusion.guidance import ClassifierFree
from dit.diffusion.paths import VE, VP, Cosine, Discrete, Linear
from dit.diffusion.sampling import NoiseStream, sample
from dit.diffusion.targets import Karras, Noise, Velocity
from dit.errors import InputError
from tests.diffusion.gaussian import Gaussian, Plausible
from tests.diffusion.values import PATHS, SOLVERS, draw

SHAPE = (2, 4, 4)
GRID = partial(grids.log_snr, n_steps=12)
SEEDS, Y = [11, 12, 13], labelled(torch.tensor([1, 2, 3]))
X0 = draw((3, *SHAPE), 20)
# dopri5 chooses one step size for its batch, so that a sample depends on the others to its tolerance.
STEPPING = {name: solver for name, solver in SOLVERS.items() if name != "dopri5"}
every_solver = pytest.mark.parametrize("solver", STEPPING.values(), ids=STEPPING.keys())


def plausible(path=None, target=None):
    return Plausible(path or Linear(), target or Velocity()).double()


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_image_to_image_follows_the_flow_from_the_noised_image(path):
    """On a Gaussian the flow carries each quantile of x_t to that quantile of the data."""
    denoiser = Gaussian(path)
    grid = partial(grids.log_snr, n_steps=200)
    got = image_to_image(denoiser, solvers.heun, grid, X0, 0.4, SEEDS)
    start = grid(path)[120]
    noisy = float(path.alpha(start)) * X0 + float(path.sigma(start)) * NoiseStream(SEEDS, SHAPE)().double()
    last = float(grid(path)[-2])
    expected = denoiser(
        denoiser.flow(noisy, float(start), last), torch.full((3,), last, dtype=torch.float64)
    ).x0
    torch.testing.assert_close(got.x0, expected, rtol=0, atol=2e-3)
    assert got.nfe == 2 * 80 - 1


def test_more_strength_leaves_less_of_the_image():
    denoiser = plausible()
    kept = [
        float((image_to_image(denoiser, solvers.ddim, GRID, X0, strength, SEEDS, Y).x0 - X0).square().mean())
        for strength in (1 / 12, 0.3, 0.6, 1.0)
    ]
    assert kept == sorted(kept) and kept[0] < 1e-4 < 0.1 < kept[-1]


def test_full_strength_is_a_sample_where_noise_covers_the_image():
    denoiser, grid = plausible(), partial(grids.uniform, n_steps=10)
    got = image_to_image(denoiser, solvers.euler, grid, X0, 1.0, SEEDS, Y)
    plain = sample(denoiser, solvers.euler, grid, SHAPE, SEEDS, Y, dtype=torch.float64)
    torch.testing.assert_close(got.x0, plain.x0, rtol=1e-3, atol=1e-3)
    assert got.nfe == plain.nfe == 10


@pytest.mark.parametrize("steps", [10, 50, 250])
def test_a_strength_of_whole_steps_takes_that_many(steps):
    """Also where (1 - strength) K is a whole number only up to rounding: 0.9 of 50 steps are 45."""
    grid, seen = partial(grids.uniform, n_steps=steps), []

    def solver(_denoiser, x, ts, _y, *, noise):
        seen.append(ts)
        return x

    for taken in range(1, steps + 1):
        image_to_image(Gaussian(Linear()), solver, grid, X0, taken / steps, SEEDS)
    assert [len(ts) - 1 for ts in seen] == list(range(1, steps + 1))


def test_strength_between_two_steps_starts_between_them():
    denoiser, grid = plausible(), partial(grids.uniform, n_steps=10)
    starts = []

    def solver(_denoiser, x, ts, _y, *, noise):
        starts.append(ts)
        return x

    image_to_image(denoiser, solver, grid, X0, 0.55, SEEDS, Y)
    ts = grid(Linear())
    assert float(starts[0][0]) == pytest.approx(float(ts[4] + ts[5]) / 2)
    assert torch.equal(starts[0][1:], ts[5:])


@every_solver
@pytest.mark.parametrize(
    "denoiser",
    [
        plausible(),
        plausible(VE(), Karras()),
        plausible(Discrete(), Noise()),
        plausible(VP(), Noise()),
        ClassifierFree(plausible(Cosine()), 2.0),
    ],
    ids=["linear", "ve", "discrete", "vp", "guided"],
)
def test_inpainting_keeps_what_is_known(solver, denoiser):
    known = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    known[..., :2, :] = True
    x0 = X0.clone()
    x0[..., 2:, :] = 1e6  # what is unknown is not looked at
    got = inpaint(denoiser, solver, GRID, x0, known, SEEDS, Y).x0
    torch.testing.assert_close(got[..., :2, :], x0[..., :2, :], rtol=1e-9, atol=1e-9)
    assert got[..., 2:, :].abs().max() < 100


@every_solver
def test_inpainting_independent_dimensions_changes_no_other(solver):
    denoiser = Gaussian(VP())
    known = torch.zeros(3, 2, 4, 4, dtype=torch.bool)
    known[0, 0], known[1, 1], known[2, :, 2:] = True, True, True
    got = inpaint(denoiser, solver, GRID, X0, known, SEEDS).x0
    plain = sample(denoiser, solver, GRID, SHAPE, SEEDS, dtype=torch.float64).x0
    torch.testing.assert_close(got[~known], plain[~known], rtol=1e-9, atol=1e-9)


def test_the_known_part_is_shown_at_its_noise_level():
    """Under a deterministic solver it moves on the line alpha x0 + sigma eps of its own first noise."""
    path, seen = Linear(), []

    class Watched(Gaussian):
        def forward(self, x_t, t, condition=NOTHING):
            seen.append((x_t, float(t[0])))
            return super().forward(x_t, t, condition)

    known = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    inpaint(Watched(path), solvers.heun, partial(grids.uniform, n_steps=5), X0, known, SEEDS)
    eps = NoiseStream(SEEDS, SHAPE)().double()
    for x_t, t in seen:
        torch.testing.assert_close(x_t, (1 - t) * X0 + t * eps, rtol=1e-7, atol=1e-7)


@every_solver
def test_interpolation_ends_at_the_samples_of_its_seeds(solver):
    denoiser, y = plausible(), labelled(torch.ones(5, dtype=torch.int64))
    row = interpolate(denoiser, solver, GRID, SHAPE, (5, 9), 5, y, dtype=torch.float64)
    ends = sample(denoiser, solver, GRID, SHAPE, [5, 9], y.part(slice(2)), dtype=torch.float64)
    torch.testing.assert_close(row.x0[[0, -1]], ends.x0, rtol=1e-7, atol=1e-7)
    assert row.nfe == ends.nfe and row.x0.shape == (5, *SHAPE)
    steps = (row.x0[1:] - row.x0[:-1]).flatten(1).norm(dim=1)
    assert steps.max() < 3 * steps.min()


def test_slerp_is_the_great_circle():
    a, b = torch.tensor([[[3.0, 0.0]]]).double(), torch.tensor([[[0.0, 3.0]]]).double()
    fractions = torch.tensor([0.0, 1 / 3, 0.5, 1.0], dtype=torch.float64)
    expected = [[3 * math.cos(f * math.pi / 2), 3 * math.sin(f * math.pi / 2)] for f in fractions.tolist()]
    torch.testing.assert_close(slerp(a, b, fractions)[:, 0, 0], torch.tensor(expected, dtype=torch.float64))
    assert torch.equal(slerp(a, a, fractions), a.expand(4, 1, 1, 2))


def test_values_are_checked():
    denoiser = plausible()
    for strength in (0.0, 0.05, 1.01, float("nan"), True):
        with pytest.raises(InputError, match=r"^strength: "):
            image_to_image(denoiser, solvers.ddim, GRID, X0, strength, SEEDS, Y)
    with pytest.raises(InputError, match=r"mask: got \(torch.float64"):
        inpaint(denoiser, solvers.ddim, GRID, X0, torch.ones(3, 1, 4, 4).double(), SEEDS, Y)
    with pytest.raises(InputError, match=r"mask.*broadcasts to \(3, 2, 4, 4\)"):
        inpaint(denoiser, solvers.ddim, GRID, X0, torch.ones(3, 1, 4, 5, dtype=torch.bool), SEEDS, Y)
    with pytest.raises(InputError, match="n: got 1"):
        interpolate(denoiser, solvers.ddim, GRID, SHAPE, (1, 2), 1, Y.part(slice(1)))
    with pytest.raises(InputError, match="two seeds"):
        interpolate(denoiser, solvers.ddim, GRID, SHAPE, (1, 2, 3), 3, Y)
    with pytest.raises(InputError, match="dtype"):
        image_to_image(denoiser, solvers.ddim, GRID, X0.half(), 0.5, SEEDS, Y)
