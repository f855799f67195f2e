"""Values at the edge of what is allowed: the last one inside is taken, the first one outside refused."""

import math
import warnings
from functools import partial

import pytest
import torch

from dit.diffusion import grids, solvers, times, weights
from dit.diffusion.editing import image_to_image, interpolate
from dit.diffusion.guidance import ClassifierFree, NegativeClass
from dit.diffusion.likelihood import likelihood
from dit.diffusion.paths import VE, VP, Cosine, Discrete, Linear
from dit.diffusion.sampling import NoiseStream
from dit.diffusion.targets import Karras, Velocity
from dit.errors import InputError
from tests.diffusion.gaussian import Gaussian, Plausible
from tests.diffusion.values import Noises, draw

TINY = 1e-9


@pytest.mark.parametrize(
    "make",
    [
        lambda: (Linear(TINY, 1 - TINY), Cosine(TINY, 1 - TINY), VE(TINY, 1e9), VP(TINY, 1.0, TINY, 5.0)),
        lambda: (VP(beta_min=2.0, beta_max=2.0), Discrete(steps=2, beta_max=TINY, beta_min=TINY)),
        lambda: Discrete("scaled_linear", beta_min=0.99, beta_max=0.999),
        lambda: (weights.MinSNR(TINY), weights.SoftMinSNR(TINY), weights.EDM(TINY), Karras(TINY)),
        lambda: (times.LogitNormal(-3.0, TINY), times.LogNormalSigma(0.0, TINY), times.Shifted(TINY)),
        lambda: (grids.uniform(Linear(), 1), grids.shifted(Linear(), 1, shift=0.01), grids.sit(Linear(), 2)),
        lambda: grids.sit(Linear(), 1, last_step_size=None),
        lambda: (grids.log_snr(Linear(), 2), grids.karras(VE(), 2, rho=0.5, sigma_min=0.01, sigma_max=0.02)),
        lambda: (
            grids.respaced(Discrete(), 1),
            grids.respaced(Discrete(), 1000),
            grids.uniform(Discrete(), 1000),
        ),
        lambda: NoiseStream([0, 2**32 - 1], (1,)),
        lambda: ClassifierFree(Plausible(Linear(), Velocity()), 0, channels=1),
        lambda: NegativeClass(Plausible(Linear(), Velocity()), 0, negative_class=0, channels=1),
    ],
)
def test_the_last_value_inside_is_taken(make):
    assert make() is not None


GAUSSIAN, X = Gaussian(Linear()), draw((1, 1, 2, 2), 1)
GRID = partial(grids.uniform, n_steps=4)


