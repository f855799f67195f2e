"""Reports of studies that are not whole, and records that no report may mix."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dit.errors import InputError
from dit.report.analysis import analyse
from dit.report.figures_law import contours
from dit.report.headline import format_headline, headline
from dit.report.page import write_report
from dit.study.readings import collect
from dit.study.records import load_study
from dit.study.sampled import collect_samples
from tests.fits.synthetic import Surface, write_study

FIELDS_OF_A_LAW = (
    ("run", "objective", "edm"),
    ("run", "lr_rule", "constant"),
    ("run", "tokens_per_image", 64),
    ("run", "data.manifest_hash", "x" * 16),
    ("run", "network.patch_size", 4),
    ("validation", "draws_hash", "x" * 16),
    ("validation", "n_draws", 3000),
)


def edit(directory: Path, run: str, change: Callable[[dict], None]) -> None:
    """Applies ``change`` to every row of a run, whatever the writer would say to it."""
    file = directory / "runs" / run / "records.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        change(row)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def set_field(kind: str, name: str, value: object) -> Callable[[dict], None]:
    def change(row: dict) -> None:
        if row["kind"] == kind:
            *path, last = name.split(".")
            for part in path:
                row = row[part]
            row[last] = value

    return change


@pytest.mark.parametrize(("kind", "name", "value"), FIELDS_OF_A_LAW)
def test_runs_of_different_protocols_never_share_an_axis(tmp_path, kind, name, value):
    study = write_study(tmp_path, samples=False)
    edit(study, "w0064-s0", set_field(kind, name, value))
    with pytest.raises(InputError, match=rf"{kind}\.{name}.*w0064-s0"):
        collect(load_study(study))


@pytest.mark.parametrize(("name", "value"), [("nfe", 51), ("extractor_sha256", "y"), ("labels", "random")])
def test_samples_of_different_protocols_never_share_an_axis(tmp_path, name, value):
    study = write_study(tmp_path)
    edit(study, "w0064-s0", set_field("samples", f"protocol.{name}", value))
    with pytest.raises(InputError, match=rf"samples\.protocol\.{name}.*w0064-s0"):
        collect_samples(load_study(study))


def test_sampling_seeds_are_averaged_never_the_least(tmp_path):
    study = write_study(tmp_path)
    file = study / "runs/w0064-s0/records.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    plain = next(r for r in rows if r["kind"] == "samples" and r["protocol"]["guidance"] == "none")
    again = json.loads(json.dumps(plain))
    again["protocol"]["seed"], again["protocol_hash"] = 1, "second"
    again["frechet_distance"] = plain["frechet_distance"] + 2.0
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, again]))
    group = collect_samples(load_study(study))[0]
    entry = next(
        r for r in group.rows if (r["run"], r["budget_flops"]) == ("w0064-s0", plain["budget_flops"])
    )
    assert entry["frechet_distance"] == pytest.approx(plain["frechet_distance"] + 1.0)
    assert entry["frechet_distance_sd"] == pytest.approx(2**0.5)  # of two values 2 apart
    assert entry["seeds"] == 2


def test_points_left_out_are_named_with_the_reason(tmp_path):
    study = write_study(tmp_path, samples=False)
    biggest = max(Surface().budgets)

    def diverge(row: dict) -> None:
        if row["kind"] == "validation" and row["budget_flops"] == biggest:
            row["loss"], row["non_finite"] = None, {"loss": "nan"}

    def miss(row: dict) -> None:
        if row["kind"] == "validation" and row["budget_flops"] == biggest:
            row["train_flops"] *= 1.02

    edit(study, "w0064-s0", diverge)
    edit(study, "w0096-s0", miss)
    edit(study, "w0256-s0", set_field("run", "warmup_images", 100))
    points = collect(load_study(study))
    reasons = {(e["run"], e["budget_flops"]): e["reason"] for e in points.excluded}
    assert "diverged" in reasons["w0064-s0", biggest] and "nan" in reasons["w0064-s0", biggest]
    assert "misses the budget by +2" in reasons["w0096-s0", biggest]
    assert "warm-ups" in reasons["w0256-s0", Surface().budgets[0]]
    kept = set(zip(points.run, points.budget))
    assert kept.isdisjoint(reasons)
    assert len(kept) + len(reasons) == 28


def test_no_reading_at_a_budget_is_one_clear_message(tmp_path):
    study = write_study(tmp_path, samples=False)
    for width in Surface().widths:
        edit(study, f"w{width:04d}-s0", set_field("validation", "budget_flops", None))
    with pytest.raises(InputError, match="at least one validation row"):
        collect(load_study(study))


def test_a_budget_with_its_best_size_at_the_edge_is_rejected_and_named(tmp_path):
    # N* of the smallest budget, 1.2e5, lies below the smallest network here (width 96: 3.4e5).
    surface = Surface(widths=(96, 128, 192, 256, 320), noise=0.0)
    first, *_ = surface.budgets
    assert surface.n_opt(first) < surface.macs_per_token(96)
    study = write_study(tmp_path / "study", surface, samples=False)
    edit(study, "w0320-s0", set_field("validation", "loss", None))
    found = write_report(study, tmp_path / "out", bootstrap=50).headline
    verdicts = {row["budget_flops"]: row["verdict"] for row in found["budgets"]}
    assert "smallest trained" in verdicts[first]
    assert verdicts[surface.budgets[-1]] == (
        "minimum inside the row, doubtful: a parabola of 4 sizes; no interval, of 1 budget with a minimum"
    )
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "rejected" in page and "its best size is the smallest trained" in page
    assert "diverged" in page
    # No samples were measured: the page says so where the figures would be.
    for title in ("Frechet against compute", "Guided accuracy", "Sample grids"):
        assert f"<b>{title}</b> is not drawn: no samples" in page
    assert "rejected" in format_headline(found) or "smallest trained" in format_headline(found)


def test_one_budget_alone_gives_a_report_without_laws(tmp_path):
    study = write_study(tmp_path / "study", budgets=(1e13,))
    found = write_report(study, tmp_path / "out", bootstrap=50).headline
    assert found["exponents"] == {"isoflop": None, "additive": None}
    assert found["holdout"] is None
    assert [row["verdict"] for row in found["budgets"]] == [
        "minimum inside the row, doubtful: no interval, of 1 budget with a minimum"
    ]
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "one budget only" in page and "no interval, of 1 budget with a minimum" in page
    assert "no exponents" in format_headline(found)
    json.loads((tmp_path / "out/fits.json").read_text())


def test_a_minimum_of_three_sizes_is_none(tmp_path):
    study = write_study(tmp_path, budgets=(1e12,), widths=(32, 64, 128), samples=False)
    (row,) = headline(analyse(load_study(study), draws=50))["budgets"]
    assert (row["n_opt"], row["accepted"], row["verdict"]) == (None, False, "fewer than 4 sizes")


def test_all_optima_at_the_edge_are_said_to_be(tmp_path):
    study = write_study(
        tmp_path, Surface(widths=(192, 256, 320, 384), budgets=(1e12, 3.162e12)), samples=False
    )
    material = analyse(load_study(study), draws=50)
    assert all(row["edge"] for row in material.analysis["isoflop"]["n_flop"]["budgets"])
    assert "edge" in material.analysis["isoflop"]["n_flop"]["why_not"]
    assert headline(material)["exponents"]["isoflop"] is None


@pytest.mark.filterwarnings("error")
def test_an_absent_floor_is_zero_in_every_number(tmp_path):
    # a law that bends below any with a floor: the search follows E down without end
    out = tmp_path / "report"
    write_report(write_study(tmp_path / "study", e=-0.1, samples=False), out)
    found = json.loads((out / "fits.json").read_text())
    law = found["additive"]
    assert law["primary"]["absent"] == ["E"]
    assert law["primary"]["parameters"]["E"] == law["profiles"]["E"]["estimate"] == law["loss"]["floor"] == 0
    told = next(fit for fit in found["fits"] if fit["law"] == "additive")
    assert told["parameters"]["E"] == 0
    assert all(low <= 0 <= high for low, high in told["intervals"]["E"].values())
    # seven runs are too few to resample: noise is drawn
    assert law["bootstrap"]["method"] == "parametric"
    assert "resampling whole runs" not in (out / "report.html").read_text()


def test_weights_that_were_not_measured_are_named(tmp_path):
    study = load_study(write_study(tmp_path, samples=False))
    with pytest.raises(InputError, match=r"weights: got 'rwa'; allowed: one of ema"):
        collect(study, "rwa")


def test_names_that_are_markup_or_formulas_are_text_on_the_page(tmp_path):
    names = {"w0032-s0": "$x^{", "w0048-s0": "=1+1", "w0064-s0": "<script>a"}
    study = write_study(tmp_path / "study", widths=(32, 48, 64), budgets=(1e12, 1e13), samples=False)
    for old, new in names.items():
        (study / "runs" / old).rename(study / "runs" / new)
        file = study / "runs" / new / "records.jsonl"
        file.write_text(file.read_text().replace(f'"run":"{old}"', f'"run":{json.dumps(new)}'))
    write_report(study, tmp_path / "out", bootstrap=20)
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;a" in page and "<script>a" not in page and "$x^{" in page
    assert "'=1+1," in (tmp_path / "out/runs.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "value"), [("n", "many"), ("n", 2.5), ("nfe", "50"), ("nfe", [50])])
def test_numbers_of_a_protocol_that_are_none_are_named(tmp_path, name, value):
    study = write_study(tmp_path, budgets=(1e12,), widths=(64,))
    edit(study, "w0064-s0", set_field("samples", f"protocol.{name}", value))
    with pytest.raises(InputError, match=rf"records.jsonl:\d+: protocol: {name}: got"):
        load_study(study)


def test_a_study_that_repeats_its_data_is_told_by_the_law_of_repeated_data(tmp_path):
    """Above four epochs; below, everything is as where the number of training images is not known."""
    surface = Surface(budgets=(1e12, 3.162e12, 1e13), widths=(32, 48, 64, 96, 128))
    seen = max(row["images_seen"] for row in load_study(write_study(tmp_path / "x", surface)).validation)
    found = {
        n_train: analyse(
            load_study(write_study(tmp_path / str(n_train), replace(surface, n_train=n_train))), 40
        )
        for n_train in (seen // 100, seen // 3, 0)
    }
    often, seldom, unknown = found.values()
    assert often.law_name == "law of repeated data"
    assert seldom.law_name == unknown.law_name == "additive law"
    rows = (seldom.analysis["targets"], unknown.analysis["targets"])
    for one in (*rows[0], *rows[1]):
        one.pop("epochs")
    assert seldom.analysis == unknown.analysis
    assert {*headline(seldom)["exponents"]} == {"isoflop", "additive"}
    told = headline(often)
    assert (told["law"], {*told["exponents"]}) == ("data_limited", {"isoflop", "data_limited", "additive"})
    assert told["exponents"]["additive"] == headline(seldom)["exponents"]["additive"]
    assert "additive law for comparison" in format_headline(told)
    assert {"data_limited", "additive"} < {fit["law"] for fit in often.analysis["fits"]}
    assert often.law is not None and "R_D" in often.analysis["additive"]["profiles"]
    lost = [row["waste_double"] for row in often.analysis["targets"]]
    assert all(0 < one < 1 for one in lost)
    top = often.analysis["targets"][0]
    assert often.law.fit.loss_opt(top["budget_flops"] * (1 - lost[0])) == pytest.approx(
        top["loss_double"], rel=1e-6
    )


def test_the_surface_of_repeated_data_is_drawn_against_effective_images(tmp_path):
    study = load_study(
        write_study(tmp_path, Surface(n_train=50_000, widths=(64, 96, 128, 192)), samples=False)
    )
    m = analyse(study, 0)
    drawn = contours(m)
    axes = drawn.figure.axes[0]
    heights = np.concatenate(
        [line.get_ydata() for line in axes.lines if line.get_marker() not in ("None", None)]
    )
    assert axes.get_ylabel() == "effective images D'"
    assert m.law is not None and max(heights) == pytest.approx(
        m.law.fit.effective_data(m.points.images.max())
    )
