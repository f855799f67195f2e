import csv
import dataclasses
import re

import pytest
import torch

from dit.errors import InputError
from dit.evaluation.grids.pictures import picture_grid, png_bytes
from dit.evaluation.report import PUBLISHED, Row, curves, grouped, place, write_report
from tests.evaluation.test_protocol import BASE


def row(model: str, fd: float, **fields: object) -> Row:
    numbers = {"frechet_distance": fd, "accuracy": None, "precision": 0.5, "n": 50}
    return Row(model, numbers, dataclasses.replace(BASE, **fields))  # type: ignore[arg-type]


ROWS = [
    *(
        row("A", 10 - s, guidance=f"ClassifierFree(scale={s})", guidance_scale=s, nfe=8)
        for s in (1.5, 2.0, 3.0)
    ),
    row("A", 12, guidance="none", nfe=4),
    row("B", 14, guidance="none", nfe=4),
    *(row("A", 20 - k, guidance="none", nfe=k, grid=f"uniform(n_steps={k})", solver="heun") for k in (8, 16)),
]


def test_the_page_needs_nothing_from_outside_and_repeats(tmp_path, images) -> None:
    pictured = [dataclasses.replace(r, picture=png_bytes(picture_grid(images[:4], 2))) for r in ROWS]
    page = write_report(pictured, tmp_path / "a")
    assert page.read_bytes() == write_report(pictured, tmp_path / "b").read_bytes()
    text = page.read_text()
    loaded = re.findall(r"""(?:src|href)\s*=\s*["']([^"'#]+)""", text)
    assert loaded and all(address.startswith("data:") for address in loaded)
    assert "@import" not in text and "url(http" not in text


@pytest.mark.parametrize(
    "guidance",
    ["A(scale=[1])", "A(scale='x')", "A(**b, scale=-1)", "x(" * 10000, "a\0", "$\\frac", "<script>"],
)
def test_guidance_of_a_strangers_own_words_is_shown_as_text(guidance, tmp_path) -> None:
    text = write_report([row("A", 1.0, guidance=guidance)], tmp_path).read_text()
    assert "<script>" not in text


def test_a_table_holds_one_protocol(tmp_path) -> None:
    assert [[(r.model, r.protocol.nfe) for r in group] for group in grouped(ROWS)][3] == [("A", 4), ("B", 4)]
    text = write_report(ROWS, tmp_path).read_text()
    assert text.count("<h2>Protocol") == len({r.protocol.hash for r in ROWS})
    for r in ROWS:
        assert r.protocol.hash in text


def test_curves_run_over_one_axis_with_all_else_equal() -> None:
    (over_guidance,) = curves(ROWS, "guidance")
    assert {place(r, "guidance") for r in over_guidance if r.model == "A"} == {1.0, 1.5, 2.0, 3.0}
    (over_calls,) = curves(ROWS, "nfe")
    assert {(r.model, r.protocol.solver, r.protocol.nfe) for r in over_calls} == {
        ("A", "euler", 4), ("B", "euler", 4), ("A", "heun", 8), ("A", "heun", 16)
    }  # fmt: skip
    assert curves([ROWS[0], row("A", 1, weights="raw")], "guidance") == []


def test_the_csv_holds_every_number_with_its_protocol(tmp_path) -> None:
    write_report(ROWS, tmp_path)
    with (tmp_path / "evaluations.csv").open() as file:
        read = list(csv.DictReader(file))
    assert [float(r["frechet_distance"]) for r in read] == [r.metrics["frechet_distance"] for r in ROWS]
    assert read[0]["guidance"] == "ClassifierFree(scale=1.5)" and read[0]["rounding"] == BASE.rounding
    assert read[0]["precision"] == "0.5" and read[0]["protocol precision"] == str(BASE.precision or "")


