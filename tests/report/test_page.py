"""The report: equal bytes for equal records, nothing from outside, every number from a record."""

import base64
import csv
import html.parser
import itertools
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from dit.fits.additive import AdditiveLaw
from dit.report import page
from dit.report.analysis import analyse
from dit.report.derived import targets
from dit.report.headline import format_headline, held_out_text
from dit.report.page import write_report
from dit.report.words import number_text, setting_text
from dit.study.records import load_study
from tests.fits.synthetic import Surface, write_study

BOOTSTRAP = 100


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    return write_study(tmp_path_factory.mktemp("synthetic") / "study")


@pytest.fixture(scope="module")
def report(study, tmp_path_factory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("report")
    return out, write_report(study, out, bootstrap=BOOTSTRAP).headline


def rows_of(out: Path, name: str) -> list[dict[str, str]]:
    with open(out / f"{name}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class Page(html.parser.HTMLParser):
    """Addresses and visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.words: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href") and value]

    def handle_data(self, data):
        self.words.append(data)


def page_of(out: Path) -> Page:
    return Page((out / "report.html").read_text(encoding="utf-8"))


def test_the_number_of_held_out_images_is_said_wherever_the_result_is(report):
    out, found = report
    few = "297 held-out images (few: all exponents rest on them)"
    assert found["held_out"] == 297 and few in format_headline(found)
    assert few in " ".join(row["here"] for row in rows_of(out, "definitions"))
    assert any(few in words for words in page_of(out).words)
    assert held_out_text(500) == "500 held-out images" and "not recorded" in held_out_text(None)


def test_equal_records_give_equal_bytes_in_another_process_that_imports_no_torch(study, report, tmp_path):
    first, _ = report
    program = (
        "import sys\n"
        "from dit.report.page import write_report\n"
        f"write_report({str(study)!r}, {str(tmp_path)!r}, bootstrap={BOOTSTRAP})\n"
        "assert not {'torch', 'hydra', 'lightning', 'pandas'} & set(sys.modules), sorted(sys.modules)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    names = sorted(file.name for file in first.iterdir())
    assert names == sorted(file.name for file in tmp_path.iterdir())
    for name in names:
        assert (first / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_the_page_asks_for_nothing_from_outside(report):
    out, _ = report
    text = (out / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[a-z]+\.|url\(|@import", text)
    page = page_of(out)
    assert page.tags.isdisjoint({"script", "link", "iframe", "object"})
    for source in page.sources:
        assert source.startswith(("data:image/", "#"))
    svgs = [s for s in page.sources if s.startswith("data:image/svg+xml;base64,")]
    assert len(svgs) > 10
    for source in svgs:
        tree = xml.etree.ElementTree.fromstring(base64.b64decode(source.split(",", 1)[1]))
        for node in tree.iter():
            for name, value in node.attrib.items():
                assert not name.endswith("href") or value.startswith(("#", "data:")), value


def test_neither_files_nor_page_hold_a_path_or_a_date(study, report):
    out, _ = report
    for file in out.iterdir():
        content = file.read_bytes()
        assert str(study).encode() not in content and str(out).encode() not in content
        assert b"Matplotlib v" not in content, file.name


def test_every_figure_is_a_png_and_an_svg_and_is_numbered_in_the_page(report):
    out, _ = report
    text = (out / "report.html").read_text(encoding="utf-8")
    names = re.findall(r'<figure id="figure-(\w+)"', text)
    assert set(names) >= {
        "loss_against_compute", "isoflop", "allocation", "frontier", "contours", "holdout", "residuals",
        "bootstrap", "profiles", "sensitivity", "frechet_against_compute", "frechet_against_loss",
        "guided_accuracy", "sample_grids", "noise_bins",
    }  # fmt: skip
    assert re.findall(r"<b>Figure (\d+)\.", text) == [str(k + 1) for k in range(len(names))]
    for name in names:
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        xml.etree.ElementTree.parse(out / f"{name}.svg")
    assert text.count("dit report study.name=synthetic") == 1


def test_no_label_overlaps_another_or_leaves_its_figure(study, monkeypatch):
    """Tick labels of an axis, and titles and labels of neighbouring axes, as laid out for the files."""
    boxes = {}

    def measure(figure):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        frame = figure.bbox
        for axes in figure.axes:
            for axis, name in ((axes.xaxis, "x"), (axes.yaxis, "y")):
                labels = [
                    label for label in axis.get_ticklabels() if label.get_text() and label.get_visible()
                ]
                low, high = sorted(axis.get_view_interval())
                inside = [label for label, at in zip(labels, axis.get_ticklocs()) if low <= at <= high]
                extents = [label.get_window_extent() for label in inside] if axes.axison else []
                boxes.setdefault(name, []).append(len(extents))
                for one, two in itertools.combinations(extents, 2):
                    assert not one.overlaps(two), (axes.get_xlabel(), axes.get_ylabel())
                names = [axis.label.get_window_extent()] if axis.label.get_text() else []
                for box in [*extents, *names]:
                    assert frame.x0 - 2 <= box.x0 and box.x1 <= frame.x1 + 2, (axes.get_xlabel(), box)
                    assert frame.y0 - 2 <= box.y0 and box.y1 <= frame.y1 + 2, (axes.get_ylabel(), box)
        return b"", b"<svg/>"

    monkeypatch.setattr(page, "write", measure)
    material = analyse(load_study(study), draws=BOOTSTRAP)
    monkeypatch.setattr(pathlib.Path, "write_bytes", lambda self, content: len(content))
    page._draw_all(material, study)
    assert len(boxes["x"]) > 20


def test_the_points_are_the_records(study, report):
    out, _ = report
    measured = {
        (row["run"], row["budget_flops"]): row
        for row in load_study(study).validation
        if row["weights"] == "ema"
    }
    points = rows_of(out, "points")
    assert len(points) == len(measured)
    for point in points:
        row = measured[point["run"], float(point["budget_flops"])]
        assert float(point["loss"]) == row["loss"]
        assert float(point["images_seen"]) == row["images_seen"]
        assert [float(point[f"loss_bin_{k}"]) for k in range(8)] == row["loss_bins"]


def test_the_headline_is_the_records_and_stands_in_the_page(study, report):
    out, found = report
    records = load_study(study)
    words = set(page_of(out).words)
    assert found["runs"] == len(records.runs) == 7
    for budget in found["budgets"]:
        c = budget["budget_flops"]
        losses = [r["loss"] for r in records.validation if r["budget_flops"] == c and r["weights"] == "ema"]
        at = [r for r in records.samples if r["budget_flops"] == c]
        plain = [r["frechet_distance"] for r in at if r["protocol"]["guidance"] == "none"]
        guided = {r["run"]: r["accuracy"] for r in at if r["protocol"]["guidance"] != "none"}
        assert budget["best_loss"] == min(losses)
        assert budget["frechet_distance"] == min(plain)
        assert budget["guided_accuracy"] == guided[budget["best_run"]]  # of the run of least loss, no choice
        for number in (min(losses), min(plain), budget["n_opt"]):
            assert number_text(number) in words


def test_the_compute_in_the_headline_is_that_of_the_last_readings(study, report):
    _, found = report
    last: dict[str, float] = {}
    for row in load_study(study).train:
        last[row["run"]] = max(last.get(row["run"], 0), row["train_flops"])
    assert found["train_flops"] == pytest.approx(sum(last.values()), rel=1e-12)


def test_the_fits_find_the_surface_that_made_the_records(tmp_path):
    surface = Surface(noise=1e-5)
    study = write_study(tmp_path, surface, samples=False)
    material = analyse(load_study(study), draws=BOOTSTRAP)
    found = material.analysis["additive"]["primary"]
    for name, truth in (("E", surface.e), ("alpha", surface.alpha), ("beta", surface.beta)):
        assert found["parameters"][name] == pytest.approx(truth, rel=0.01)
    law = found["allocation"]["n"]
    for budget in surface.budgets:
        assert law["coefficient"] * budget ** law["exponent"] == pytest.approx(
            surface.n_opt(budget), rel=0.02
        )
    # Target budgets: N* of the closed form, and the loss of twice the size read off the true surface.
    for row in material.analysis["targets"]:
        c, best = row["budget_flops"], surface.n_opt(row["budget_flops"])
        twice = surface.loss(2 * best, c / (6 * surface.tokens * 2 * best))
        assert row["n"] == pytest.approx(best, rel=0.03)
        assert row["loss_double"] == pytest.approx(twice, rel=0.01)
    held = material.analysis["holdout"]
    assert abs(held["bias"]) < 1e-3 and held["n"] == len(surface.widths)
    exponent = surface.beta / (surface.alpha + surface.beta)
    by_choice = {row["what"]: row["a"] for row in material.analysis["sensitivity"]}
    for what in (
        "least squares of L",
        "least absolute deviations of ln L",
        "raw weights",
        "without the largest size",
    ):
        assert by_choice[what] == pytest.approx(exponent, abs=0.01)
    assert by_choice["isoFLOP minima"] == pytest.approx(
        exponent, abs=0.06
    )  # parabolas are biased on wide grids


def test_the_share_of_compute_lost_reaches_the_same_loss_at_the_best_size():
    law = AdditiveLaw(E=0.3, A=12.0, B=20.0, alpha=0.35, beta=0.42, k=96.0)
    for row in targets(law, None, 1e13, None):
        for name in ("half", "double"):
            smaller = row["budget_flops"] * (1 - row[f"waste_{name}"])
            assert 0 < row[f"waste_{name}"] < 0.5
            assert law.loss_opt(smaller) == pytest.approx(row[f"loss_{name}"], rel=1e-9)


def test_the_text_headline_says_what_the_page_says(report):
    _, found = report
    text = format_headline(found)
    assert len([line for line in text.splitlines() if "minimum inside the row" in line]) == 4
    for label in ("isoFLOP minima", "additive law", "hold-out", "Fréchet", "guided"):
        assert label in text
    exponent = found["exponents"]["additive"]["n"]["value"]
    assert f"{exponent:.3f}" in text
    json.dumps(found, allow_nan=False)


def test_cells_are_rounded_for_the_page_only():
    assert number_text(1234567) == "1,234,567"
    assert number_text(0.123456) == "0.1235"
    assert number_text(3.2e13) == "3.2×10¹³"
    assert number_text(0.67) == "0.6700"
    assert number_text(2006.0) == number_text(2006) == "2,006"
    assert number_text(999.96) == "1000"
    assert number_text(191955173376) == "1.92×10¹¹"
    assert number_text(None) == number_text(math.nan) == "–"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("ClassifierFree(channels=None, interval=None, scale=1.5)", "classifier free, scale 1.5"),
        (
            "AdamW(lr=0.008, lr_rule='constant', betas=[0.9, 0.99])",
            "AdamW, lr 0.008, lr_rule constant, betas 0.9, 0.99",
        ),
        (
            "Linear+Velocity+LogitNormal(mean=0.0)+Uniform",
            "Linear + Velocity + logit normal, mean 0.0 + Uniform",
        ),
        ({"ema": "Power(sigma_rel=0.1)"}, "ema: Power, sigma_rel 0.1"),
        ("clamp(127.5 x + 128)", "clamp(127.5 x + 128)"),
        ("(" * 10_000, "(" * 10_000),
        (None, "none"),
    ],
)
def test_settings_are_shown_in_words(setting, words):
    assert setting_text(setting) == words
