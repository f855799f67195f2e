"""W&B gets copies of the records: offline where there is no key, and no secrets."""

import json

import pytest

pytest.importorskip("wandb")


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
    summary = dict(sink._run.summary)
    config = json.dumps(dict(sink._run.config))
    assert sink._run.settings.mode == "offline" and sink._run.id == "abc123" and sink._run.group == "digits"
    sink.close()
    assert summary["validation/ema/loss"] == 0.5 and summary["validation/ema/loss_bin_1"] == 0.2
    assert summary["images_seen"] == 64
    assert "hidden" not in config and '"lr": 0.1' in config
    assert list(tmp_path.rglob("*.wandb"))