@pytest.mark.parametrize(
    ("call", "key"),
    [
        (lambda: Linear(t_max=1.5), "objective.path.t_max"),
        (lambda: Cosine(t_min=1.0), "objective.path.t_min"),
        (lambda: VE(t_min=0.0), "objective.path.t_min"),
        (lambda: VP(beta_min=0.0), "objective.path.beta_min"),
        (lambda: Linear(0.5, 0.5), "objective.path.t_min"),
        (lambda: Discrete(beta_max=1.0), "objective.path.beta_max"),
        (lambda: grids.log_snr(Linear(), 1), "grid.n_steps"),
        (lambda: grids.log_snr(Linear(), 2.5), "grid.n_steps"),
        (lambda: grids.karras(Linear(), 2.5), "grid.n_steps"),
        (lambda: grids.shifted(Linear(), 2.5), "grid.n_steps"),
        (lambda: grids.shifted(Linear(), 0), "grid.n_steps"),
        (lambda: grids.shifted(Linear(), 2, shift=0), "grid.shift"),
        (lambda: grids.sit(Linear(), 2.5), "grid.n_steps"),
        (lambda: grids.sit(Linear(), 0, last_step_size=None), "grid.n_steps"),
        (lambda: grids.respaced(Discrete(), [10, 2.5]), "grid.n_steps"),
        (lambda: grids.respaced(Discrete(), [10, 0]), "grid.n_steps"),
        (lambda: grids.karras(Linear(), 5, sigma_min=0.0), "grid.sigma_min"),
        (lambda: grids.karras(Linear(), 5, sigma_min=1.0, sigma_max=1.0), "grid.sigma_min"),
        (
            lambda: ClassifierFree(Plausible(Linear(), Velocity()), channels=1.5),
            "guidance.channels",
        ),
        (
            lambda: ClassifierFree(Plausible(Linear(), Velocity()), interval=[1.0, 1.0]),
            "guidance.interval",
        ),
        (lambda: image_to_image(GAUSSIAN, solvers.euler, GRID, X, 0.2499, [0]), "strength"),
        (lambda: interpolate(GAUSSIAN, solvers.euler, GRID, X[0].shape, (0, 1), 1), "n"),
        (lambda: interpolate(GAUSSIAN, solvers.euler, GRID, X[0].shape, (0, 1), 2.5), "n"),
        (lambda: likelihood(GAUSSIAN, X, GRID, seeds=[0], probes=1.5), "probes"),
        (lambda: likelihood(GAUSSIAN, torch.zeros(1, 1, 1, 4097), GRID, probes=None), "probes"),
        (lambda: solvers.dopri5(GAUSSIAN, X, GRID(Linear()), rtol=0.0), "solver.rtol"),
        (lambda: solvers.dopri5(GAUSSIAN, X, GRID(Linear()), atol=0.0), "solver.atol"),
        (lambda: solvers.edm_stochastic(GAUSSIAN, X, GRID(Linear()), churn=math.inf), "solver.churn"),
        (lambda: solvers.edm_stochastic(GAUSSIAN, X, GRID(Linear()), s_max=-math.inf), "solver.s_max"),
        (lambda: solvers.dpm_solver(GAUSSIAN, X, GRID(Linear()), order=0), "solver.order"),
    ],
)
def test_the_first_value_outside_is_refused(call, key):
    with pytest.raises(InputError, match=rf"^{key}: "):
        call()


def test_whole_strengths_and_two_samples_are_enough():
    assert image_to_image(GAUSSIAN, solvers.euler, GRID, X, 0.25, [0]).nfe == 1
    assert len(interpolate(GAUSSIAN, solvers.euler, GRID, X[0].shape, (0, 1), 2).x0) == 2
    assert (
        solvers.edm_stochastic(GAUSSIAN, X, GRID(Linear()), churn=0, s_min=0, s_max=0, s_noise=0)
        .isfinite()
        .all()
    )


def test_churn_without_an_upper_level_is_edms_default():
    noise = Noises(X.shape)
    solvers.edm_stochastic(GAUSSIAN, X, GRID(Linear()), noise=noise, s_min=0, s_max=math.inf)
    assert noise.used == 3  # none at the first time, the end of the path


def test_the_bounds_of_an_sdes_steps_are_2_and_256_times_the_variance_of_its_level():
    """Constant D = n / 2 from t = 1/2 by 1/4: w h / sigma^2 is n."""
    ts = torch.tensor([0.5, 0.25], dtype=torch.float64)
    step = partial(solvers.euler_maruyama, GAUSSIAN, X, ts, diffusion="constant")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(noise=Noises(X.shape), norm=0.999)
    with pytest.warns(UserWarning, match="of at most 0.25, got 0.25"):
        step(noise=Noises(X.shape), norm=1.001)
    with pytest.warns(UserWarning, match="of at most"):
        step(noise=Noises(X.shape), norm=127.9)
    with pytest.raises(InputError, match=r"^solver.diffusion: "):
        step(noise=Noises(X.shape), norm=128.1)


def test_times_at_the_ends_of_the_uniform_numbers_are_finite_and_inside():
    u = torch.tensor([0.0, 1.0], dtype=torch.float64)
    for path in (Linear(), VE(), Discrete()):
        for density in (times.Uniform(), times.LogitNormal(), times.LogNormalSigma(), times.Shifted()):
            t = density.from_uniform(u, path)
            assert path.t_min <= t[0] < t[1] <= path.t_max, (path, density)
    # quantiles of half the spacing of float64 at 1, 1.1e-16
    logit = torch.logit((times.LogitNormal().from_uniform(u, Linear()) - Linear().t_min) / (1 - 2e-5))
    assert logit.tolist() == pytest.approx([-8.2095, 8.2095], abs=1e-3)
    assert math.isfinite(float(times.LogNormalSigma().from_uniform(u.float(), Linear())[1]))
