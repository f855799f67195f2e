"""Files and names that may be a stranger's: what is read of them, and how they are shown."""

import csv
import io
import json
import logging
import os
import re
import subprocess
import time

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from dit.columns import PrintableFormatter, align, csv_text
from dit.config.files import read_yaml, to_yaml
from dit.errors import InputError, check_name
from dit.files import write_json
from dit.records import RecordWriter, check_prefix
from dit.rundir import is_done
from dit.study.files import read_plan
from dit.study.launches import Launches
from dit.study.ledger import Ledger
from dit.study.missing import lost, unread
from dit.study.records import load_study
from dit.trust import file_below, parse, picture_below, read_json
from tests.fits.synthetic import write_study


def flipped(data: bytes, place: int, bit: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


# -- JSON ----------------------------------------------------------------------------------------------------


def test_every_flipped_bit_of_a_json_file_is_found_or_changes_nothing(tmp_path):
    value = {"state": "done", "loss": 0.125, "images_seen": 4096, "job": None, "list": [1, 2.5, {"a": "é"}]}
    data = write_json(tmp_path / "good.json", value).read_bytes()
    file = tmp_path / "bad.json"
    found = 0
    for place in range(len(data)):
        for bit in range(8):
            file.write_bytes(flipped(data, place, bit))
            try:
                read = read_json(file)
            except InputError as error:
                found += str(file) in str(error)
            else:  # a blank that became another one, or the name of the seal itself
                assert {key: read[key] for key in value} == value, (place, bit)
    assert found > 0.9 * 8 * len(data)


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", "null", "[" * 10**5, '{"a": 1e', "\x00", '"text"'])
def test_what_is_no_object_is_one_message(text, tmp_path):
    (tmp_path / "status.json").write_text(text)
    with pytest.raises(InputError, match=r"status\.json"):
        read_json(tmp_path / "status.json")


def test_an_object_without_a_seal_is_read_as_it_is(tmp_path):
    (tmp_path / "by_hand.json").write_text('{"state": "done"}')
    assert read_json(tmp_path / "by_hand.json") == {"state": "done"}


# -- configurations -------------------------------------------------------------------------------------------

TWINS = "{1}: &{1} [*{0}, *{0}]\n"
BOMB = "a: &a [x, x]\n" + "".join(
    TWINS.format(*pair) for pair in zip("abcdefghijklmnopq", "bcdefghijklmnopqr")
)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a: ${oc.env:SECRET}", "interpolation"),
        ("a: {b: [1, 'x ${oc.env:SECRET} y']}", "interpolation"),
        ("${oc.env:SECRET}: 1", "interpolation"),
        ("a: ${b}\nb: 1", "interpolation"),
        (BOMB, "alias"),
        ("a: &x 1\nb: *x", "alias"),
        ("a: " + "[" * 500 + "]" * 500, "deep"),
        ("a: !!python/object/apply:os.getcwd []", "python"),
        ("- 1\n- 2", "config"),
        ("just text", "config"),
        ("a: [", "config"),
        ("a: 1\n" * 300000, "bytes"),
    ],
)
def test_a_configuration_that_is_read_holds_plain_values_alone(text, word, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    (tmp_path / "config.yaml").write_text(text)
    begun = time.monotonic()
    with pytest.raises(InputError, match=word) as error:
        read_yaml(tmp_path / "config.yaml")
    assert "hunter2" not in str(error.value)
    assert time.monotonic() - begun < 5


def test_configurations_are_resolved_when_written_and_sealed(tmp_path, monkeypatch):
    monkeypatch.setenv("PLACE", "here")
    cfg = OmegaConf.create({"a": "${oc.env:PLACE}", "b": "${a}/x", "lr": 1e-4, "list": [1, None]})
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(cfg))
    assert OmegaConf.to_container(read_yaml(file)) == {
        "a": "here",
        "b": "here/x",
        "lr": 1e-4,
        "list": [1, None],
    }
    file.write_text(file.read_text().replace("0.0001", "0.0002"))
    with pytest.raises(InputError, match="seal"):
        read_yaml(file)
    changed = file.read_text()
    file.write_text(to_yaml(cfg).rpartition("list:")[0])  # whole lines, but not all
    with pytest.raises(InputError, match="seal"):
        read_yaml(file)
    file.write_text(changed)
    file.write_text(re.sub("# seal.*", "", file.read_text()))  # as somebody does who means it
    assert read_yaml(file).lr == 2e-4


# -- records --------------------------------------------------------------------------------------------------


