"""``study.hours``: budgets that fill the hours at a measured rate, and what is refused."""

import json

import pytest
from hydra import compose, initialize_config_dir

from dit.config import rate, study
from dit.config.instantiation import config_dir
from dit.config.parts import Parts
from dit.errors import InputError
from tests.conftest import TINY, dit

WIDE = "study.max_images=100000000"  # no reading is left out as budgets grow


def planned(monkeypatch, rates, *words):
    """A plan of the digits on a machine with these FLOPs per second at its smallest and its largest network."""
    found = iter(rates)
    monkeypatch.setattr(rate, "_rate", lambda *_: next(found))
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("plan", ["experiment=digits", *words])
    return study.plan(Parts(cfg), study.grid(cfg))


@pytest.mark.parametrize("hours", [0.5, 3.0, 30.0])
def test_the_budgets_fill_the_hours(monkeypatch, hours):
    """By a sum of our own over the runs: at 1e10 FLOP/s for every network, all of it takes almost that long."""
    found = planned(monkeypatch, (1e10, 1e10), f"study.hours={hours}", WIDE)
    flops = sum(run.readings[-1].images * run.counts.train_flops_per_image for run in found.runs)
    beside = sum(flops or 0.0 for flops in found.overhead.values())
    assert 0.9 * hours < (flops + beside) / 1e10 / 3600 <= hours
    first, *others = found.grid.budgets_flops
    assert [budget / first for budget in others] == pytest.approx([10**0.5, 10, 10**1.5], rel=2e-3)


def test_two_devices_do_twice_as_much(monkeypatch):
    one, two = (
        planned(monkeypatch, (1e10, 3e10), "study.hours=2", f"study.devices={n}", "evaluation=none", WIDE)
        for n in (1, 2)
    )
    assert two.flops == pytest.approx(2 * one.flops, rel=0.15)
    assert two.price is not None
    assert two.price.by_size[0][1] == 1e10 and two.price.by_size[-1][1] == 3e10


def test_hours_that_are_too_few_say_what_takes_the_time(monkeypatch):
    with pytest.raises(InputError, match=r"study\.hours: got 0\.001.*it takes.*beside training"):
        planned(monkeypatch, (1e10, 1e10), "study.hours=0.001")


def test_a_given_rate_is_refused_and_a_study_asks_for_budgets(tmp_path):
    found = dit("plan", "experiment=digits", "study.hours=1", "study.mfu=0.3", cwd=tmp_path, check=2)
    assert "study.mfu" in found.stderr and "measured here" in found.stderr
    found = dit("study", "experiment=digits", "study.hours=1", cwd=tmp_path, check=2)
    assert "study.budgets_flops" in found.stderr


@pytest.mark.slow
def test_the_rate_is_measured_on_the_spot(tmp_path):
    words = ["experiment=digits", *(word for word in TINY if "width" not in word), "study.hours=1"]
    found = json.loads(dit("plan", *words, "format=json", cwd=tmp_path, check=0).stdout)
    assert found["cost"]["rate"].startswith("measured here") and found["cost"]["whole"]["days"] * 24 <= 1
    broken = dit("plan", *words, "hardware.device=cuda", cwd=tmp_path, check=2)
    assert "study.hours" in broken.stderr and "Traceback" not in broken.stderr
