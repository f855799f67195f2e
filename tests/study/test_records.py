"""Records: written so that a kill loses at most the last line, read so that nothing wrong passes unseen."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from dit.errors import InputError
from dit.records import RecordWriter, encode, readings
from dit.study.records import load_study
from tests.fits.synthetic import Surface, run_row, write_study


def train_row(images: int, loss: float = 1.0, run: str = "a") -> dict:
    return {"kind": "train", "run": run, "images_seen": images, "train_flops": 6.0 * images, "loss": loss}


def one_run(directory: Path, *rows: dict, run: str = "a") -> Path:
    with RecordWriter(directory / "runs" / run / "records.jsonl") as out:
        out.append(run_row(Surface(), 64, 0, run))
        for row in rows:
            out.append(row)
    return directory


def test_each_row_is_one_line_of_json_with_sorted_keys(tmp_path):
    with RecordWriter(tmp_path / "r.jsonl") as out:
        offsets = [out.append(train_row(8)), out.append(train_row(16))]
    content = (tmp_path / "r.jsonl").read_bytes()
    lines = content.splitlines(keepends=True)
    assert offsets == [len(lines[0]), len(content)]
    for line in lines:
        row = json.loads(line)
        assert list(row) == sorted(row)
        assert row["schema"] == 1


def test_equal_rows_give_equal_bytes_whatever_the_order_of_their_keys():
    row = train_row(8)
    assert encode(row) == encode(dict(reversed(list(row.items()))))


def test_numpy_numbers_and_tuples_are_written_as_plain_json():
    line = encode(train_row(8) | {"loss": np.float32(0.5), "bins": (np.float64(1), np.int64(2))})
    assert json.loads(line)["loss"] == 0.5
    assert json.loads(line)["bins"] == [1.0, 2]


def test_numbers_that_are_not_finite_become_null_and_are_named():
    line = encode(train_row(8, float("nan")) | {"loss_bins": [1.0, float("inf"), -float("inf")]})
    row = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert row["loss"] is None
    assert row["loss_bins"] == [1.0, None, None]
    assert row["non_finite"] == {"loss": "nan", "loss_bins.1": "inf", "loss_bins.2": "-inf"}


@pytest.mark.parametrize("wrong", [{"kind": "loss"}, {"run": ""}, {"run": None}])
def test_a_row_without_kind_or_run_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        encode(train_row(8) | wrong)


def test_truncate_to_drops_what_was_written_behind_the_offset(tmp_path):
    with RecordWriter(tmp_path / "r.jsonl") as out:
        keep = out.append(train_row(8))
        out.append(train_row(16))
        out.truncate_to(keep)
        out.append(train_row(24))
    assert [json.loads(line)["images_seen"] for line in (tmp_path / "r.jsonl").read_text().splitlines()] == [
        8,
        24,
    ]


def test_truncate_inside_a_row_or_behind_the_end_is_refused(tmp_path):
    with RecordWriter(tmp_path / "r.jsonl") as out:
        end = out.append(train_row(8))
        for offset in (end - 1, end + 1, -1):
            with pytest.raises(InputError, match=f"byte {offset}"):
                out.truncate_to(offset)


@pytest.mark.parametrize("damage", [b'{"kind":"validation",', b'\xff"kind":"validation"'])
def test_a_row_that_is_no_json_is_refused_by_the_run_itself(tmp_path, damage):
    path = tmp_path / "records.jsonl"
    path.write_bytes(damage + b"\n" + encode({"kind": "event", "run": "a"}))
    with pytest.raises(InputError, match=r"records\.jsonl"):
        readings(path)
    with RecordWriter(path) as out, pytest.raises(InputError, match=r"records\.jsonl"):
        list(out.rows())


def test_opening_drops_a_torn_last_line(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(encode(train_row(8)) + b'{"kind":"train","lo' + b"x" * 100_000)
    with RecordWriter(path) as out:
        out.append(train_row(16))
    assert [json.loads(line)["images_seen"] for line in path.read_text().splitlines()] == [8, 16]


def test_rows_appended_before_a_kill_are_on_disk(tmp_path):
    path = tmp_path / "r.jsonl"
    program = f"""
        import os, signal
        from dit.records import RecordWriter
        out = RecordWriter({str(path)!r})
        for k in range(5):
            out.append({{"kind": "train", "run": "a", "images_seen": k, "train_flops": k, "loss": 1.0}})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], cwd=Path(__file__).parents[2])
    assert done.returncode == -signal.SIGKILL
    assert len(path.read_text().splitlines()) == 5


def test_a_study_is_read_back_as_it_was_written(tmp_path):
    study = load_study(write_study(tmp_path / "s"))
    surface = Surface()
    assert [run["network"]["width"] for run in study.runs] == list(surface.widths)
    readings = len(surface.widths) * len(surface.budgets)
    assert (len(study.validation), len(study.samples), len(study.train)) == (
        2 * readings,
        2 * readings,
        3 * readings,
    )
    assert study.name == "synthetic" and study.plan["budgets_flops"] == list(surface.budgets)
    assert study.statuses["w0064-s0"] == {"state": "done"}
    assert study.run("w0064-s0")["macs_per_token"] == surface.macs_per_token(64)


