"""When ``dit study`` writes its page again: whenever something that the page is made from is another."""

import json

import pytest

from dit.report.output import write_if_changed
from dit.report.page import Report


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study's directory; the page itself is not drawn."""
    run = tmp_path / "runs" / "w0064"
    (run / "samples").mkdir(parents=True)
    for name in ("plan.json", "runs/w0064/status.json"):
        (tmp_path / name).write_text(json.dumps({"state": "running", "heartbeat": 1.0}))
    for name in ("records.jsonl", "evaluations.jsonl", "samples/images-1.png"):
        (run / name).write_text("before")

    def page(study, out, compare=()):
        out.mkdir(exist_ok=True)
        (out / "report.html").touch()
        return Report({}, [])

    monkeypatch.setattr("dit.report.page.write_report", page)
    monkeypatch.setattr("dit.report.page.format_headline", lambda _: "headline")
    assert write_if_changed(tmp_path, tmp_path / "report")
    assert not write_if_changed(tmp_path, tmp_path / "report")
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [
        "plan.json",
        "runs/w0064/records.jsonl",
        "runs/w0064/evaluations.jsonl",
        "runs/w0064/samples/images-1.png",
        "runs/w0064/status.json",
        "evaluations.jsonl",
        "runs/w0064/evaluations.prefix.json",
    ],
)
def test_the_page_is_written_again_where_its_material_changed(study, name) -> None:
    (study / name).write_text(json.dumps({"state": "done", "heartbeat": 1.0}))
    assert write_if_changed(study, study / "report")


def test_the_page_is_written_again_where_a_run_has_another_name_or_has_begun(study) -> None:
    (study / "runs/w0064").rename(study / "runs/w0065")
    assert write_if_changed(study, study / "report")
    (study / "runs/w0096").mkdir()
    assert write_if_changed(study, study / "report")
    assert not write_if_changed(study, study / "report")


def test_the_page_is_written_again_where_code_that_reads_records_changed(
    study, tmp_path, monkeypatch
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    for name in ("__init__.py", "older.py"):
        (package / name).write_text("before")
    monkeypatch.setattr("dit.__file__", str(package / "__init__.py"))
    assert write_if_changed(study, study / "report")
    assert not write_if_changed(study, study / "report")
    (package / "older.py").write_text("after")
    assert write_if_changed(study, study / "report")


def test_a_heartbeat_is_no_change(study) -> None:
    (study / "runs/w0064/status.json").write_text(json.dumps({"state": "running", "heartbeat": 2.0}))
    assert not write_if_changed(study, study / "report")
