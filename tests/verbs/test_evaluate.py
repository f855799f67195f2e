"""``dit evaluate``: sweeps that resume, images in every form, several processes, one page, bad input."""

import csv
import dataclasses
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from dit.config import evaluation
from dit.config.instantiation import config_dir
from dit.config.job import sample_measures
from dit.config.parts import Parts
from dit.config.samplings import Sampling
from dit.data.manifest import Manifest
from dit.errors import InputError
from dit.evaluation.images import write_folder, write_npz
from dit.verbs import evaluate
from tests.conftest import TINY, dit

FEW = ["n=24", "evaluation.batch_size=10", "protocols=[unguided]", "evaluation.grid.n_steps=3", "format=json"]
pytestmark = pytest.mark.filterwarnings(
    "ignore::dit.evaluation.metrics.MetricWarning"
)  # few images on purpose


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A trained run of 32x32 digits, in pixel space."""
    folder = tmp_path_factory.mktemp("evaluated")
    same = ["autoencoder=identity", f"data.directory={folder}/latents"]
    dit("encode", *same, cwd=folder, check=0)
    size = [setting for setting in TINY if not setting.startswith(("data.", "autoencoder"))]
    shape = ["network.patch_size=8", "duration.images=128", "evaluation=none", f"run_dir={folder}/run"]
    dit("train", *size, *same, *shape, cwd=folder, check=0)
    return folder / "run"


@pytest.fixture
def ask(capsys):
    """Asks in this process, which spares the imports; gives what was printed, as JSON where it is."""

    def asked(*settings: str):
        with initialize_config_dir(config_dir(), version_base="1.3"):
            cfg = compose("evaluate", list(settings))
        capsys.readouterr()
        evaluate.task(cfg)
        text = capsys.readouterr().out
        return json.loads(text) if text.startswith("{") else text

    return asked


@pytest.fixture
def measured(monkeypatch) -> list[dict]:
    """What was really measured, each time."""
    calls: list[dict] = []
    measure = evaluation.measure

    def counted(yardstick, sampling, denoiser, weights):
        calls.append(sampling.facts())
        return measure(yardstick, sampling, denoiser, weights)

    monkeypatch.setattr(evaluation, "measure", counted)
    return calls


SWEEP = ["sweep.guidance_scale=[1,2]", "sweep.solver=[euler,heun]", "sweep.seed=[0,1]"]


def test_a_sweep_that_was_killed_continues_and_measures_nothing_twice(
    run, ask, measured, tmp_path, monkeypatch
):
    command = [f"run={run}", *FEW, *SWEEP]
    whole = ask(*command, f"out={tmp_path}/whole")
    assert len(measured) == len(whole["evaluations"]) == 8
    measured.clear()
    add = evaluation.Journal.add

    def killed(self, request, rows):
        if len(measured) == 4:
            raise KeyboardInterrupt
        return add(self, request, rows)

    monkeypatch.setattr(evaluation.Journal, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        ask(*command, f"out={tmp_path}/parts")
    monkeypatch.setattr(evaluation.Journal, "add", add)
    with (tmp_path / "parts/evaluations.jsonl").open("a") as file:
        file.write('{"a row cut sh')
    measured.clear()
    assert ask(*command, f"out={tmp_path}/parts") == whole
    assert len(measured) == 5
    rows = [(tmp_path / name / "evaluations.jsonl").read_bytes() for name in ("whole", "parts")]
    assert rows[0] == rows[1]
    measured.clear()
    ask(*command, f"out={tmp_path}/parts", "sweep.seed=[0,1,2]")
    assert {call["seed"] for call in measured} == {2} and len(measured) == 4


def test_features_for_digits_are_doubted_where_the_run_drew_other_images(
    run, ask, tmp_path, monkeypatch, caplog
):
    command = [f"run={run}", *FEW, "protocols=[unguided]", f"out={tmp_path}"]
    ask(*command)
    assert "no extractor= was named" not in caplog.text
    read = Parts.manifest.func

    def of_a_folder(parts: Parts) -> Manifest:
        found = read(parts)
        return dataclasses.replace(found, content={**found.content, "source": {"kind": "folder"}})

    monkeypatch.setattr(Parts, "manifest", property(of_a_folder))
    ask(*command)
    assert "no extractor= was named" in caplog.text
    caplog.clear()
    ask(*command, "extractor=digits")
    assert "no extractor= was named" not in caplog.text


def test_an_extractor_of_another_size_is_refused_before_anything_is_drawn(
    run, ask, measured, tmp_path, monkeypatch
):
    read = Parts.manifest.func

    def of_small_pictures(parts: Parts) -> Manifest:
        found = read(parts)
        return dataclasses.replace(found, content={**found.content, "image_shape": [3, 8, 8]})

    monkeypatch.setattr(Parts, "manifest", property(of_small_pictures))
    with pytest.raises(InputError, match=r"evaluation\.extractor.*\(3, 8, 8\).*\(B, 3, 32, 32\)"):
        ask(f"run={run}", *FEW, f"out={tmp_path}")
    assert measured == []


def test_seeds_are_summarised_and_protocols_stand_beside(run, ask, tmp_path):
    found = ask(f"run={run}", *FEW, "sweep.seed=[0,1,2]", "subsets=[16]", f"out={tmp_path}")
    values = [row["frechet_distance"] for row in found["evaluations"] if row["n"] == 24]
    assert len(set(values)) == 3
    summary = next(row for row in found["over_seeds"] if row["n"] == 24)
    assert summary["frechet_distance"] == pytest.approx(np.mean(values))
    assert summary["frechet_distance_sd_over_seeds"] == pytest.approx(np.std(values, ddof=1))
    assert summary["protocol"]["seed"] == [0, 1, 2]
    alone = ask(f"run={run}", *FEW, "n=16", f"out={tmp_path}/alone")["evaluations"][0]
    part = next(row for row in found["evaluations"] if row["n"] == 16 and row["protocol"]["seed"] == 0)
    assert part["protocol"] == alone["protocol"]
    assert part["frechet_distance"] == pytest.approx(alone["frechet_distance"], rel=1e-5)
    assert {"reference", "solver", "nfe", "guidance", "labels", "weights", "precision", "decoder"} <= part[
        "protocol"
    ].keys()


def torchrun(processes: int, *arguments: str, cwd: Path) -> None:
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    subprocess.run(
        [sys.executable, *launch, "-m", "dit", *arguments],
        cwd=cwd,
        check=True,
        capture_output=True,
        timeout=120,
    )


@pytest.mark.slow
def test_two_processes_measure_and_draw_what_one_does(run, ask, tmp_path):
    command = [f"run={run}", *FEW, "metrics=[fid,kid]"]
    alone = ask(*command, f"out={tmp_path}/one")["evaluations"][0]
    torchrun(2, "evaluate", *command, f"out={tmp_path}/two", cwd=tmp_path)
    (shared,) = (json.loads(line) for line in (tmp_path / "two/evaluations.jsonl").read_text().splitlines())
    assert shared["protocol"] == alone["protocol"] and shared["grid"] == alone["grid"]
    for name in ("frechet_distance", "kernel_distance", "accuracy"):
        assert shared[name] == pytest.approx(alone[name], rel=1e-9), name
    draw = ["sample", f"run={run}", "n=13", "batch_size=4", "grid.n_steps=3", "save=npz"]
    dit(*draw, f"out={tmp_path}/a", cwd=tmp_path, check=0)
    torchrun(2, *draw, f"out={tmp_path}/b", cwd=tmp_path)
    for name in ("samples.npz", "grid.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Two sets of 30 pictures; the first in every form."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = torch.Generator().manual_seed(0)
    for name, low in (("set", 0), ("real", 60)):
        images = torch.randint(low, 256, (30, 3, 32, 32), dtype=torch.uint8, generator=generator)
        write_folder(folder / name, images.split(8))
        write_npz(folder / f"{name}.npz", [images], 30)
    write_folder(folder / "one", [images[:1]])
    (folder / "empty").mkdir()
    files = [{"bytes": path.read_bytes(), "path": path.name} for path in sorted((folder / "set").iterdir())]
    pq.write_table(pa.table({"image": files}), folder / "unlabelled.parquet")
    with zipfile.ZipFile(folder / "set.zip", "w") as archive:
        for path in sorted((folder / "set").iterdir()):
            archive.write(path, path.name)
    return folder


def test_images_of_every_form_against_images_and_their_statistics(pictures, ask, tmp_path):
    settings = [f"reference={pictures}/real", "metrics=[fid,kid,precision_recall]", "format=json"]
    found = [
        ask(f"images={pictures}/{name}", *settings)["evaluations"][0]
        for name in ("set", "set.npz", "set.zip", "unlabelled.parquet")
    ]
    for row in found:
        assert row["frechet_distance"] > 0 and row["protocol"]["rounding"] == "as stored"
        assert {**row, "run": "", "request": ""} == {**found[0], "run": "", "request": ""}
    assert ask(f"images={pictures}/real.npz", f"statistics={tmp_path}/real.npz", "metrics=[fid,kid]") == ""
    stored = [f"images={pictures}/set", f"reference={tmp_path}/real.npz", "metrics=[fid,kid]", "format=json"]
    row = ask(*stored, "n=20", f"out={tmp_path}")["evaluations"][0]
    assert row["n"] == 20 and row["protocol"]["reference"] == found[0]["protocol"]["reference"]
    assert (tmp_path / row["grid"]).is_file()
    whole = ask(*stored)["evaluations"][0]
    assert whole["frechet_distance"] == pytest.approx(found[0]["frechet_distance"], rel=1e-9)
    assert whole["kernel_distance"] == pytest.approx(found[0]["kernel_distance"], rel=1e-9)


def test_pictures_that_changed_under_their_names_are_measured_again(ask, tmp_path):
    """With names, sizes and times as they were: bitmaps of one shape, drawn anew."""
    generator = torch.Generator().manual_seed(0)

    def drawn(name: str, low: int) -> None:
        for number in range(12):
            picture = torch.randint(low, 256, (32, 32, 3), dtype=torch.uint8, generator=generator)
            path = tmp_path / name / f"{number:02d}.bmp"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(picture.numpy()).save(path)
            os.utime(path, ns=(10**18, 10**18))

    def measured(*settings: str) -> float:
        asked = [f"images={tmp_path}/set", f"reference={tmp_path}/real", f"out={tmp_path}/out", *settings]
        (row,) = ask(*asked, "format=json")["evaluations"]
        return row["frechet_distance"]

    drawn("set", 0), drawn("real", 60)
    first = measured()
    measured("metrics=[is]", "name=set")
    drawn("set", 60)
    second = measured()
    assert second != first and measured() == second
    drawn("real", 0)
    assert measured() not in (first, second)
    ask(f"report={tmp_path}/out")
    lines = (tmp_path / "out/evaluations.csv").read_text().splitlines()
    shown = list(csv.DictReader(lines))
    assert repr(first) not in [row["frechet_distance"] for row in shown]
    assert not any(row.get("inception_score") for row in shown if row["frechet_distance"]), (
        "of the pictures before"
    )


def test_weights_that_changed_under_their_clock_are_measured_again(run, ask, measured, tmp_path, monkeypatch):
    command = [f"run={run}", *FEW, f"out={tmp_path}"]
    ask(*command), ask(*command)
    assert len(measured) == 1
    load = evaluation.load_run

    def other(*arguments):
        loaded = load(*arguments)
        for parameter in loaded.denoiser.parameters():
            parameter.mul_(1.01)
        return loaded

    monkeypatch.setattr(evaluation, "load_run", other)
    ask(*command)
    assert len(measured) == 2


def test_the_page_gathers_evaluations_and_refuses_models_without_a_common_protocol(
    run, ask, pictures, tmp_path
):
    for name, weights in (("A", "ema"), ("B", "ema"), ("C", "raw")):
        ask(f"run={run}", *FEW, *SWEEP, f"name={name}", f"weights={weights}", f"out={tmp_path}/{name}")
    printed = ask(f"report={tmp_path}")
    page = (tmp_path / "report.html").read_text()
    assert printed.strip() == str(tmp_path / "report.html") and (tmp_path / "evaluations.csv").is_file()
    assert all(f"samples of {name}" in page for name in "ABC") and "Over guidance" in page
    assert "Over network calls" in page and len(re.findall("<svg", page)) > 1
    assert all(address.startswith("data:") for address in re.findall(r'(?:src|href)="([^"#]+)', page))
    ask(f"report={tmp_path}", "models=[A,B]")
    assert "samples of C" not in (tmp_path / "report.html").read_text()
    with pytest.raises(InputError, match=r"models A, C: protocol\.weights: got 'raw'; allowed: 'ema'"):
        ask(f"report={tmp_path}", "models=[A,C]")


@pytest.mark.parametrize(
    "settings, message",
    [
        (["images=set", "run=x"], "one of run=RUN"),
        (["images=set"], "reference, statistics"),
        (["images=absent", "reference=real"], "images: got 'absent'"),
        (["images=set", "reference=absent"], "reference: got 'absent'"),
        (["images=set", "reference=empty"], "reference: got 'empty'; allowed: images"),
        (["images=unlabelled.parquet", "reference=empty"], "reference: got 'empty'"),
        (["images=one", "reference=real"], "images: got (1 images"),
        (["images=set", "reference=one"], "reference: got (1 images"),
        (
            ["images=set", "reference=real", "subsets=[9]", "metrics=[is]"],
            "is: got (9 images); allowed: at least 10",
        ),
        (["images=set", "reference=real", "n=3", "metrics=[precision_recall]"], "at least 4 images"),
        (["images=set", "reference=real", "n=31"], "at most 30"),
        (["images=set", "reference=real", "metrics=[is_good]"], "evaluation.metrics: got 'is_good'"),
        (["images=set", "reference=real", "metrics=[sfid]"], "inception:FILE"),
        (["images=set", "reference=real", "extractor=inception:absent.pth"], "Download https://"),
        (["images=set", "reference=real", "extractor=vgg"], "evaluation.extractor: got 'vgg'"),
        (["report=nowhere"], "report: got 'nowhere'"),
        (["models=[a]", "images=set"], "models"),
        (
            ["images=set", "reference=real", "metrics=fd"],
            "metrics: got 'fd'; allowed: a list. Write metrics=[fd]",
        ),
        (["images=set", "reference=real", "subsets=5"], "subsets=[5]"),
        (["run=x", "protocols=guided"], "protocols=[guided]"),
        (["report=x", "models=w0016"], "models=[w0016]"),
        (["run=x", "sweep=3"], "sweep: got 3"),
    ],
)
def test_bad_requests_are_one_message(pictures, ask, settings, message, monkeypatch):
    monkeypatch.chdir(pictures)
    with pytest.raises(InputError) as caught:
        ask(*settings)
    assert message in str(caught.value)


def test_statistics_of_another_extractor_are_refused_before_anything_is_measured(
    pictures, ask, tmp_path, monkeypatch
):
    class Means(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.double().mean((2, 3))

    torch.jit.script(Means()).save(f"{tmp_path}/means.ts")
    means = f"extractor=torchscript:{tmp_path}/means.ts"
    ask(f"images={pictures}/real", f"statistics={tmp_path}/means.npz", means)
    monkeypatch.setattr("dit.evaluation.files.measure_images", lambda *_, **__: pytest.fail("measured"))
    with pytest.raises(InputError, match=r"reference: extractor: got 'torchscript-means'.*digits-classifier"):
        ask(f"images={pictures}/set", f"reference={tmp_path}/means.npz")


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in Path(config_dir(), "evaluation").glob("*.yaml"))
)
def test_every_evaluation_of_conf_composes_and_its_protocols_are_settings(name):
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("train", [f"evaluation={name}"])
    found = Sampling.read(cfg.evaluation) if cfg.evaluation.protocols else {}
    assert list(found) == list(cfg.evaluation.protocols)
    for protocol, sampling in found.items():
        assert sampling.varied(n_steps=7, guidance_scale=2, seed=3).facts()["grid"].count("n_steps=7") == 1
        assert cfg.evaluation.protocols[protocol].at in ("read_points", "end")


WRONG = ["solver@evaluation.solver=ddim", "evaluation.solver.eta=2.0"]


def test_what_a_solver_refuses_is_refused_before_anything_is_measured(run, ask, tmp_path):
    with pytest.raises(InputError, match=r"^solver.eta: got 2.0"):
        ask(f"run={run}", *FEW, *WRONG, f"out={tmp_path}/out")
    assert not (tmp_path / "out").exists()


def test_and_before_a_run_trains(run):
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("train", ["evaluation=digits", f"data.directory={run.parent}/latents", *WRONG])
    with pytest.raises(InputError, match=r"^solver.eta: got 2.0"):
        sample_measures(Parts(cfg), run, torch.device("cpu"))


def test_an_empty_list_of_a_sweep_is_refused(run, ask):
    with pytest.raises(InputError, match=r"guidance_scale: got .* at least one value"):
        ask(f"run={run}", *FEW, "sweep.guidance_scale=[]")
