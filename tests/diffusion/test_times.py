import math

import numpy as np
import pytest
import torch
from scipy import stats

from dit.diffusion.paths import VE, VP, Cosine, Discrete, Linear
from dit.diffusion.times import LogitNormal, LogNormalSigma, Shifted, Uniform, stratified
from dit.errors import InputError
from tests.diffusion.values import PATHS, TIMES

U = torch.rand(20_000, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def ks(sample, distribution) -> float:
    return stats.kstest(sample.numpy(), distribution.cdf).pvalue


@pytest.mark.parametrize(
    ("times", "path", "transform", "distribution"),
    [
        (Uniform(), Linear(), lambda t: t, stats.uniform()),
        (Uniform(), VP(), lambda t: t, stats.uniform()),
        (Uniform(), VE(), lambda t: t, stats.uniform(0.002, 79.998)),
        (LogitNormal(), Linear(), torch.logit, stats.norm()),
        (LogitNormal(-0.5, 0.7), Cosine(), torch.logit, stats.norm(-0.5, 0.7)),
        (LogNormalSigma(), VE(), lambda t: t, stats.lognorm(s=1.2, scale=math.exp(-1.2))),
        (LogNormalSigma(-0.4, 1.0), Linear(), lambda t: torch.log(t / (1 - t)), stats.norm(-0.4, 1.0)),
        (LogNormalSigma(-0.4, 1.0), VP(), lambda t: -VP().log_snr(t) / 2, stats.norm(-0.4, 1.0)),
    ],
)
def test_densities_are_those_of_scipy(times, path, transform, distribution):
    sample = transform(times.from_uniform(U, path))
    assert ks(sample, distribution) > 1e-3
    # And a density which is not meant is told apart: the test has power.
    assert ks(sample + 0.1 * sample.std(), distribution) < 1e-3
    quantiles = distribution.ppf(np.array([0.01, 0.3, 0.5, 0.9]))
    got = transform(times.from_uniform(torch.tensor([0.01, 0.3, 0.5, 0.9], dtype=torch.float64), path))
    np.testing.assert_allclose(got, quantiles, rtol=1e-3, atol=2e-4)


def test_shift_is_that_of_sd3_by_resolution():
    t = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    n, m = 256**2, 512**2  # pixels of the old and of the new resolution
    root = math.sqrt(m / n)
    expected = root * t / (1 + (root - 1) * t)
    assert torch.allclose(Shifted(root).from_uniform(t, Linear(0.0 + 1e-12, 1 - 1e-12)), expected, rtol=1e-9)
    for path in PATHS.values():
        if not isinstance(path, Discrete):
            base = LogitNormal().from_uniform(t, path)
            moved = Shifted(root, LogitNormal()).from_uniform(t, path)
            inside = (moved > path.t_min) & (moved < path.t_max)
            difference = (path.log_snr(moved) - path.log_snr(base))[inside]
            torch.testing.assert_close(
                difference, torch.full_like(difference, -2 * math.log(root)), rtol=1e-6, atol=1e-6
            )


@pytest.mark.parametrize("times", TIMES.values(), ids=TIMES.keys())
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_times_rise_with_u_and_stay_on_the_path_even_at_its_ends(times, path, dtype):
    u = (
        torch.cat([torch.linspace(0, 1, 501, dtype=dtype), torch.tensor([1e-30, 1 - 1e-7], dtype=dtype)])
        .sort()
        .values
    )
    t = times.from_uniform(u, path)
    assert t.shape == u.shape and t.dtype == dtype and torch.isfinite(t).all()
    slack = 1e-6 * path.t_max
    assert (t >= path.t_min - slack).all() and (t <= path.t_max + slack).all()
    assert (t.diff() >= -slack).all()
    if isinstance(path, Discrete):
        k = path.time_shown(t)
        assert torch.equal(k, k.round())


def test_every_step_of_a_discrete_path_is_drawn_alike():
    u = (torch.arange(5000, dtype=torch.float64) + 0.5) / 5000
    counts = torch.bincount(
        Discrete().time_shown(Uniform().from_uniform(u, Discrete())).long(), minlength=1000
    )
    assert torch.equal(counts, torch.full((1000,), 5))


def test_strata_hold_one_sample_each_and_keep_the_mean_better():
    u = torch.rand(400, 64, generator=torch.Generator().manual_seed(1))
    drawn = torch.stack([stratified(row) for row in u])
    assert torch.equal((drawn * 64).floor(), torch.arange(64.0).expand(400, 64))
    assert drawn.max() < 1
    assert stats.kstest(drawn.flatten().numpy(), "uniform").pvalue > 1e-3
    # Variance of the mean of B uniform numbers: 1/(12 B) plain, 1/(12 B^3) with one stratum each.
    assert drawn.mean(1).var().item() == pytest.approx(1 / 12 / 64**3, rel=0.3)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: LogitNormal(m=math.nan), "objective.times.m"),
        (lambda: LogitNormal(s=0), "objective.times.s"),
        (lambda: LogitNormal(s="1"), "objective.times.s"),
        (lambda: LogNormalSigma(p_mean=None), "objective.times.p_mean"),
        (lambda: LogNormalSigma(p_std=-1.2), "objective.times.p_std"),
        (lambda: Shifted(shift=0.0), "objective.times.shift"),
        (lambda: Shifted(shift=math.inf), "objective.times.shift"),
        (lambda: Shifted(base="uniform"), "objective.times.base"),
    ],
)
def test_wrong_numbers_are_refused(make, key):
    with pytest.raises(InputError) as error:
        make()
    assert error.value.key == key
