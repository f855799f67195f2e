import math
import sys
from functools import partial
from itertools import pairwise

import pytest
import torch

from dit.condition import labelled
from dit.diffusion import grids, solvers
from dit.diffusion.paths import VE, VP, Cosine, Discrete, Linear
from dit.diffusion.targets import Karras, Noise, Velocity
from dit.errors import InputError
from tests.diffusion.gaussian import Gaussian, Plausible, between, measured_order
from tests.diffusion.values import PATHS, TARGETS, Noises, draw

CONTINUOUS = {"linear": Linear(), "cosine": Cosine(), "vp": VP(), "ve": VE()}
SHAPE = (3, 2, 4, 4)
LABELS = labelled(torch.tensor([0, 4, 7]))
DETERMINISTIC = {
    "euler": (solvers.euler, 1),
    "heun": (solvers.heun, 2),
    "ddim": (solvers.ddim, 1),
    "dpm_solver_1": (partial(solvers.dpm_solver, order=1), 1),
    "dpm_solver_2": (partial(solvers.dpm_solver, order=2), 2),
    "dpm_solver_3": (partial(solvers.dpm_solver, order=3), 3),
    "dpmpp_2s": (solvers.dpmpp_2s, 2),
    "dpmpp_2m": (solvers.dpmpp_2m, 2),
}
STOCHASTIC = {
    "ddpm": solvers.ddpm,
    "ddpm_beta": partial(solvers.ddpm, variance="beta"),
    "ddim_eta_1": partial(solvers.ddim, eta=1.0),
    "ddim_eta_half": partial(solvers.ddim, eta=0.5),
    "euler_maruyama": solvers.euler_maruyama,
    "euler_maruyama_linear": partial(solvers.euler_maruyama, diffusion="linear", norm=0.5),
    "heun_sde": solvers.heun_sde,
    "edm_stochastic": partial(solvers.edm_stochastic, churn=10.0, s_min=0.0, s_max=100.0, s_noise=1.0),
}
ALL = {name: solver for name, (solver, _) in DETERMINISTIC.items()} | STOCHASTIC


def silence() -> torch.Tensor:
    return torch.zeros(SHAPE, dtype=torch.float64)


# Orders of convergence on a Gaussian, whose flow and marginals are known.


@pytest.mark.parametrize("path", CONTINUOUS.values(), ids=CONTINUOUS.keys())
@pytest.mark.parametrize("in_log_snr", [True, False], ids=["even in log-SNR", "even in t"])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_order_of_convergence(name, path, in_log_snr):
    solver, order = DETERMINISTIC[name]
    denoiser, x = Gaussian(path), draw((2, 1, 3, 3), 3)
    errors = []
    fewest = 160 if order == 3 and not in_log_snr else 80  # where the order has settled
    for steps in (fewest, 2 * fewest):
        ts = between(path, -3.0, 3.0, steps, in_log_snr)
        exact = denoiser.flow(x, float(ts[0]), float(ts[-1]))
        errors.append(float((solver(denoiser, x, ts) - exact).abs().max()))
    assert measured_order(errors) == pytest.approx(order, abs=0.15), errors


