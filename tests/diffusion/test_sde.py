"""SiT's family of reverse SDEs against its equations, written out in SiT's own time."""

import math
import warnings
from functools import partial

import pytest
import torch
from torch import Tensor

from dit.condition import labelled
from dit.diffusion import grids, solvers
from dit.diffusion.denoiser import Denoiser
from dit.diffusion.paths import VE, Cosine, Discrete, Linear
from dit.diffusion.solvers.sde import FORMS
from dit.diffusion.targets import Velocity
from dit.errors import InputError
from tests.diffusion.gaussian import Gaussian, Plausible
from tests.diffusion.values import Noises, Stub, draw

SHAPE, LABELS = (3, 2, 4, 4), labelled(torch.tensor([0, 4, 7]))
PATHS = {"linear": Linear(), "cosine": Cosine()}
PAPER = {  # D(u) at norm n with u = 1 at data, table 3 of 2401.08740 and the choices of its code
    "constant": lambda _, u, n: n,
    "SBDM": lambda path, u, n: (
        n / u * (1 - u) if path == Linear() else n * math.pi / 2 / math.tan(u * math.pi / 2)
    ),
    "sigma": lambda path, u, n: n * (1 - u if path == Linear() else math.cos(math.pi / 2 * u)),
    "linear": lambda _, u, n: n * (1 - u),
    "decreasing": lambda _, u, n: (n * math.cos(math.pi * u) + 1) ** 2 / 4,
    "increasing-decreasing": lambda _, u, n: n * math.sin(math.pi * u) ** 2,
}


def paper_sde(path, network, x, us, noise, form, norm, method, last_step) -> Tensor:
    """The sampler of 2401.08740, section 2.4: dx = (v + D score) du + sqrt(2 D) dW, u from noise to data."""

    def fields(x, u):
        """The network's v = dx/du (minus ours), the score and x0."""
        v = -network(x, torch.full((3,), 1000 * (1 - u), dtype=x.dtype), LABELS)
        if path == Linear():  # x = u x0 + (1 - u) eps, v = x0 - eps
            eps, x0, sigma = x - u * v, x + (1 - u) * v, 1 - u
        else:  # x = sin x0 + cos eps, v = pi / 2 (cos x0 - sin eps)
            sin, cos = math.sin(math.pi / 2 * u), math.cos(math.pi / 2 * u)
            eps, x0, sigma = cos * x - sin * v * 2 / math.pi, sin * x + cos * v * 2 / math.pi, cos
        return v, -eps / sigma, x0

    def drift(x, u):
        v, score, _ = fields(x, u)
        return v + PAPER[form](path, u, norm) * score

    *whole, before, end = us
    for u, following in zip([*whole], [*whole[1:], before]):
        du = following - u
        jump = math.sqrt(2 * PAPER[form](path, u, norm) * du) * noise()
        if method == "euler":
            x = x + du * drift(x, u) + jump
        else:
            hat = x + jump
            first = drift(hat, u)
            x = hat + du / 2 * (first + drift(hat + du * first, following))
    v, _, x0 = fields(x, before)
    du = end - before
    if last_step == "none":
        return x + du * drift(x, before) + math.sqrt(2 * PAPER[form](path, before, norm) * du) * noise()
    return {"tweedie": x0, "mean": x + du * drift(x, before), "euler": x + du * v}[last_step]


METHODS = {"euler": solvers.euler_maruyama, "heun": solvers.heun_sde}
LAST = [(m, s) for m in METHODS for s in ("tweedie", "mean", "euler", "none") if (m, s) != ("heun", "none")]


@pytest.mark.filterwarnings("ignore:solver.diffusion")
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
@pytest.mark.parametrize("form", PAPER)
@pytest.mark.parametrize(("method", "last_step"), LAST)
@pytest.mark.parametrize("norm", [1.0, 0.4])
def test_the_family_is_the_papers(path, form, method, last_step, norm):
    start = 0.98 if form == "SBDM" else 1.0  # SiT leaves out pure noise for it, where D has no bound
    ts = grids.sit(path, 20, start=start, last_step_size=0.04)
    with torch.no_grad():
        expected = paper_sde(
            path, Stub(), draw(SHAPE, 1), (1 - ts).tolist(), Noises(SHAPE), form, norm, method, last_step
        )
        solver = partial(METHODS[method], diffusion=form, norm=norm, last_step=last_step)
        got = solver(Denoiser(Stub(), path, Velocity()), draw(SHAPE, 1), ts, LABELS, noise=Noises(SHAPE))
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_every_form_is_compared():
    assert list(PAPER) == list(FORMS)


def test_the_default_adds_2_sigma_as_every_published_number_of_sit_and_repa_did():
    """One step of the published SDE from t = 1/2 on Linear: variance 2 t h; its mean is x - h (v + eps)."""
    denoiser = Denoiser(Stub(), Linear(), Velocity())
    ts = torch.tensor([0.5, 0.46], dtype=torch.float64)
    x, z = draw(SHAPE, 1), draw(SHAPE, 2)
    prediction = denoiser(x, torch.full((3,), 0.5, dtype=torch.float64), LABELS)
    expected = x - 0.04 * (prediction.output + prediction.eps) + math.sqrt(2 * 0.5 * 0.04) * z
    torch.testing.assert_close(solvers.euler_maruyama(denoiser, x, ts, LABELS, noise=lambda: z), expected)


