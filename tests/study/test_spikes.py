"""Loss spikes of a study: against what they are measured, and when the loss was back."""

from pathlib import Path

import pytest

from dit.study.records import Study
from dit.study.spikes import spikes


def study(event, losses):
    train = [{"run": "a", "images_seen": images, "loss": loss} for images, loss in losses]
    return Study(Path(), {}, {"run": [], "event": [event], "train": train})


EVENT = {"run": "a", "images_seen": 150, "train_flops": 1.0, "event": "loss_spike", "loss": 4.0}
LOSSES = [(100, 1.0), (200, 2.0), (300, 1.5), (400, 1.01), (500, 0.9)]


def test_a_spike_that_comes_back():
    (found,) = spikes(study(EVENT | {"mean_before": 1.0, "sd_before": 0.25}, LOSSES))
    assert found["sds"] == pytest.approx(12.0)
    assert found["images_until_back"] == 250  # the reading at 400 images is the first within 2 % of 1


def test_a_spike_that_does_not():
    (found,) = spikes(study(EVENT | {"mean_before": 0.5, "sd_before": 0.25}, LOSSES))
    assert found["images_until_back"] is None


def test_records_without_the_mean_before_say_less():
    (found,) = spikes(study(EVENT, LOSSES))
    assert found["sds"] is found["mean_before"] is found["images_until_back"] is None


def test_a_skipped_step_is_no_spike():
    assert spikes(study(EVENT | {"event": "skipped"}, LOSSES)) == []
