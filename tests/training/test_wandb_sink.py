"""W&B gets copies of the records: offline where there is no key, and no secrets."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

wandb = pytest.importorskip("wandb")


@pytest.fixture(autouse=True)
def _no_service_is_left():
    """W&B names its service process in the environment: commands of later tests would write through it."""
    yield
    wandb.teardown()


def history(directory: Path) -> list[dict]:
    """What W&B wrote of its offline runs, in order: LevelDB's log format with a protobuf message in each record."""
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue]

    wandb.teardown()  # its service writes on for milliseconds after a run's end
    rows = []
    for file in sorted(directory.rglob("offline-run-*/run-*.wandb")):
        data, at, whole = file.read_bytes(), 7, b""
        while at + 7 <= len(data):
            _, size, kind = struct.unpack("<IHB", data[at : at + 7])
            whole, at = whole + data[at + 7 : at + 7 + size], at + 7 + size
            if 32768 - at % 32768 < 7:  # no header at the end of a block
                at += 32768 - at % 32768
            if kind in (1, 4):  # a whole record, or the last part of one
                items = Record.FromString(whole).history.item
                rows.append({".".join(item.nested_key): json.loads(item.value_json) for item in items})
                whole = b""
    return [row for row in rows if row]


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
    config = json.dumps(dict(sink._run.config))
    assert sink._run.settings.mode == "offline" and sink._run.id == "abc123" and sink._run.group == "digits"
    sink.close()
    (logged,) = history(tmp_path)
    assert logged["validation/ema/loss"] == 0.5 and logged["validation/ema/loss_bin_1"] == 0.2
    assert logged["images_seen"] == logged["_step"] == 64
    assert logged["speed/images_per_second"] == 8.0 and "speed/mfu" not in logged
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
    config = dict(sink._run.config)
    sink.close()
    (logged,) = history(tmp_path)
    assert logged["samples/ema/aaa/frechet_distance"] == logged["samples/ema/bbb/frechet_distance"] == 2.5
    assert config["protocols"]["bbb"] == {"guidance": "ClassifierFree(scale=1.5)", "nfe": 4}
    picture = {key: logged[f"samples/ema/aaa/grid.{key}"] for key in ("_type", "width", "height")}
    assert picture == {"_type": "image-file", "width": 6, "height": 4}
    assert len(list((tmp_path / "wandb").rglob("media/images/**/*.png"))) == 2


def test_the_parts_of_a_run_fit_together_without_a_step_twice(tmp_path, monkeypatch):
    """Stopped at 64 images and resumed; rolled back from 160 to 96, which is said, and on from there."""
    from dit.training.wandb_sink import WandbSink

    monkeypatch.setenv("WANDB_SILENT", "true")
    for part, clocks in (("1", (32, 64)), ("2", (96, 128, 160, 96, 128, 160, 192))):
        (tmp_path / part).mkdir()
        directory = str(tmp_path / part)
        sink = WandbSink("dit", "offline", run_id="parts", group=None, directory=directory, settings={})
        for before, now in zip((0, *clocks), clocks, strict=False):
            clock = {"images_seen": now, "train_flops": float(now)}
            if now < before:
                sink.record({"kind": "event", "event": "rollback", "step": 5, **clock})
            sink.record({"kind": "train", "loss": 1 / now, **clock})
            sink.watch(clock, {"images_per_second": 8.0})
        sink.close()
    logged = history(tmp_path)
    assert [row["_step"] for row in logged] == [32, 64, 96, 128, 160, 192]
    assert [row["train/loss"] for row in logged] == [1 / row["_step"] for row in logged]
    assert [row.get("event/step") for row in logged] == [None, None, None, None, 5, None]


