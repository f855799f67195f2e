"""W&B gets copies of the records: offline where there is no key, and no secrets."""

import json

import numpy as np
import pytest

wandb = pytest.importorskip("wandb")


@pytest.fixture(autouse=True)
def _no_service_is_left():
    """W&B names its service process in the environment: commands of later tests would write through it."""
    yield
    wandb.teardown()


def test_records_reach_an_offline_run(tmp_path, monkeypatch):
    from dit.training.wandb_sink import WandbSink

    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    settings = {
        "run_name": "tiny",
        "optimizer": {"lr": 0.1},
        "api_key": "hidden",
        "nested": {"token": "hidden"},
    }
    sink = WandbSink("dit", None, run_id="abc123", group="digits", directory=str(tmp_path), settings=settings)
    sink.record({"kind": "run", "run": "tiny", "n_params_total": 7})
    clock = {"images_seen": 64, "train_flops": 1e6}
    row = {"kind": "validation", "weights": "ema", "loss": 0.5, "loss_bins": [0.1, 0.2], **clock}
    sink.record(row)
    sink.watch(clock, {"images_per_second": 8.0, "mfu": None})
    summary = dict(sink._run.summary)
    config = json.dumps(dict(sink._run.config))
    assert sink._run.settings.mode == "offline" and sink._run.id == "abc123" and sink._run.group == "digits"
    sink.close()
    assert summary["validation/ema/loss"] == 0.5 and summary["validation/ema/loss_bin_1"] == 0.2
    assert summary["images_seen"] == 64
    assert summary["speed/images_per_second"] == 8.0 and "speed/mfu" not in summary
    assert "hidden" not in config and '"lr": 0.1' in config
    assert list(tmp_path.rglob("*.wandb"))


def test_samples_arrive_by_protocol_with_their_picture(tmp_path, monkeypatch):
    from dit.evaluation.grids.pictures import write_png
    from dit.training.wandb_sink import WandbSink

    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    write_png(tmp_path / "samples/a.png", np.zeros((4, 6, 3), np.uint8))
    sink = WandbSink("dit", None, run_id="samples1", group=None, directory=str(tmp_path), settings={})
    clock = {"kind": "samples", "weights": "ema", "images_seen": 64, "train_flops": 1e6}
    for key, guidance in (("aaa", "none"), ("bbb", "ClassifierFree(scale=1.5)")):
        protocol = {"protocol": {"guidance": guidance, "nfe": 4}, "protocol_hash": key}
        sink.record({**clock, **protocol, "frechet_distance": 2.5, "grid": "samples/a.png"})
    summary, config = dict(sink._run.summary), dict(sink._run.config)
    sink.close()
    assert summary["samples/ema/aaa/frechet_distance"] == summary["samples/ema/bbb/frechet_distance"] == 2.5
    assert config["protocols"]["bbb"] == {"guidance": "ClassifierFree(scale=1.5)", "nfe": 4}
    picture = summary["samples/ema/aaa/grid"]
    assert picture["_type"] == "image-file" and (picture["width"], picture["height"]) == (6, 4)
    assert len(list((tmp_path / "wandb").rglob("media/images/**/*.png"))) == 2


def test_a_configuration_makes_the_sink_though_it_holds_targets_of_its_own(tmp_path, monkeypatch):
    from hydra import compose, initialize_config_dir

    from dit.verbs import building
    from dit.verbs.app import config_dir

    monkeypatch.setenv("WANDB_SILENT", "true")
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("train", ["logger=wandb", "logger.mode=disabled"])
    (sink,) = building._sinks(cfg, "abc", tmp_path)
    sink.record({"kind": "train", "images_seen": 1, "train_flops": 2.0, "loss": 0.5})
    sink.close()