def test_published_values_stand_beside_those_of_their_extractor_and_size(tmp_path) -> None:
    fid = dataclasses.replace(BASE, extractor="inception-2015-12-05", n=50_000)
    ours = Row("ours", {"frechet_distance": 2.5, "n": 50_000}, fid, resolution=256)
    text = write_report([ours], tmp_path).read_text()
    assert "DiT-XL/2, 7000000 training steps (arXiv 2212.09748, 250 sampling steps)" in text
    assert "<td>9.62</td>" in text and "EDM2" not in text and "<td>2.27</td>" not in text
    guided = "ClassifierFree(channels=3, interval=None, scale=1.5)"
    assert "<td>2.27</td>" in page(tmp_path, ours, guidance=guided)
    for other in ({"resolution": 32}, {"protocol": dataclasses.replace(fid, n=10_000)}):
        assert "arXiv" not in write_report([dataclasses.replace(ours, **other)], tmp_path).read_text()


def page(folder, row: Row, **protocol: object) -> str:
    return write_report(
        [dataclasses.replace(row, protocol=dataclasses.replace(row.protocol, **protocol))], folder
    ).read_text()


@pytest.mark.parametrize(
    "guidance",
    [
        "ClassifierFree(scale=1.5)",  # all four channels: about 1.7 of three
        "ClassifierFree(channels=4, scale=1.5)",
        "ClassifierFree(channels=3, interval=[-1.0, 3.0], scale=1.5)",
        "ClassifierFree(channels=3, interval=[-inf, 3.0], scale=1.5)",
        "ClassifierFree(channels=3, scale=1.54)",
        "NegativeClass(channels=3, negative_class=0, scale=1.5)",
        "Autoguidance(scale=1.5, weak='small')",
    ],
)
def test_published_values_stand_beside_those_of_the_same_guidance_alone(guidance, tmp_path) -> None:
    """DiT's and SiT's released code guides 3 of 4 channels, everywhere: forward_with_cfg."""
    fid = dataclasses.replace(BASE, extractor="inception-2015-12-05", n=50_000)
    ours = Row("ours", {"frechet_distance": 2.5, "n": 50_000}, fid, resolution=256)
    assert "arXiv" in page(tmp_path, ours, guidance="ClassifierFree(channels=3, scale=1.5)")
    assert "arXiv" not in page(tmp_path, ours, guidance=guidance)


def test_published_values_of_dinov2_stand_beside_its_published_way_alone(tmp_path, monkeypatch) -> None:
    from dit.evaluation import extractors

    tiny = {"pos_embed": torch.zeros(1, 1 + 37 * 37, 384)}
    monkeypatch.setattr(extractors, "_plain_dinov2", lambda _: torch.nn.Identity())
    monkeypatch.setattr(extractors, "_read_dinov2", lambda *_: tiny)
    monkeypatch.setattr(extractors, "_set_positions", lambda *_: None)
    (tmp_path / "file").touch()
    texts = {}
    for pil in (False, True):
        made = extractors.DINOv2(tmp_path / "file", pil=pil)
        fd = dataclasses.replace(
            BASE, extractor=made.name, preprocessing=made.preprocessing, n=50_000, guidance="none"
        )
        texts[pil] = page(tmp_path, Row("ours", {"frechet_distance": 90.0}, fd, resolution=512))
        if not pil:
            older = dataclasses.replace(fd, preprocessing="bicubic antialiased to 224x224, clipped to 0..255")
            assert "EDM2" not in page(
                tmp_path, Row("ours", {"frechet_distance": 90.0}, older, resolution=512)
            )
    assert "EDM2-XS" in texts[False] and "EDM2" not in texts[True]


def test_every_published_value_says_where_it_was_seen(shared) -> None:
    """And equals the collection it was taken from."""
    with (shared / "reference/published.csv").open() as file:
        collected = {(r["model"], r["resolution"], r["train_steps"], r["fid"]) for r in csv.DictReader(file)}
    with PUBLISHED.open() as file:
        rows = list(csv.DictReader(file))
    for r in rows:
        assert r["seen"] and "MEMORY" not in r["seen"]
        assert (r["model"], r["resolution"], r["train_steps"], r["frechet_distance"]) in collected


def test_an_empty_report_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="at least one evaluation"):
        write_report([], tmp_path)
