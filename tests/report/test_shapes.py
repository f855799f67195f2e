"""A study always ends in a page, and two studies always compare, whatever their runs left behind."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dit.report import figures_loss, figures_samples
from dit.report.analysis import analyse
from dit.report.compare import compare, uncompared
from dit.report.headline import format_headline, headline
from dit.report.page import _drawn, write_report
from dit.report.tables import all_tables
from dit.report.tables_beside import definitions
from dit.study.forecast import from_pilot
from dit.study.missing import left_out, lost
from dit.study.readings import collect
from dit.study.records import load_study
from tests.conftest import dit
from tests.fits.synthetic import Surface, write_study
from tests.report.test_cases import edit

TWO = (1e12, 1e13)


def changed(study, **fields):
    """A study whose validation rows have other values; functions of a row are asked for theirs."""

    def change(row):
        if row["kind"] == "validation":
            row |= {name: value(row) if callable(value) else value for name, value in fields.items()}

    for run in study.glob("runs/*"):
        edit(study, run.name, change)
    return study


def of(study, draws=20):
    return analyse(load_study(study), draws=draws)


def told(m):
    """Everything that a study says, as strict JSON and text."""
    found = headline(m)
    json.dumps([m.analysis, found], allow_nan=False)
    cells = [table.csv() for table in [*all_tables(m), definitions(m)]]
    return format_headline(found) + "\n".join(cells)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return of(write_study(tmp_path_factory.mktemp("good") / "good", samples=False), draws=50)


def test_a_study_that_diverged_everywhere_ends_in_a_page(tmp_path):
    study = changed(write_study(tmp_path / "s", samples=False), loss=None, non_finite={"loss": "nan"})
    found = write_report(study, tmp_path / "out").headline
    assert found["budgets"] == [] and found["exponents"] == {"isoflop": None, "additive": None}
    page = (tmp_path / "out/report.html").read_text()
    assert "no reading counts" in page and "diverged" in page
    assert "w0064-s0" in page and "Networks" in page
    json.loads((tmp_path / "out/fits.json").read_text())


def test_what_losses_that_ignore_data_leave_open_is_null_with_the_reason(tmp_path):
    """The additive law then has one term: no exponent of N* or D* exists."""
    study = write_study(tmp_path / "s", Surface(widths=(48, 96, 192)), samples=False)
    m = of(changed(study, loss=lambda row: 0.3 + 5 / int(row["run"][1:5])))
    allocation = m.analysis["additive"]["primary"]["allocation"]
    assert allocation["n"]["exponent"] is None and "not identified" in allocation["n"]["doubt"]
    assert m.analysis["additive"]["loss"] is None and m.analysis["targets"] == []
    text = told(m)
    assert "not identified" in next(line for line in text.splitlines() if line.startswith("additive law"))


@pytest.mark.parametrize("value", [0.5, 1e300, 1e-300])
def test_losses_that_carry_no_law_are_said_to(tmp_path, value):
    text = told(of(changed(write_study(tmp_path / "s", samples=False), loss=value)))
    assert "no exponents" in text


def test_bins_that_diverged_or_are_missing_are_drawn_as_gaps(tmp_path):
    study = write_study(tmp_path / "s", budgets=TWO, widths=(64, 128), samples=False)
    m = of(
        changed(study, loss_bins=lambda row: [None, *row["loss_bins"][1:]] if "128" in row["run"] else [1.0])
    )
    figures_samples.noise_bins(m)
    points = collect(load_study(study))
    assert np.isnan(points.bins[:, 0]).all()
    assert "no bins" in told(of(changed(study, loss_bins=[], log_snr_edges=[])))


def test_doubts_stand_in_the_lines_of_their_numbers(tmp_path):
    m = of(write_study(tmp_path / "s", budgets=TWO, samples=False))
    lines = format_headline(headline(m)).splitlines()
    line = next(line for line in lines if line.startswith("isoFLOP minima"))
    assert line.count("DOUBTFUL: 2 budgets with a minimum") == 2
    rows = list(csv.DictReader(next(t for t in all_tables(m) if t.name == "fits").csv().splitlines()))
    minima = [row for row in rows if row["law"] == "isoFLOP minima"]
    assert minima and all("2 budgets with a minimum" in row["doubt"] for row in minima)


def test_minima_of_few_sizes_are_doubted_in_their_rows(tmp_path):
    study = write_study(tmp_path / "s", budgets=(1e13,), widths=(64, 96, 128, 192), samples=False)
    (row,) = headline(of(study))["budgets"]
    assert row["accepted"] and "doubtful: a parabola of 4 sizes; no interval" in row["verdict"]


@pytest.mark.parametrize("name", ["definitions", "fits", "isoflop", "allocation"])
def test_every_table_says_the_method_that_was_used(good, name):
    """Seven runs are too few to be resampled: noise was drawn."""
    methods = {fit["method"] for fit in good.analysis["fits"]}
    assert methods == {"parametric"}
    table = next(table for table in [*all_tables(good), definitions(good)] if table.name == name)
    text = table.note + table.csv()
    assert "noise of runs and readings drawn afresh" in text
    assert not re.search("resampl|whole runs|run-level", text)


def test_captions_say_the_method_that_was_used(good):
    from dit.report.page import SECTIONS

    captions = [draw(good).caption for _, draws in SECTIONS[:2] for draw in draws]
    assert not any(re.search("resampl|whole runs|run-level", caption) for caption in captions)
    assert sum("noise of runs and readings drawn afresh" in caption for caption in captions) == 3
    fits = [{**fit, "method": "pairs"} for fit in good.analysis["fits"]]
    pairs = replace(good, analysis={**good.analysis, "fits": fits})
    assert (
        "bias-corrected" in definitions(pairs).csv() and "resampling whole runs" in definitions(pairs).csv()
    )


def other(tmp_path, name, **fields):
    study = write_study(tmp_path / name, samples=False)
    return of(changed(study, **fields)) if fields else of(study)


def drawn(first, second):
    found = compare(first, [second])
    json.dumps(found, allow_nan=False)
    m = replace(first, analysis={**first.analysis, "comparison": found}, others=(second,))
    return found[0], m, _drawn(figures_loss.comparison, m)


def test_studies_without_a_shared_loss_are_drawn_and_say_so(good, tmp_path):
    second = other(tmp_path, "low", loss=lambda row: 0.1 * row["loss"])
    found, m, figure = drawn(good, second)
    assert found["by_loss"] == [] and "ranges overlap" in found["by_loss_why_not"]
    left, right = figure.figure.axes
    assert len(left.lines) == 4 and not right.lines  # points and frontiers of both; no ratio
    assert any("not compared at equal loss" in sentence for sentence in uncompared(m))
    assert "not compared at equal loss" in figure.caption


def test_studies_on_other_draws_share_no_axis_and_say_so(good, tmp_path):
    second = other(tmp_path, "other", draws_hash="e" * 16)
    found, m, figure = drawn(good, second)
    assert "draws_hash" in found["by_loss_why_not"] and not found["one_axis"]
    assert len(figure.figure.axes[0].lines) == 2  # of the first study alone
    assert any("draws_hash" in sentence for sentence in uncompared(m))


def test_a_study_without_points_is_compared_in_words(good, tmp_path):
    nothing = other(tmp_path, "nothing", loss=None, non_finite={"loss": "nan"})
    found, _, figure = drawn(good, nothing)
    assert "counts" in found["by_loss_why_not"]
    assert len(figure.figure.axes[0].lines) == 2
    assert "counts" in compare(nothing, [good])[0]["by_loss_why_not"]


def test_studies_of_one_name_are_told_apart(good):
    (found,) = compare(good, [good])
    assert found["study"] == "synthetic in good"


def test_the_page_of_a_comparison_without_a_shared_loss(tmp_path):
    """As a user runs it: exit 0, and the page says what was not compared."""
    first = write_study(tmp_path / "a", budgets=TWO, widths=(64, 128), samples=False)
    second = changed(write_study(tmp_path / "b", budgets=TWO, widths=(64, 128), samples=False),
                     loss=lambda row: 9 + row["loss"])  # fmt: skip
    dit("report", f"study.directory={first}", f"compare=[{second}]", cwd=tmp_path, check=0)
    assert "not compared at equal loss" in (first / "report/report.html").read_text()


def unbegun(tmp_path) -> Path:
    study = write_study(tmp_path / "s", Surface(widths=(32, 48, 64, 96, 128, 192, 256, 384)), samples=False)
    planned = [{"name": file.name} for file in sorted(study.glob("runs/*"))] + [{"name": "never"}]
    (study / "plan.json").write_text(json.dumps({"runs": planned}))
    (study / "runs/w0032-s0/records.jsonl").write_bytes(b"")
    (study / "runs/w0048-s0/records.jsonl").unlink()
    torn = study / "runs/w0064-s0/records.jsonl"
    torn.write_bytes(torn.read_bytes()[:40])
    whole = study / "runs/w0096-s0/records.jsonl"
    whole.write_bytes(whole.read_bytes()[:-9])
    first = study / "runs/w0384-s0/records.jsonl"
    first.write_bytes(first.read_bytes().splitlines(keepends=True)[0])
    return study


def test_runs_that_left_nothing_are_named(tmp_path):
    study = load_study(unbegun(tmp_path))
    found = lost(study)
    assert found.keys() == {"never", "w0032-s0", "w0048-s0", "w0064-s0", "w0384-s0"}
    for run, why in (("never", "has not begun"), ("w0032-s0", "empty"), ("w0048-s0", "no records.jsonl"),
                     ("w0064-s0", "cut short"), ("w0384-s0", "no validation")):  # fmt: skip
        assert why in found[run]
    sentences = " ".join(left_out(study, collect(study)))
    assert "5 of 9 runs" in sentences and "runs/w0096-s0/records.jsonl" in sentences


def test_a_fit_of_a_study_says_what_it_left_out(tmp_path):
    study = unbegun(tmp_path)
    text = dit("fit", f"data={study}", "law=power", "bootstrap=0", cwd=tmp_path, check=0).stdout
    assert "warning: 5 of 9 runs left out" in text and "w0032-s0: its records.jsonl is empty" in text


def test_a_fit_and_a_pilot_say_which_file_was_damaged(tmp_path):
    study = write_study(tmp_path / "s", samples=False)
    with (study / "runs/w0064-s0/records.jsonl").open("a") as file:
        file.write("{}\n")
    text = dit("fit", f"data={study}", "law=power", "bootstrap=0", cwd=tmp_path, check=0).stdout
    assert "warning: 1 of 7 runs left out: w0064-s0: runs/w0064-s0/records.jsonl:" in text
    expected = from_pilot(study, Surface().tokens)
    assert expected.source.endswith("without what is damaged: runs/w0064-s0/records.jsonl")