def test_one_file_with_all_runs_reads_as_the_same_study(tmp_path):
    study = load_study(write_study(tmp_path / "s"))
    joined = b"".join(file.read_bytes() for file in sorted((tmp_path / "s/runs").glob("*/records.jsonl")))
    (tmp_path / "one").mkdir()
    (tmp_path / "one/records.jsonl").write_bytes(joined)
    assert load_study(tmp_path / "one").rows == study.rows


def test_a_torn_last_line_is_left_out_and_named(tmp_path):
    one_run(tmp_path, train_row(8))
    with open(tmp_path / "runs/a/records.jsonl", "ab") as file:
        file.write(encode(train_row(16))[:-1])
    study = load_study(tmp_path)
    assert len(study.train) == 1
    assert study.torn == ("runs/a/records.jsonl",)


def test_a_bad_line_in_the_middle_is_an_error_with_file_and_line(tmp_path):
    one_run(tmp_path, train_row(8))
    file = tmp_path / "runs/a/records.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + b'{"torn\n' + lines[1])
    with pytest.raises(InputError, match=r"runs/a/records\.jsonl:2"):
        load_study(tmp_path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"schema": 2}, "schema"),
        ({"kind": "metric"}, "kind"),
        ({"images_seen": "8"}, "images_seen"),
        ({"images_seen": True}, "images_seen"),
        ({"images_seen": -8}, "images_seen"),
        ({"loss": [1.0]}, "loss"),
    ],
)
def test_a_field_of_the_wrong_type_is_named_with_its_line(tmp_path, change, named):
    one_run(tmp_path)
    with open(tmp_path / "runs/a/records.jsonl", "a") as file:
        file.write(json.dumps({"schema": 1, **train_row(8), **change}) + "\n")
    with pytest.raises(InputError, match=rf"records\.jsonl:2: .*{named}"):
        load_study(tmp_path)


def test_a_missing_field_is_named(tmp_path):
    row = train_row(8)
    del row["train_flops"]
    one_run(tmp_path, row)
    with pytest.raises(InputError, match=r":2: train_flops.*nothing"):
        load_study(tmp_path)


def test_a_size_that_fits_divide_by_must_be_positive(tmp_path):
    with RecordWriter(tmp_path / "runs/a/records.jsonl") as out:
        out.append(run_row(Surface(), 64, 0, "a") | {"macs_per_token": 0})
    with pytest.raises(InputError, match="macs_per_token"):
        load_study(tmp_path)


def test_the_same_measurement_twice_is_an_error(tmp_path):
    one_run(tmp_path, train_row(8), train_row(16), train_row(8))
    with pytest.raises(InputError, match=r"records\.jsonl:4.*records\.jsonl:2"):
        load_study(tmp_path)


def test_a_copied_run_is_an_error(tmp_path):
    one_run(tmp_path)
    (tmp_path / "runs/copy").mkdir()
    content = (tmp_path / "runs/a/records.jsonl").read_bytes()
    (tmp_path / "runs/copy/records.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=r"runs/copy/records\.jsonl:1.*same run"):
        load_study(tmp_path)


def test_a_renamed_copy_of_a_run_is_an_error_too(tmp_path):
    one_run(tmp_path)
    with RecordWriter(tmp_path / "runs/b/records.jsonl") as out:
        out.append(run_row(Surface(), 64, 0, "a") | {"run": "b"})
    with pytest.raises(InputError, match="same run"):
        load_study(tmp_path)


def test_measurements_without_their_run_are_an_error(tmp_path):
    one_run(tmp_path, train_row(8, run="ghost"))
    with pytest.raises(InputError, match="ghost"):
        load_study(tmp_path)


def test_a_directory_without_records_is_an_error_and_an_empty_run_is_not(tmp_path):
    with pytest.raises(InputError, match=r"records\.jsonl"):
        load_study(tmp_path)
    one_run(tmp_path)
    (tmp_path / "runs/b").mkdir()
    (tmp_path / "runs/b/records.jsonl").touch()
    assert len(load_study(tmp_path).runs) == 1


def test_a_file_on_a_full_disk_keeps_its_whole_rows(tmp_path, monkeypatch):
    with RecordWriter(tmp_path / "r.jsonl") as out:
        out.append(train_row(8))
        real = os.write
        monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:10]))
        with pytest.raises(OSError, match="10 of"):
            out.append(train_row(16))
        monkeypatch.undo()
        out.append(train_row(24))
    assert [json.loads(line)["images_seen"] for line in (tmp_path / "r.jsonl").read_text().splitlines()] == [
        8,
        24,
    ]