def test_no_norm_is_the_ode():
    denoiser, ts = Plausible(Cosine(), Velocity()).double(), grids.uniform(Cosine(), 12)
    x = draw(SHAPE, 3)
    for sde, ode in ((solvers.euler_maruyama, solvers.euler), (solvers.heun_sde, solvers.heun)):
        got = sde(denoiser, x, ts, LABELS, noise=Noises(SHAPE), norm=0.0)
        torch.testing.assert_close(got, ode(denoiser, x, ts, LABELS))


def test_the_mean_of_a_last_step_keeps_noise_of_its_size_and_tweedie_does_not():
    """SiT's default last step on Linear with w = 2 sigma ends at x0 - h eps, not at x0."""
    denoiser, x = Gaussian(Linear()), draw(SHAPE, 5)
    ts = torch.tensor([0.04, 0.0], dtype=torch.float64)
    said = denoiser(x, torch.full((3,), 0.04, dtype=torch.float64))
    mean = solvers.euler_maruyama(denoiser, x, ts, noise=Noises(SHAPE), last_step="mean")
    torch.testing.assert_close(mean, said.x0 - 0.04 * said.eps)
    torch.testing.assert_close(solvers.heun_sde(denoiser, x, ts, noise=Noises(SHAPE)), said.x0)


# What a user can get wrong.


@pytest.mark.parametrize("solver", METHODS.values(), ids=METHODS.keys())
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"diffusion": "path"}, "solver.diffusion: got 'path'; allowed: one of constant, SBDM, sigma, "),
        ({"norm": -1.0}, "solver.norm: got -1.0"),
        ({"norm": float("inf")}, "solver.norm: got inf"),
        ({"last_step": "Mean"}, "solver.last_step: got 'Mean'; allowed: one of tweedie, mean, euler, none"),
        ({"diffusion": "decreasing"}, "solver.diffusion: .* on a path whose times exceed 1"),
    ],
)
def test_options_are_checked(solver, options, message):
    with pytest.raises(InputError, match=message):
        solver(Gaussian(VE()), draw(SHAPE, 1), torch.tensor([40.0, 0.0]), noise=Noises(SHAPE), **options)


def test_heun_takes_no_common_step_into_data():
    with pytest.raises(InputError, match=r"solver.last_step: got 'none'; allowed: tweedie, mean, euler"):
        solvers.heun_sde(
            Gaussian(VE()), draw(SHAPE, 1), torch.tensor([40.0, 0.0]), noise=Noises(SHAPE), last_step="none"
        )


def test_a_step_of_more_noise_than_its_level_warns_and_a_diverging_one_is_refused():
    denoiser, x = Gaussian(Linear()), draw(SHAPE, 1)
    sbdm = partial(solvers.euler_maruyama, denoiser, x, noise=Noises(SHAPE, 250), diffusion="SBDM")
    with pytest.warns(UserWarning, match=r"solver.diffusion=SBDM .* from t = 0.999 .*diffusion=sigma"):
        sbdm(grids.sit(Linear(), 250, start=0.999))
    for ts in (grids.uniform(Linear(), 50), grids.sit(Linear(), 50)):
        with pytest.raises(InputError, match=r"solver.diffusion.*diffusion=sigma"):
            sbdm(ts)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solvers.euler_maruyama(denoiser, x, grids.sit(Linear(), 250), noise=Noises(SHAPE, 250))


# The grid.


def test_the_grid_is_that_of_sit_and_repa():
    """2410.06940's released sampler: 250 times from 1 to 0.04 and 0; 2401.08740's: 0.04 for the last step."""
    ts = grids.sit(Linear(), 250)
    assert len(ts) == 251 and ts[0] == 1 and ts[-1] == 0
    assert float(ts[-2]) == pytest.approx(0.04, rel=1e-12)
    torch.testing.assert_close(ts[:-1].diff(), torch.full((249,), -0.96 / 249, dtype=torch.float64))


def test_the_grid_starts_and_ends_where_it_is_told():
    assert grids.sit(Discrete(), 250)[0] == 0.999 and grids.sit(VE(), 20, last_step_size=0.5)[0] == 80
    even = grids.sit(Cosine(), 50, last_step_size=None)
    torch.testing.assert_close(even, torch.linspace(1, 0, 51, dtype=torch.float64))
    noisy = grids.sit(Linear(), 49, start=0.999, last_step_size=None, end=0.001)
    torch.testing.assert_close(noisy, torch.linspace(0.999, 0.001, 50, dtype=torch.float64))
    whole = 1000 * grids.sit(Discrete(), 250)[:-1]
    assert (whole - whole.round()).abs().max() < 1e-9 and whole[-1] == 39


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_steps": 1}, "grid.n_steps: got 1"),
        ({"start": 1.5}, "grid.start: got 1.5; allowed: .* <= 1"),
        ({"last_step_size": 0.0}, "grid.last_step_size: got 0.0"),
        ({"last_step_size": 1.0}, "grid.last_step_size: got 1.0; allowed: .* < 1"),
        ({"end": 0.001}, "grid.last_step_size: got 0.04; allowed: null where grid.end is given"),
        ({"end": 0.0, "last_step_size": None}, "grid.end: got 0.0"),
        ({"end": 1.0, "last_step_size": None}, "grid.end: got 1.0"),
    ],
)
def test_the_grid_is_checked(options, message):
    with pytest.raises(InputError, match=message):
        grids.sit(Linear(), **{"n_steps": 10, **options})
