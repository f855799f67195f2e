import re
from pathlib import Path

import numpy as np
import pytest
import torch

from dit.training.meters import Meters
from dit.training.watching import Moment, Waiting, Work, bin_means, bin_totals, peak_memory


def test_loss_bins_are_numpys_histogram_over_many_steps():
    edges = np.array([-6.0, -2.0, 0.5, 3.0])
    generator = torch.Generator().manual_seed(0)
    meter, losses, levels = torch.zeros(2, 3, dtype=torch.float64), [], []
    for _ in range(20):
        loss, log_snr = torch.rand(16, generator=generator), 3 * torch.randn(16, generator=generator)
        log_snr[0] = edges[1]  # an edge belongs to the bin above it
        meter += bin_totals(loss.requires_grad_(), log_snr, torch.tensor(edges))
        losses.append(loss.detach().double().numpy())
        levels.append(log_snr.numpy())
    open_ends = np.array([-np.inf, *edges[1:-1], np.inf])
    loss, level = np.concatenate(losses), np.concatenate(levels)
    expected = np.histogram(level, open_ends)[0]
    assert meter[1].tolist() == expected.tolist()
    sums = np.histogram(level, open_ends, weights=loss)[0]
    assert bin_means(meter) == pytest.approx((sums / expected).tolist(), rel=1e-6)


def test_a_bin_without_samples_has_no_mean():
    totals = bin_totals(torch.tensor([2.0]), torch.tensor([10.0]), torch.tensor([-1.0, 0.0, 1.0]))
    assert bin_means(totals) == [None, 2.0]


def test_mfu_of_published_throughput():
    """DiT-XL/2 at 590 images/s on an H200: 6 x 118.64 GMACs x 590 / 989 TFLOP/s = 42.5 % of its data sheet's peak."""
    work = Work(10**6, 6 * 118.64e9, "NVIDIA H200", n_devices=1)
    assert work.mfu(590) == pytest.approx(0.4247, abs=1e-4)
    assert Work(10**6, 6 * 118.64e9, "NVIDIA H200", n_devices=4).mfu(4 * 590) == pytest.approx(work.mfu(590))
    assert Work(10**6, 6 * 118.64e9).mfu(590) is None


def test_rates_between_two_looks():
    found = Work(1000, 3.0).rates(Moment(10.0, 100, 1.0), Moment(12.0, 200, 1.5))
    assert found == {
        "images_per_second": 50,
        "flops_per_second": 150,
        "mfu": None,
        "data_wait_share": 0.25,
        "eta_seconds": 16,
    }
    assert Work(1000, 3.0).rates(Moment(10.0, 100), Moment(12.0, 100))["eta_seconds"] is None


def test_waiting_counts_the_loader_and_not_the_step(monkeypatch):
    clock = 0.0
    monkeypatch.setattr("dit.training.watching.time.perf_counter", lambda: clock)

    def slow():
        nonlocal clock
        for index in range(3):
            clock += 0.5
            yield index

    loader = Waiting(slow())
    for _ in loader:
        clock += 10
    assert loader.seconds == 1.5


def test_peak_memory_of_a_cpu_process_is_the_kernels():
    status = Path("/proc/self/status")
    if not status.is_file():
        pytest.skip("no /proc")
    found = peak_memory(torch.device("cpu"))
    kilobytes = int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text()).group(1))
    assert found == pytest.approx(1024 * kilobytes, rel=0.01)


def test_the_loss_that_is_shown_has_no_gap_after_a_reading():
    meters = Meters(2)
    assert meters.loss is None
    for loss in (3.0, 5.0):
        meters.add(loss, 1.0, [loss, 0.0, 1.0, 0.0])
    assert meters.loss == meters.read()["loss"] == 4.0
    assert meters.loss == pytest.approx(4.0)  # the plain mean of the first steps, as no later one is known
    meters.add(1.0, 1.0, [1.0, 0.0, 1.0, 0.0])
    assert meters.loss == 1.0


def test_a_spike_is_told_against_the_hundred_steps_before_it():
    """Steps of mean 2 and standard deviation .1: 2.5 is no spike, 3.0 is one."""
    meters, rng = Meters(1), np.random.default_rng(0)
    for loss in 2 + 0.1 * rng.standard_normal(400):
        meters.add(float(loss), 1.0, [float(loss), 1.0])
    assert meters.add(2.5, 1.0, [2.5, 1.0]) is None
    before = meters.add(3.2, 1.0, [3.2, 1.0])
    assert before == pytest.approx((2.0, 0.1), rel=0.3)
