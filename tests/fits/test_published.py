"""Published laws recovered from their published points, to the values recomputed beside their sources."""

import numpy as np
import pytest

from dit.fits.additive import fit_additive
from dit.fits.bootstrap import bootstrap, refit
from dit.fits.isoflop import fit_isoflop
from dit.fits.points import Points, read_points
from dit.fits.power import PowerLaw, fit_power

CHINCHILLA = {"n": "Model Size", "c": "Training FLOP", "loss": "loss"}
LLAMA = {"n": "params", "d": "tokens", "c": "budget", "budget": "budget", "loss": "loss"}


@pytest.fixture(scope="module")
def chinchilla(shared) -> Points:
    """The 240 points without the 5 highest losses."""
    return read_points(shared / "reference/chinchilla/svg_extracted_data.csv", CHINCHILLA, drop_highest=5)


@pytest.fixture(scope="module")
def llama(shared) -> Points:
    return read_points(shared / "reference/llama3/isoflop.csv", LLAMA, where=["condition=raw_loss"])


@pytest.fixture(scope="module")
def dit_table(shared) -> Points:
    """FID-50K of the 12 DiT models at 400k steps over forward GMACs."""
    where = ["paper=DiT 2212.09748", "train_steps=400000"]
    return read_points(shared / "reference/published.csv", {"c": "gflops_fwd", "loss": "fid"}, where)


def test_chinchilla_huber_optimum(chinchilla):
    fit = fit_additive(chinchilla, "huber", 1e-3)
    assert fit.searched.n == 240
    assert fit.objective == pytest.approx(1.0182740178e-3, rel=1e-7)
    assert pytest.approx(477.826, abs=0.5) == fit.A
    assert pytest.approx(2143.42, abs=5) == fit.B
    assert pytest.approx(1.817218, abs=2e-4) == fit.E
    assert fit.alpha == pytest.approx(0.3473105, abs=2e-4)
    assert fit.beta == pytest.approx(0.3671724, abs=2e-4)
    assert fit.a == pytest.approx(0.513900, abs=2e-4)
    assert fit.searched.starts >= 16
    assert fit.searched.agreed == fit.searched.starts


def test_chinchilla_least_absolute_deviations_are_the_often_quoted_values(chinchilla):
    """Besiroglu et al. print A 482.01, B 2085.43, alpha .3478, beta .3659, E 1.8169."""
    fit = fit_additive(chinchilla, "lad")
    assert pytest.approx(482.01, abs=0.01) == fit.A
    assert pytest.approx(2085.43, abs=0.01) == fit.B
    assert pytest.approx(1.81686, abs=1e-5) == fit.E
    assert fit.alpha == pytest.approx(0.3478, abs=5e-5)
    assert fit.beta == pytest.approx(0.3659, abs=5e-5)
    assert fit.searched.agreed == fit.searched.starts  # each one certified by its subgradient
    passed = np.abs(np.log(fit.predict_points(chinchilla) / chinchilla.loss)) < 1e-12
    assert passed.sum() == 5  # a vertex: as many exact residuals as parameters


def test_chinchilla_bootstrap_by_the_published_random_protocol(chinchilla):
    np.random.seed(42)
    index = np.arange(240)
    weights = [np.bincount(np.random.choice(index, 240, True), minlength=240) for _ in range(4000)]
    fit = fit_additive(chinchilla)
    boot = refit(chinchilla, fit, np.array(weights, float))
    assert boot.failed == 0
    assert boot.sd(lambda law: law.a) == pytest.approx(0.0200, abs=1e-4)
    assert boot.percentiles(lambda law: law.a, 0.95) == pytest.approx((0.4805, 0.5562), abs=2e-4)
    assert boot.percentiles(lambda law: law.a, 0.80) == pytest.approx((0.4914, 0.5428), abs=2e-4)
    # the same draws are what `dit fit bootstrap=4000 seed=42` makes
    assert np.array_equal(bootstrap(chinchilla, fit, 4000, 42).law.a, boot.law.a)


def test_chinchilla_least_squares_below_1e21(shared):
    path = shared / "reference/chinchilla/svg_extracted_data.csv"
    kept = read_points(path, CHINCHILLA, drop_highest=5)
    kept = kept[kept.get("c") < 1e21]
    assert len(kept) == 217
    fit = fit_additive(kept, "mse")
    assert pytest.approx(1.905092, rel=1e-4) == fit.E
    assert fit.alpha == pytest.approx(0.351058, rel=1e-4)
    assert fit.beta == pytest.approx(0.458742, rel=1e-4)
    assert fit.objective == pytest.approx(0.0624143, rel=1e-4)


def test_llama_isoflop_line(llama):
    fit = fit_isoflop(llama, np.inf)  # the published parabolas go through whole rows
    assert len(fit.valleys) == 10
    assert not any(valley.rejected for valley in fit.valleys)
    assert fit.b == pytest.approx(0.5368, abs=5e-4)
    assert fit.d_coefficient == pytest.approx(0.2994, abs=2e-3)


def test_llama_least_squares(llama):
    fit = fit_additive(llama, "mse")
    assert fit.alpha == pytest.approx(0.3100, abs=1e-3)
    assert fit.beta == pytest.approx(0.3136, abs=1e-3)
    assert fit.a == pytest.approx(0.5029, abs=1e-3)
    assert pytest.approx(0.6047, abs=1e-3) == fit.E


def test_dit_fid_slope(dit_table):
    fit = fit_power(dit_table, loss="mse_log")
    assert len(dit_table) == 12
    assert fit.exponent == pytest.approx(-0.3645, abs=5e-5)
    assert fit.stderr == pytest.approx(0.0435, abs=5e-5)
    assert fit.correlation == pytest.approx(-0.930, abs=5e-4)


def test_rectified_flow_laws_at_their_target():
    """2410.08184: N* = .0009 C^.5681, D* = 186.8535 C^.4319, FID = 2.2566e6 C^-.234, at 1.5e21 FLOPs."""
    size, data = PowerLaw(0.0009, 0.5681), PowerLaw(186.8535, 0.4319)
    assert size.at(1.5e21) == pytest.approx(964.7e6, abs=0.05e6)
    assert PowerLaw(2.2566e6, -0.234).at(1.5e21) == pytest.approx(25.0, abs=0.05)
    assert 6 * size.at(1.5e21) * data.at(1.5e21) / 1.5e21 == pytest.approx(1.009, abs=5e-4)
