"""Evaluations of several studies on one page: runs are told apart, whatever they are called."""

import json

import pytest

from dit.errors import InputError
from dit.evaluation.gathering import gather, report_of
from tests.evaluation.test_protocol import BASE


def write(file, *rows) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def samples(distance: float, **more: object) -> dict[str, object]:
    protocol = {"protocol": BASE.as_dict(), "protocol_hash": BASE.hash}
    return {
        "kind": "samples",
        "run": "w0064",
        "images_seen": 100,
        "frechet_distance": distance,
        **protocol,
        **more,
    }


def test_runs_of_one_name_in_two_studies_are_two_models(tmp_path) -> None:
    for study, distance in (("edm", 3.0), ("flow", 5.0)):
        run = {"kind": "run", "run": "w0064", "config_hash": study}
        write(tmp_path / study / "runs" / "w0064" / "records.jsonl", run, samples(distance))
    # measured later, with its rows elsewhere: known by its configuration
    write(tmp_path / "later" / "evaluations.jsonl", samples(3.0, config_hash="edm", kernel_distance=0.5))
    found = {row.model: row.metrics for row in gather(tmp_path).rows}
    assert {model: metrics["frechet_distance"] for model, metrics in found.items()} == {
        "w0064 in edm/runs/w0064": 3.0,
        "w0064 in flow/runs/w0064": 5.0,
    }
    assert found["w0064 in edm/runs/w0064"]["kernel_distance"] == 0.5


def test_runs_of_one_name_in_one_file_are_two_models(tmp_path) -> None:
    rows = [samples(distance, config_hash=hash) for hash, distance in (("a" * 16, 3.0), ("b" * 16, 5.0))]
    write(tmp_path / "evaluations.jsonl", *rows)
    assert {row.model for row in gather(tmp_path).rows} == {"w0064 aaaaaaaa", "w0064 bbbbbbbb"}


def test_what_changed_under_a_name_is_shown_as_it_was_measured_last(tmp_path, caplog) -> None:
    first = samples(3.0, content="a" * 16, kernel_distance=0.5)
    write(tmp_path / "evaluations.jsonl", first, samples(5.0, content="b" * 16))
    (row,) = gather(tmp_path).rows
    assert row.metrics["frechet_distance"] == 5.0 and "kernel_distance" not in row.metrics
    assert "has changed" in caplog.text
    write(tmp_path / "evaluations.jsonl", samples(3.0), first, samples(4.0, content="a" * 16))
    (row,) = gather(tmp_path).rows
    assert (row.metrics["frechet_distance"], row.metrics["kernel_distance"]) == (4.0, 0.5)


def test_a_protocol_that_is_none_is_damage_of_its_file_alone(tmp_path) -> None:
    write(tmp_path / "good" / "evaluations.jsonl", samples(3.0, run="whole"))
    odd = {**BASE.as_dict(), "labels": "${oc.env:HOME}"}
    write(tmp_path / "bad" / "evaluations.jsonl", samples(4.0, run="part", protocol=odd))
    found = gather(tmp_path)
    assert [row.model for row in found.rows] == ["whole"]
    assert "${oc.env:HOME}" in found.damaged["bad/evaluations.jsonl"]


def test_a_damaged_file_hides_no_other_model_and_stands_on_the_page(tmp_path, caplog) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    write(good / "evaluations.jsonl", samples(3.0, run="whole"))
    write(bad / "records.jsonl", samples(4.0, run="part"))
    write(bad / "evaluations.jsonl", samples(4.0, run="part"), {"kind": "samples", "run": 7})
    found = gather(tmp_path)
    assert [row.model for row in found.rows] == ["part", "whole"]
    assert found.damaged.keys() == {"bad/evaluations.jsonl"} and found.incomplete == ["part"]
    assert "bad/evaluations.jsonl:2" in caplog.text
    page = report_of(tmp_path).read_text(encoding="utf-8")
    assert "Damaged, and left out" in page and "bad/evaluations.jsonl" in page and "whole" in page
    assert "may lack metrics, sampling seeds or protocols: part." in page
    (good / "evaluations.jsonl").unlink()
    (bad / "records.jsonl").unlink()
    with pytest.raises(InputError, match=r"bad/evaluations\.jsonl:2"):
        report_of(tmp_path)
