"""Numbers that older versions kept inside texts are fields now; what they wrote is read on."""

import dataclasses
import json

import pytest

from dit.config.samplings import Sampling
from dit.diffusion.guidance import ClassifierFree
from dit.errors import InputError
from dit.evaluation.protocol import Protocol, require_equal
from dit.evaluation.report import Row, curves, place
from dit.older import with_guidance
from dit.report.analysis import analyse
from dit.report.headline import headline
from dit.study.readings import branches, collect
from dit.study.records import load_study
from tests.fits.synthetic import Surface, write_study

TEXTS = [
    ("none", 1.0, None),
    ("ClassifierFree(scale=1.5)", 1.5, None),
    ("ClassifierFree(channels=3, interval=None, scale=1.375)", 1.375, 3),
    ("NegativeClass(interval=[-2.5, 3], negative_class=7, scale=2e-1)", 0.2, None),
    ("Autoguidance(scale=2.0, weak='scale=9 channels=1@64')", 2.0, None),
    ("my_own_guidance", None, None),
    ("not a call (", None, None),
]


@pytest.mark.parametrize(("text", "scale", "channels"), TEXTS)
def test_guidance_of_older_records_is_read_off_their_text(text, scale, channels):
    found = with_guidance({"guidance": text, "n": 8})
    assert (found["guidance_scale"], found["guidance_channels"]) == (scale, channels)


def test_a_record_that_has_the_fields_is_not_guessed_at():
    told = {"guidance": "ClassifierFree(scale=1.5)", "guidance_scale": 4.0, "guidance_channels": 3}
    assert with_guidance(told) == told
    protocol = Protocol(
        reference="r", reference_n=9, extractor="digits", extractor_sha256="e", preprocessing="", n=9
    )
    guided = dataclasses.replace(protocol, **told)
    assert place(Row("A", {}, guided), "guidance") == 4.0


def test_a_sampling_says_scale_and_channels_as_numbers():
    import functools

    guidance = functools.partial(ClassifierFree, channels=3)
    sampling = Sampling(name="x", n=8, seed=0, labels="balanced", guidance_scale=1.5, preview=0, solver=None,
                        grid=None, guidance=guidance)  # fmt: skip
    assert sampling.guidance_numbers == {"guidance_scale": 1.5, "guidance_channels": 3}
    off = dataclasses.replace(sampling, guidance_scale=1)
    assert off.guidance_numbers == {"guidance_scale": 1.0, "guidance_channels": None}


def test_old_and_new_records_of_one_protocol_are_one():
    old = {"reference": "r", "reference_n": 9, "extractor": "digits", "extractor_sha256": "e", "preprocessing": "",
           "n": 9, "guidance": "ClassifierFree(channels=3, scale=1.5)"}  # fmt: skip
    new = Protocol(**old, guidance_scale=1.5, guidance_channels=3)
    assert Protocol.from_dict(old) == new
    assert Protocol.from_dict(old).hash == new.hash
    require_equal([Protocol.from_dict(old), new])
    scales = [
        dataclasses.replace(new, guidance=f"ClassifierFree(scale={s})", guidance_scale=s) for s in (2.0, 3.0)
    ]
    rows = [Row("A", {"frechet_distance": 1.0}, one, resolution=32) for one in scales]
    assert curves(rows, "guidance") == [rows]


def rewrite(study, change):
    for file in study.glob("runs/*/records.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for row in rows:
            change(row)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def named_like_a_branch(tmp_path):
    """A study whose run of width 96 is called what a branch of that of width 64 would be."""
    study = write_study(tmp_path / "study", Surface(), samples=False)

    def change(row):
        if row["run"] == "w0096-s0":
            row["run"] = "w0064-s0-cool-8"

    rewrite(study, change)
    return study


def test_branches_of_older_records_are_known_by_name(tmp_path):
    assert branches(load_study(named_like_a_branch(tmp_path))) == {"w0064-s0-cool-8": "w0064-s0"}


def test_branches_are_what_their_rows_say_whatever_they_are_called(tmp_path):
    study = named_like_a_branch(tmp_path)
    hashes = {run["run"]: run["config_hash"] for run in load_study(study).runs}

    def change(row):
        if row["kind"] == "run":
            row["branch"] = None
            if row["run"] == "w0128-s0":
                row["branch"] = {"config_hash": hashes["w0064-s0"], "images_seen": 8}
            if row["run"] == "w0192-s0":
                row["branch"] = {"config_hash": "of another study", "images_seen": 8}

    rewrite(study, change)
    loaded = load_study(study)
    assert branches(loaded) == {"w0128-s0": "w0064-s0", "w0192-s0": None}
    assert headline(analyse(loaded, draws=20))["runs"] == len(loaded.runs) - 2


def test_the_plan_knows_the_branches_of_older_records(tmp_path):
    study = named_like_a_branch(tmp_path)
    planned = [{"name": run["run"], "branch_of": None} for run in load_study(study).runs]
    planned[-1]["branch_of"] = "w0064-s0"
    (study / "plan.json").write_text(json.dumps({"runs": planned}))
    assert branches(load_study(study)) == {planned[-1]["name"]: "w0064-s0"}


def test_readings_of_different_units_share_no_axis(tmp_path):
    """A row of an older version is in the one unit that there was; another unit is refused by its name."""
    write_study(tmp_path, Surface())
    assert {row["unit"] for row in load_study(tmp_path).validation} == {
        "squared velocity error per dimension"
    }
    file = max(tmp_path.glob("runs/*/records.jsonl"))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        row |= {"unit": "nats per token"} if row["kind"] == "validation" else {}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=r"validation.unit: got \('nats per token'"):
        collect(load_study(tmp_path))