@pytest.mark.parametrize("path", CONTINUOUS.values(), ids=CONTINUOUS.keys())
def test_dopri5_keeps_its_tolerance(path):
    denoiser, x = Gaussian(path), draw((2, 1, 3, 3), 3)
    ts = between(path, -6.0, 6.0, 1, True)
    exact = denoiser.flow(x, float(ts[0]), float(ts[-1]))
    errors = [
        float((solvers.dopri5(denoiser, x, ts, rtol=tolerance, atol=tolerance) - exact).abs().max())
        for tolerance in (1e-3, 1e-6, 1e-9)
    ]
    assert errors[1] < 1e-4 and errors[2] < 1e-7, errors


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_dopri5_ends_at_clean_data(path):
    denoiser, x = Gaussian(path), draw((2, 1, 3, 3), 3)
    start, last = path.t_of_log_snr(torch.tensor([-6.0, 13.8155], dtype=torch.float64)).tolist()
    ts = torch.tensor([start, -1.0], dtype=torch.float64)
    expected = denoiser(denoiser.flow(x, start, last), torch.full((2,), last, dtype=torch.float64)).x0
    # a discrete path has a kink at every step, which the error estimate sees only in part
    tolerance = 5e-3 if isinstance(path, Discrete) else 2e-5
    got = solvers.dopri5(denoiser, x, ts, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(got, expected, rtol=0, atol=tolerance)


def deviation_after(solver, denoiser, ts) -> float:
    """Standard deviation that a linear solver gives x: impulses find the coefficients of start and draws."""
    draws = 0

    def count() -> torch.Tensor:
        nonlocal draws
        draws += 1
        return torch.zeros(1, 1, 1, 1, dtype=torch.float64)

    solver(denoiser, torch.zeros(1, 1, 1, 1, dtype=torch.float64), ts, noise=count)
    impulses = torch.eye(draws + 1, dtype=torch.float64)[:, :, None, None, None]  # (draw, sample, 1, 1, 1)
    rows = iter(impulses[1:])
    start = impulses[0] * denoiser.deviation(float(ts[0]))
    return float(solver(denoiser, start, ts, noise=lambda: next(rows)).square().sum().sqrt())


@pytest.mark.parametrize("path", CONTINUOUS.values(), ids=CONTINUOUS.keys())
@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_solvers_keep_the_marginals(name, path):
    denoiser = Gaussian(path, mean=0.0)
    errors = []
    for steps in (40, 80, 160):
        of_sde = "maruyama" in name  # even in t; near data its two leading errors nearly cancel on Linear
        ts = between(path, *((-3.0, 1.0) if of_sde else (-2.0, 2.0)), steps, in_log_snr=not of_sde)
        errors.append(
            abs(deviation_after(STOCHASTIC[name], denoiser, ts) - denoiser.deviation(float(ts[-1])))
        )
    # a weak order of 1 for averages; 2 where Heun does the steps
    assert measured_order(errors) == pytest.approx(2 if name == "edm_stochastic" else 1, abs=0.25), errors


@pytest.mark.parametrize("path", [VP(), VE()], ids=["vp", "ve"])
def test_the_forward_sde_reversed_keeps_the_marginals(path):
    denoiser = Gaussian(path, mean=0.0)
    solver = partial(solvers.euler_maruyama, diffusion="SBDM")
    errors = []
    for steps in (80, 160, 320):
        ts = between(path, -4.0, 1.0, steps, in_log_snr=False)
        errors.append(abs(deviation_after(solver, denoiser, ts) - denoiser.deviation(float(ts[-1]))))
    assert measured_order(errors) == pytest.approx(1, abs=0.25), errors


# Identities.


@pytest.mark.parametrize("name", [*DETERMINISTIC, *STOCHASTIC])
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_the_step_into_clean_data_is_the_data_prediction(name, path):
    denoiser, x = Gaussian(path), draw(SHAPE, 5)
    t = min(0.4 * path.t_max, 3.0)
    ts = torch.tensor([t, -1.0], dtype=torch.float64)
    expected = denoiser(x, torch.full((3,), t, dtype=torch.float64)).x0
    options = {"churn": 0.0} if name == "edm_stochastic" else {}
    torch.testing.assert_close(
        ALL[name](denoiser, x, ts, noise=silence, **options), expected, rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
def test_dpm_solver_of_order_1_is_ddim_and_both_are_the_data_step(target):
    denoiser, x = Plausible(Cosine(), target).double(), draw(SHAPE, 6)
    ts = between(Cosine(), -8.0, 8.0, 12, True)
    ddim = solvers.ddim(denoiser, x, ts, LABELS)
    torch.testing.assert_close(solvers.dpm_solver(denoiser, x, ts, LABELS, order=1), ddim)
    once = ts[[0, 5]]
    torch.testing.assert_close(
        solvers.dpmpp_2m(denoiser, x, once, LABELS), solvers.ddim(denoiser, x, once, LABELS)
    )


def test_ddim_with_eta_1_is_ddpm():
    denoiser, x = Plausible(Discrete(), Noise()).double(), draw(SHAPE, 7)
    ts = torch.tensor([999, 700, 430, 120, 0, -1], dtype=torch.float64) / 1000
    ancestral = solvers.ddpm(denoiser, x, ts, LABELS, noise=Noises(SHAPE))
    torch.testing.assert_close(
        solvers.ddim(denoiser, x, ts, LABELS, noise=Noises(SHAPE), eta=1.0), ancestral, rtol=1e-10, atol=1e-10
    )


def test_edm_stochastic_without_churn_is_heun():
    denoiser, x = Plausible(VE(), Karras()).double(), 80 * draw(SHAPE, 8)
    ts = torch.tensor([80.0, 20.0, 4.0, 0.5, 0.01, 0.0], dtype=torch.float64)
    torch.testing.assert_close(
        solvers.edm_stochastic(denoiser, x, ts, LABELS, churn=0.0), solvers.heun(denoiser, x, ts, LABELS)
    )


def test_edm_stochastic_raises_the_noise_as_the_paper_has_it():
    """Algorithm 2 of 2206.00364 on VE, written out for one step in terms of D alone."""
    denoiser, x, z = Plausible(VE(), Karras()).double(), 5 * draw(SHAPE, 9), draw(SHAPE, 10)

    def d(x, t):
        return (x - denoiser(x, torch.full((3,), t, dtype=torch.float64), LABELS).x0) / t

    t, end, churn, s_noise = 5.0, 2.0, 0.2, 1.1
    hat = t + churn * t
    x_hat = x + (hat**2 - t**2) ** 0.5 * s_noise * z
    guess = x_hat + (end - hat) * d(x_hat, hat)
    expected = x_hat + (end - hat) * (d(x_hat, hat) / 2 + d(guess, end) / 2)
    ts = torch.tensor([t, end], dtype=torch.float64)
    got = solvers.edm_stochastic(denoiser, x, ts, LABELS, noise=lambda: z, churn=churn, s_noise=s_noise)
    torch.testing.assert_close(got, expected)


def test_an_end_of_the_churned_range_on_a_time_of_the_grid_is_churned():
    """EDM compares S_tmin <= sigma <= S_tmax; exp(ln sigma) may lie on either side of sigma."""
    for path in (VE(), Linear(), Cosine()):
        for first, last in ((50.0, 0.05), (7.0, 0.3), (49.0, 0.11)):
            ts = grids.karras(path, 12, sigma_min=last, sigma_max=first)
            noise = Noises((2, 1, 2, 2))
            x = draw((2, 1, 2, 2), 1)
            solvers.edm_stochastic(Gaussian(path), x, ts, noise=noise, s_min=last, s_max=first)
            assert noise.used == 12, (path, first)


def test_solvers_keep_gradients():
    path = Linear()
    denoiser, x = Plausible(path, Velocity()).double(), draw(SHAPE, 11).requires_grad_()
    solvers.heun(denoiser, x, between(path, -3.0, 3.0, 3, True), LABELS).sum().backward()
    assert x.grad is not None and x.grad.abs().min() > 0


# What a user can get wrong.


@pytest.mark.parametrize("name", ["ddpm", "ddim_eta_1", "euler_maruyama", "edm_stochastic"])
def test_a_stochastic_solver_asks_for_noise(name):
    with pytest.raises(InputError, match=r"noise: nothing was given.*stochastic"):
        STOCHASTIC[name](Gaussian(VE()), draw(SHAPE, 1), torch.tensor([40.0, 10.0, 0.0]))


@pytest.mark.parametrize(
    ("solver", "key"),
    [
        (partial(solvers.ddim, eta=1.5), "solver.eta"),
        (partial(solvers.ddim, eta=True), "solver.eta"),
        (partial(solvers.ddpm, variance="large"), "solver.variance"),
        (partial(solvers.dpm_solver, order=4), "solver.order"),
        (partial(solvers.edm_stochastic, churn=-1.0), "solver.churn"),
        (partial(solvers.dopri5, rtol=0.0), "solver.rtol"),
    ],
)
def test_options_are_checked(solver, key):
    with pytest.raises(InputError, match=f"^{key}: "):
        solver(Gaussian(VE()), draw(SHAPE, 1), torch.tensor([40.0, 10.0, 0.0]), noise=silence)


@pytest.mark.parametrize("ts", [[0.5], [0.5, 0.5, 0.0], [0.1, 0.9], [0.5, float("nan")]])
def test_a_grid_must_decrease(ts):
    with pytest.raises(InputError, match="strictly decreasing"):
        solvers.euler(Gaussian(Linear()), draw(SHAPE, 1), torch.tensor(ts))


def test_dopri5_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(InputError, match=r"dit-scaling\[ode\]"):
        solvers.dopri5(Gaussian(VE()), draw(SHAPE, 1), torch.tensor([40.0, 0.0]))


def test_levels_are_those_of_the_path_in_float64():
    path = Cosine()
    ts = torch.tensor([1 - 1e-5, 0.5, 1e-5, 0.0], dtype=torch.float64)
    grid = solvers.levels(path, ts)
    assert [at.t for at in grid] == ts.tolist()
    assert grid[1].alpha == pytest.approx(0.5**0.5, rel=1e-15) and grid[1].lam == pytest.approx(0, abs=1e-15)
    assert (grid[-1].alpha, grid[-1].sigma) == (1.0, 0.0)
    assert all(a.lam < b.lam for a, b in pairwise(grid))


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_the_first_noisy_time_is_noisy_also_in_float32(path):
    at = solvers.level(path, float(torch.tensor(path.t_min, dtype=torch.float32)))
    assert at.sigma > 0 and math.isfinite(at.lam)
    assert solvers.level(path, grids.data_end(path)).sigma == 0
