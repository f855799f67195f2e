"""The verdict in plain words, on numbers written out here."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from dit.report.verdict import verdict

WIDTHS = {1000.0: 16, 4000.0: 32, 16000.0: 64}


def material(images=(1000,), n_train=1000, targets=(), sensitivity=()) -> Any:
    runs = [
        {"macs_per_token": size, "network": {"width": width}, "data": {"name": "numbers", "n_train": n_train}}
        for size, width in WIDTHS.items()
    ]
    return SimpleNamespace(
        study=SimpleNamespace(runs=runs),
        points=SimpleNamespace(images=np.array(images)),
        analysis={"targets": list(targets), "sensitivity": list(sensitivity)},
    )


def headline(n_opt=5000.0, accepted=True, doubt=None):
    budget = {"budget_flops": 1e12, "accepted": accepted, "n_opt": n_opt, "n_opt_95": [3000.0, 8000.0]}
    budget |= {"frechet_distance": 0.5, "guided_accuracy": 0.996}
    law = {"n": {"value": 0.4, "doubt": doubt}}
    return {"budgets": [budget], "law": "additive", "exponents": {"additive": law}}


def test_the_best_size_lies_between_two_trained_ones():
    first, *_ = verdict(material(), headline())
    assert (
        "10¹² FLOPs is 5,000 multiply-adds per token (95 % 3,000 to 8,000), between width 32 and width 64"
        in first
    )


def test_no_minimum_inside_a_row_is_said():
    first, *_ = verdict(material(), headline(accepted=False))
    assert first.startswith("No budget has its best size inside its row")


def test_ten_times_the_compute():
    rows = [
        {"n": 5e3, "d": 1e5, "loss": 0.93},
        {"n": 1.2e4, "d": 4e5, "loss": 0.9, "n_interval_95": [1e4, 1.5e4]},
    ]
    said = " ".join(verdict(material(targets=rows), headline()))
    assert (
        "ten times the compute is best spent on 1.2×10⁴ multiply-adds per token (95 % 10⁴ to 1.5×10⁴)" in said
    )
    assert "and 4×10⁵ images, and changes the loss from 0.9300 to 0.9000." in said


def test_the_choice_that_moves_the_exponent_most_and_its_doubt():
    rows = [
        {"what": "first", "a": 0.4, "sd": 0.02},
        {"what": "lad", "a": 0.41},
        {"what": "raw weights", "a": 0.3},
    ]
    said = " ".join(verdict(material(sensitivity=rows), headline(doubt="2 budgets")))
    assert (
        '"raw weights" moves it most, to 0.300, 5.0 times its bootstrap sd. It is doubtful: 2 budgets.'
        in said
    )


def test_repeated_data_bound_what_the_laws_hold_for():
    assert (
        "seen up to 458 times: an image seen again is worth less"
        in verdict(material((457_800,)), headline())[-1]
    )
    assert verdict(material((2500,)), headline())[-1].endswith("seen up to 2.500 times.")
    assert "No image of numbers was seen twice" in verdict(material((900,)), headline())[-1]
