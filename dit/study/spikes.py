"""Steps at which the training loss jumped, against what it was before, and whether it came back."""

from typing import Any

from dit.study.records import Study

SPIKE_SDS = 6.0  # a loss so many standard deviations above its recent mean is a spike
SPIKE_MEMORY = 100  # steps that the recent mean reaches back, and the least before anything counts as one
BACK = 1.02  # times the mean before a spike: a training loss below it has come back


def spikes(study: Study) -> list[dict[str, Any]]:
    """Each noted spike of the loss: ``run``, ``images_seen``, ``train_flops``, ``loss``, the mean and the standard
    deviations above it (None in records that lack them), and after how many images the mean loss between readings was
    back (None: never, to the end of the run).

    A reading is back where it is below BACK times the mean before the spike.
    """
    return [_spike(study, row) for row in study.events if row["event"] == "loss_spike"]


def _spike(study: Study, row: dict[str, Any]) -> dict[str, Any]:
    mean, sd = row.get("mean_before"), row.get("sd_before")
    found = {key: row.get(key) for key in ("run", "images_seen", "train_flops", "loss")}
    later = sorted(
        (one["images_seen"], one["loss"])
        for one in study.train
        if one["run"] == row["run"] and one["images_seen"] > row["images_seen"] and one["loss"] is not None
    )
    back = next((images for images, loss in later[1:] if mean and loss <= BACK * mean), None)
    return found | {
        "mean_before": mean,
        "sds": (row["loss"] - mean) / sd if mean is not None and sd else None,
        "images_until_back": back and back - row["images_seen"],
    }