def test_a_run_outlives_the_service_of_wandb(tmp_path):
    """SLURM ends every process of a job: W&B's own may be gone while the run writes its last checkpoint."""
    script = """
import os, signal, sys, time
from dit.training.wandb_sink import WandbSink
sink = WandbSink("dit", "offline", run_id="lost", group=None, directory=sys.argv[1], settings={})
clock = {"images_seen": 32, "train_flops": 1.0}
sink.record({"kind": "train", "loss": 1.0, **clock})
(service,) = open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read().split()
os.kill(int(service), signal.SIGTERM)
time.sleep(2)
for images in range(64, 640, 32):
    sink.record({"kind": "train", "loss": 1.0, **clock, "images_seen": images})
    sink.watch({**clock, "images_seen": images}, {"images_per_second": 8.0})
sink.close()
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    assert found.stderr.count("W&B gets no more rows of this run, which goes on") == 1
    assert "Traceback" not in found.stderr


def test_a_configuration_makes_the_sink_though_it_holds_targets_of_its_own(tmp_path, monkeypatch):
    from hydra import compose, initialize_config_dir

    from dit.config import job as job_config
    from dit.config.instantiation import config_dir

    monkeypatch.setenv("WANDB_SILENT", "true")
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("train", ["logger=wandb", "logger.mode=disabled"])
    (sink,) = job_config._sinks(cfg, "abc", tmp_path)
    sink.record({"kind": "train", "images_seen": 1, "train_flops": 2.0, "loss": 0.5})
    sink.close()


@pytest.mark.parametrize(
    ("asked", "environment", "used"),
    [
        (None, {}, "offline"),
        (None, {"WANDB_API_KEY": "0" * 40}, "online"),
        (None, {"WANDB_API_KEY": "0" * 40, "WANDB_MODE": "offline"}, "offline"),
        ("online", {"WANDB_MODE": "disabled"}, "disabled"),
        ("disabled", {"WANDB_MODE": ""}, "disabled"),
    ],
)
def test_the_variables_of_wandb_win(asked, environment, used, monkeypatch):
    """Names of https://docs.wandb.ai/models/track/environment-variables."""
    from dit.training.wandb_sink import _arguments

    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    more = {
        "WANDB_PROJECT": "theirs",
        "WANDB_RUN_GROUP": "lab",
        "WANDB_DIR": "/scratch",
        "WANDB_NAME": "named",
    }
    for name, value in {**environment, **more}.items():
        monkeypatch.setenv(name, value)
    found = _arguments("dit", asked, group="digits", dir="runs/a", name="a", id="abc")
    expected = {"project": "theirs", "group": "lab", "dir": "/scratch", "name": "named", "id": "abc"}
    assert found == {"mode": used, "resume": "allow", **expected}


def test_a_mode_that_wandb_does_not_know_is_one_message(monkeypatch):
    from dit.errors import InputError
    from dit.training.wandb_sink import _arguments

    monkeypatch.setenv("WANDB_MODE", "of line")
    with pytest.raises(InputError, match="WANDB_MODE"):
        _arguments("dit", None)


def test_a_server_that_is_not_there_leaves_the_run_offline(tmp_path, monkeypatch, caplog):
    from dit.training.wandb_sink import WandbSink

    for name, value in {"BASE_URL": "http://127.0.0.1:9", "API_KEY": "0" * 40, "INIT_TIMEOUT": "2"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    sink = WandbSink("dit", None, run_id="away", group=None, directory=str(tmp_path), settings={})
    sink.record({"kind": "train", "images_seen": 32, "train_flops": 1.0, "loss": 0.5})
    sink.close()
    assert caplog.text.count("W&B cannot be reached") == 1 and "gets no more rows" not in caplog.text
    assert [row["train/loss"] for row in history(tmp_path)] == [0.5]


def test_secrets_are_told_by_whole_words_of_their_names():
    from dit.training.wandb_sink import _redacted

    shown = {"tokens_per_image": 64, "macs_per_token": 1e6, "n_tokens": [4, 8], "keyed": "x", "monkey": "y",
             "network": {"width": 384}, "patience": None, "secretary": "z"}  # fmt: skip
    hidden = {"api_key": "h", "WANDB_API_KEY": "h", "apiKey": "h", "hf-token": "h", "password": 1234, "keys": ["h"],
              "client_secret": "h", "token": {"of": "h"}, "AWS_SECRET_KEY": "h", "l": [{"token": "h"}]}  # fmt: skip
    found = _redacted({**shown, **hidden})
    assert shown.items() <= found.items()
    assert '"h"' not in json.dumps(found) and "password" not in found