def test_a_changed_digit_of_the_records_is_found_by_their_prefix(tmp_path):
    file = tmp_path / "records.jsonl"
    with RecordWriter(file) as writer:
        writer.append({"kind": "train", "run": "a", "loss": 0.25})
        known = writer.prefix()
        writer.append({"kind": "train", "run": "a", "loss": 0.5})
    assert check_prefix(file, known), "more rows are no harm"
    data = file.read_bytes()
    file.write_bytes(data.replace(b"0.25", b"0.26"))
    with pytest.raises(InputError, match="SHA-256"):
        check_prefix(file, known)
    file.write_bytes(data[:20])
    assert not check_prefix(file, known)
    with RecordWriter(file) as writer:  # opened again, and cut back
        assert writer.prefix()["bytes"] == 0
        writer.append({"kind": "train", "run": "a", "loss": 0.25})
        assert writer.prefix() == known
        end = writer.append({"kind": "train", "run": "a", "loss": 0.75})
        writer.truncate_to(known["bytes"])
        assert end > writer.offset and writer.prefix() == known


@pytest.fixture
def study(tmp_path):
    return write_study(tmp_path / "study", samples=False)


def with_prefixes(study):
    """As runs leave them: what their records were when they ended."""
    for file in study.glob("runs/*/records.jsonl"):
        with RecordWriter(file) as writer:
            write_json(file.with_name("status.json"), {"state": "done", "records": writer.prefix()})


def test_a_study_finds_a_changed_digit_and_names_what_was_cut(study):
    with_prefixes(study)
    assert load_study(study).torn == ()
    one, other = sorted(study.glob("runs/*/records.jsonl"))[:2]
    data = one.read_bytes()
    one.write_bytes(data[: data.rstrip(b"\n").rfind(b"\n") + 1])  # whole rows, but not all
    assert load_study(study).torn == (str(one.relative_to(study)),)
    one.write_bytes(data)
    place = other.read_bytes().rfind(b'"loss":0.') + len(b'"loss":0.')
    other.write_bytes(flipped(other.read_bytes(), place, 0))
    found = load_study(study)
    assert "SHA-256" in found.damaged[str(other.relative_to(study))]
    assert other.parent.name not in {run["run"] for run in found.runs}


@pytest.mark.parametrize("run", ["../../elsewhere", "a/b", "..", "", 7, None])
def test_a_run_in_the_records_names_no_other_folder(run, study):
    file = next(study.glob("runs/*/records.jsonl"))
    row = json.loads(file.read_text().splitlines()[0])
    file.write_text(json.dumps({**row, "run": run}) + "\n")
    found = load_study(study)
    assert "run: " in found.damaged[str(file.relative_to(study))]
    assert run not in {row["run"] for row in found.runs}


