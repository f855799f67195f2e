"""A study's report as a W&B run: offline, in the study's group, and the report page where wandb-workspaces is."""

import json
import sys
import types

import pytest
from omegaconf import OmegaConf

from dit.config.loggers import log_to_wandb
from dit.report.output import write
from tests.conftest import dit
from tests.fits.synthetic import write_study

pytest.importorskip("wandb")


def test_the_report_is_logged_offline_in_the_studys_group(tmp_path):
    write_study(tmp_path / "study")
    told = dit(
        "report", "study.directory=study", "logger=wandb", "logger.mode=offline", cwd=tmp_path, check=0
    )
    assert "no W&B report page: not logged in (mode offline)" in told.stdout
    (folder,) = (tmp_path / "study/report/wandb").glob("offline-run-*")
    words = (b"synthetic", b"report/frontier", b"tables/headline", b"additive/exponent_n")
    (file,) = folder.glob("*.wandb")
    written = file.read_bytes()
    assert not [word for word in words if word not in written]
    assert len(list(folder.rglob("media/images/report/*.png"))) > 5
    headline = json.loads((tmp_path / "study/report/headline.json").read_text())
    assert headline["study"] == "synthetic" and headline["exponents"]["additive"]["n"]["value"] > 0


def test_a_run_named_like_a_number_stays_a_name(tmp_path, monkeypatch):
    study = write_study(tmp_path / "study", samples=False)
    (study / "runs/w0064-s0").rename(study / "runs/1e5")
    file = study / "runs/1e5/records.jsonl"
    file.write_text(file.read_text().replace('"run":"w0064-s0"', '"run":"1e5"'))
    logged = {}
    monkeypatch.setattr("dit.training.wandb_sink.log_study", lambda *_, **given: logged.update(given))
    cfg = OmegaConf.create({"logger": {"_target_": "x", "project": "dit", "mode": "offline"}})
    log_to_wandb(cfg, tmp_path / "out", write(study, tmp_path / "out"))
    columns, rows = logged["tables"]["points"]
    named = [dict(zip(columns, row)) for row in rows]
    assert {row["run"] for row in named} >= {"1e5", "w0032-s0"}
    assert all(isinstance(row["loss"], float) for row in named)


class _Page(types.SimpleNamespace):
    saved: list = []  # noqa: RUF012

    def save(self):
        self.url = "the page"
        _Page.saved.append(self)


def fake_workspaces(monkeypatch):
    """wandb-workspaces as its reference describes it, keeping what it is given."""
    names = ("Runset", "LinePlot", "MediaBrowser", "PanelGrid")
    module = types.SimpleNamespace(**dict.fromkeys(names, types.SimpleNamespace), Report=_Page)
    for name in ("wandb_workspaces", "wandb_workspaces.reports"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", module)
    monkeypatch.setattr(
        sys.modules["wandb_workspaces"], "reports", sys.modules["wandb_workspaces.reports"], raising=False
    )
    monkeypatch.setattr(sys.modules["wandb_workspaces.reports"], "v2", module, raising=False)


def test_the_report_page_shows_the_studys_runs(monkeypatch):
    from dit.training.wandb_sink import _report_page

    fake_workspaces(monkeypatch)
    assert _report_page("online", "me", "dit", "digits", ["report/frontier"]) == "W&B report page: the page"
    (grid,) = _Page.saved[-1].blocks
    assert grid.runsets[0].filters == "Metric('Group') == 'digits'"
    assert grid.panels[1].media_keys == ["report/frontier"]


def test_without_workspaces_the_page_is_skipped_with_a_message(monkeypatch):
    from dit.training.wandb_sink import _report_page

    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    assert "wandb-workspaces is not installed" in _report_page("online", "me", "dit", "digits", [])