def test_a_damaged_file_hides_no_other_run_from_a_reader_who_is_told(study, caplog):
    with_prefixes(study)
    one, other = sorted(study.glob("runs/*/records.jsonl"))[:2]
    place = one.read_bytes().rfind(b'"loss":0.') + len(b'"loss":0.')
    one.write_bytes(flipped(one.read_bytes(), place, 0))
    with other.open("a") as file:
        file.write('{"schema": 1, "kind": "oddity"}\n')
    (study / "plan.json").write_text('{"runs": 3}')
    (other.parent / "evaluations.jsonl").write_text("[]\n")
    found = load_study(study)
    names = {file.parent.name for file in study.glob("runs/*/records.jsonl")}
    assert {run["run"] for run in found.runs} == names - {one.parent.name, other.parent.name}
    files = {one, other, study / "plan.json", other.parent / "evaluations.jsonl"}
    assert {study / file for file in found.damaged} == files
    assert all(str(file.relative_to(study)) in caplog.text for file in files)
    assert "SHA-256" in lost(found)[one.parent.name] and "oddity" in lost(found)[other.parent.name]
    assert {*unread(found)} == {"plan.json", f"runs/{other.parent.name}/evaluations.jsonl"}


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("run", "study", "\x1b[2J"),
        ("run", "run", "a\x1b[2J"),
        ("run", "run", "-rf"),
        ("run", "data", {"n_train": "many"}),
        ("run", "n_params_by_group", {"a": "x"}),
        ("run", "branch", {"config_hash": []}),
        ("validation", "loss_bins", ["a", {}]),
        ("validation", "log_snr_edges", [None]),
        ("samples", "accuracy", "high"),
        ("samples", "protocol", {"n": "x"}),
        ("samples", "protocol", {"n": 0}),
        ("samples", "protocol", {"nfe": [1]}),
    ],
)
def test_rows_hold_nothing_that_figures_and_pages_cannot_take(kind, key, value, tmp_path):
    study = write_study(tmp_path / "study", widths=(32,), budgets=(1e12,))
    (file,) = study.glob("runs/*/records.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    bad = [{**row, key: value} if row["kind"] == kind else row for row in rows]
    load_study(study)
    file.write_text("".join(json.dumps(row) + "\n" for row in bad))
    with pytest.raises(InputError, match=rf"records\.jsonl:\d+: {key}"):
        load_study(study)


def test_status_of_a_damaged_plan_shows_the_runs_that_have_begun(study, caplog):
    with_prefixes(study)
    plan = study / "plan.json"
    write_json(plan, {"runs": []})
    plan.write_bytes(plan.read_bytes().replace(b"[]", b"[1]"))
    with pytest.raises(InputError, match="seal"):
        Ledger(study).entries()  # who launches runs needs the plan
    names = {file.parent.name for file in study.glob("runs/*/records.jsonl")}
    assert {entry.name for entry in Ledger(study).shown()} == names
    assert "plan.json" in caplog.text


# -- a study's files ------------------------------------------------------------------------------------------

RUN = {"name": "w8", "flops": 1.0, "readings": [{"images": 64, "budget_flops": 1.0}]}


@pytest.mark.parametrize(
    "runs",
    [
        None, 3, {}, [3], [None], [{}], [{**RUN, "name": "../x"}], [{**RUN, "name": None}],
        [{**RUN, "flops": "much"}], [{**RUN, "readings": []}], [{**RUN, "readings": [1]}],
        [{**RUN, "readings": [{"images": 0, "budget_flops": 1}]}],
        [{**RUN, "readings": [{"images": "64", "budget_flops": 1}]}], [{**RUN, "branch_of": 3}],
    ],
)  # fmt: skip
def test_a_plan_of_another_kind_is_one_message(runs, tmp_path):
    (tmp_path / "plan.json").write_text(json.dumps({"runs": runs}))
    with pytest.raises(InputError, match=r"plan\.json"):
        read_plan(tmp_path)
    with pytest.raises(InputError, match=r"plan\.json"):
        Ledger(tmp_path).entries()


BAD = [
    "", "[]", "3", '{"state": 3}', "{}", '{"state": "sleeping"}', '{"state": "running", "heartbeat": "now"}',
    '{"state": "done", "images_seen": [1]}', '{"state": "running", "heartbeat": 1e999, "pid": "x"}', "\xff",
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
def test_one_bad_status_leaves_the_others_shown(bad, tmp_path):
    runs = [{**RUN, "name": name} for name in ("good", "bad")]
    write_json(tmp_path / "plan.json", {"runs": runs})
    for name in ("good", "bad"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        write_json(tmp_path / "runs" / name / "status.json", {"state": "done", "images_seen": 64})
    (tmp_path / "runs/bad/status.json").write_bytes(bad.encode("latin-1"))
    good, damaged = Ledger(tmp_path).entries()
    assert (good.state, damaged.state) == ("done", "unreadable")
    assert "status.json" in damaged.reason and not damaged.held
    write_json(tmp_path / "runs/bad/environment.json", {"config_hash": "x"})
    assert not is_done(tmp_path / "runs/bad", "x")


@pytest.mark.parametrize("missing", ["host", "pid", "heartbeat", "images_seen", "total_images"])
@pytest.mark.parametrize("state", ["running", "done", "stopped", "failed"])
def test_a_status_may_lack_a_field(state, missing, tmp_path):
    write_json(tmp_path / "plan.json", {"runs": [RUN]})
    whole = {"state": state, "host": "h", "pid": 1, "heartbeat": 1.0, "images_seen": 64, "total_images": 64}
    (tmp_path / "runs/w8").mkdir(parents=True)
    write_json(tmp_path / "runs/w8/status.json", {key: whole[key] for key in whole if key != missing})
    (entry,) = Ledger(tmp_path).entries()
    assert entry.state in ("running", "done", "stopped", "failed", "stale", "queued")


def test_a_launch_that_is_damaged_or_names_another_file_is_passed_over(tmp_path):
    launches = Launches(tmp_path)
    good = launches.begin("study", ["w8"], slurm=False)
    write_json(tmp_path / "launches/evil.json", {**vars(good), "runs": ["w8"], "name": "../plan"})
    (tmp_path / "launches/torn.json").write_text('{"name": "torn", ')
    assert launches.all() == [good]


# -- names ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["digits", "é (a) = #1 [b] {c}", 'it\'s "quoted"', "$HOME `ls` $(ls)", "a,b;c", "+1"]
)
def test_names_may_hold_most_signs(name):
    check_name("study.name", name)


@pytest.mark.parametrize(
    "name", ["..", ".", ".x", "a/b", "/etc", "", "-rf", "a\nb", "a\x00", "a\x1b[2J", " a", "x" * 201, 3]
)
def test_names_that_lead_elsewhere_or_break_lines_are_refused(name):
    with pytest.raises(InputError, match=r"study\.name"):
        check_name("study.name", name)


@pytest.mark.parametrize("name", ["a\n#SBATCH --wrap=x", "$(touch x)", "`id`", "a b;c", "é"])
def test_a_launch_is_named_for_batch_scripts(name, tmp_path):
    """A batch script holds the name in a comment line that SLURM and bash read; a shell must see one plain word."""
    launch = Launches(tmp_path).begin(name, ["w8"], slurm=True)
    said = subprocess.run(
        ["bash", "-c", f"echo {launch.name}"], capture_output=True, text=True, check=True
    ).stdout
    assert said == f"{launch.name}\n" and re.fullmatch(r"dit-[A-Za-z0-9._-]+", launch.name)


@pytest.mark.parametrize("text", ["=1+1", "+1+1", "-cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_cell_of_a_csv_is_a_formula(text):
    """OWASP, CSV Injection: cells must not begin with = + - @ tab or carriage return."""
    (cells,) = csv.reader(io.StringIO(csv_text([[text, "-0.5", -0.5, None, "w8"]]), newline=""))
    assert cells == [f"'{text}".replace("\r", " "), "-0.5", "-0.5", "", "w8"]


def test_a_table_on_a_terminal_obeys_no_name():
    assert "\x1b" not in align([["run"], ["\x1b[2Jgone"]])


# -- paths that a file names -------------------------------------------------------------------------------------


def test_pictures_are_png_below_their_directory(tmp_path):
    run = tmp_path / "run"
    (run / "samples").mkdir(parents=True)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(run / "samples/a.png")
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "outside.png")
    (run / "secret.png").write_text("root:x:0:0")
    (run / "link.png").symlink_to(tmp_path / "outside.png")
    (run / "loop.png").symlink_to(run / "loop.png")
    huge = (run / "samples/a.png").read_bytes()
    (run / "huge.png").write_bytes(huge[:16] + b"\xff" * 8 + huge[24:])
    os.mkfifo(run / "pipe.png")
    assert picture_below(run, "samples/a.png") == run / "samples/a.png"
    assert file_below(run, "secret.png") is not None
    elsewhere = ["/etc/passwd", "../outside.png", str(tmp_path / "outside.png"), "link.png", "loop.png"]
    for name in (
        *elsewhere,
        "secret.png",
        "huge.png",
        "pipe.png",
        "samples",
        "",
        None,
        3,
        "a\0b",
        "x" * 5000,
    ):
        assert picture_below(run, name) is None, name


# -- what terminals, tables and arrays take -------------------------------------------------------------------


HALF_PAIRS = [r'"\ud800"', r'["\uDC00x"]', b'"\xed\xa0\x80"']


@pytest.mark.parametrize(
    "text", ["NaN", "-Infinity", "1e999", "9" * 400, str(2**63), "9" * 5000, *HALF_PAIRS]
)
def test_values_that_cannot_be_computed_with_or_written_are_no_json(text):
    """They ended in OverflowError or UnicodeEncodeError, wherever they were used first."""
    with pytest.raises(InputError, match=r"records\.jsonl:3"):
        parse(text, "records.jsonl:3")


@pytest.mark.parametrize("text", [str(2**63 - 1), str(-(2**63)), "1e300", r'"\ud83d\ude00"', '"é"'])
def test_all_others_are(text):
    assert parse(text, "here") == json.loads(text)


def test_messages_and_log_lines_hold_nothing_that_a_terminal_obeys():
    wipe = "\x1b[2J\x9b31m\u202egpj"
    error = InputError(f"{wipe}: key", f"({wipe})", f"one of {wipe}", "two\nlines")
    record = logging.LogRecord("dit", logging.INFO, "", 0, "class %s\nnext", (wipe,), None)
    for text in (str(error), PrintableFormatter("%(message)s").format(record)):
        assert "\n" in text and text.replace("\n", "").isprintable()


def test_formulas_in_the_wide_forms_of_their_signs_are_texts():
    assert csv_text([["＝1+1", "－1", "＠x", "＋x"]]) == "'＝1+1,'－1,'＠x,'＋x\n"
