"""The command line as a contract: verbs, exit codes, one clear message for each kind of wrong input."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from dit.cli import VERBS
from tests.conftest import TINY, dit

ROOT = Path(__file__).resolve().parents[2]


def run_in_process(arguments, tmp_path, monkeypatch, capsys):
    """The exit code and stderr of ``dit ...``, in this process: torch is imported once for all cases."""
    from hydra.core.global_hydra import GlobalHydra

    from dit import cli

    monkeypatch.chdir(tmp_path)
    GlobalHydra.instance().clear()
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    return end.value.code, capsys.readouterr().err


def test_help_lists_every_verb(tmp_path):
    found = dit("--help", cwd=tmp_path, check=0)
    assert all(f"\n  {verb} " in found.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_its_app_and_its_configuration(verb, tmp_path):
    found = dit(verb, "--cfg", "job", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert ":" in found.stdout


def test_help_of_a_verb_names_the_file_that_explains_its_settings(tmp_path):
    found = dit("plan", "--help", cwd=tmp_path, check=0)
    assert "conf/plan.yaml" in found.stdout.splitlines()[0] and "budgets_flops" in found.stdout


@pytest.mark.parametrize(
    "arguments", [("--help",), ("plan", "experiment=digits"), ("fit", "--help"), ("status", "--cfg", "job")]
)
def test_planning_and_help_import_no_torch(arguments, tmp_path):
    script = (
        "import sys, dit.cli\n"
        "try: dit.cli.main(sys.argv[1:])\n"
        "except SystemExit as end: assert end.code in (0, None), end.code\n"
        "heavy = {'torch', 'lightning', 'diffusers', 'wandb', 'timm'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    import subprocess

    found = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr


def test_json_is_one_document_and_nothing_else(tmp_path):
    plan = json.loads(dit("plan", "experiment=digits", "format=json", cwd=tmp_path, check=0).stdout)
    assert len(plan["runs"]) >= 6
    for run in plan["runs"]:
        for reading in run["readings"]:
            assert abs(reading["flops"] / reading["budget_flops"] - 1) <= 0.01
    sizes = [run["macs_per_image"] for run in plan["runs"]]
    assert max(sizes) / min(sizes) >= 30
    count = json.loads(dit("count", "network=dit_xl_2", "format=json", cwd=tmp_path, check=0).stdout)
    assert count["n_params_with_position_table"] == 675_129_632  # DiT's published XL/2


def test_a_sweep_may_be_asked_for_among_the_settings(tmp_path, monkeypatch, capsys):
    sweep = ["count", "network=dit_s_2", "-m", "batch_size=1,2", "format=json"]
    assert run_in_process(sweep, tmp_path, monkeypatch, capsys)[0] in (0, None)


WRONG = {
    "unknown key": (["train", "batch_sise=3"], "batch_sise"),
    "wrong type": (["train", *TINY, "batch_size=many"], "batch_size"),
    "impossible patch size": (["train", *TINY, "network.patch_size=3"], "network.patch_size"),
    "missing data": (["train", *TINY, "data.directory=nowhere"], "data.directory"),
    "latents that are mirrored otherwise": (["train", *TINY, "data.flip=true"], "flip: False -> True"),
    "latents that are split otherwise": (["train", *TINY, "data.split.count=99"], "'count': 99"),
    "a plan for another size": (
        ["plan", "experiment=digits", *TINY, "data.image_size=16"],
        "image_size: 8 -> 16",
    ),
    "a study in a folder by its name": (
        ["study", "experiment=digits", "study.name=a/b"],
        "study.name: got 'a/b'",
    ),
    "a ladder in words": (["plan", "experiment=digits", "network.aspect=abc"], "network.aspect: got 'abc'"),
    "no list of budgets": (
        ["plan", "experiment=digits", "study.budgets_flops=null"],
        "study.budgets_flops: nothing was given",
    ),
    "a shape, no list": (["count", "input_shape=4"], "input_shape=[4]"),
    "no place for data": (
        ["plan", "experiment=digits", "data.directory=null"],
        "data.directory: nothing was given",
    ),
    "a pilot that is not there": (["plan", "experiment=digits", "study.pilot=x"], "study.pilot: got 'x'"),
    "no latents to verify": (["encode", "verify=x"], "verify: got 'x'"),
    "a study that is a file": (["status", "study.directory=/etc/hostname"], "study.directory: got"),
    "a study in a list": (["study", "experiment=digits", "study.directory=[a]"], "study.directory: got"),
    "a checkpoint that is a number": (["train", *TINY, "branch_from=1"], "branch_from: got '1'"),
    "a reading, no list": (["train", *TINY, "read_at_flops=1e9"], "read_at_flops=[1000000000.0]"),
    "readings in words": (["train", *TINY, "read_at_flops=all"], "read_at_flops: got 'all'"),
    "processes in words": (["train", *TINY, "hardware.processes=two"], "hardware.processes: got 'two'"),
    "processes in words, of no training": (
        ["sample", "run=x", "hardware.processes=null"],
        "hardware.processes: nothing was given",
    ),
    "metrics, no list": (
        ["train", *TINY, "evaluation=digits", "evaluation.metrics=fd"],
        "evaluation.metrics: got 'fd'",
    ),
    "draws of the validation": (["train", *TINY, "validation.seed=-1"], "validation.seed: got -1"),
    "samples of an average that is not there": (
        ["train", *TINY, "evaluation=digits", "sample_weights=emma"],
        "one of raw, ema",
    ),
    "a protocol that the experiment changes and evaluation=none has not": (
        ["study", "experiment=digits", "evaluation=none", "+evaluation.protocols.unguided.n=9"],
        "~evaluation.protocols.unguided",
    ),
    "protocols in a word": (["train", *TINY, "evaluation.protocols=all"], "evaluation.protocols: got 'all'"),
    "samples at no time": (
        ["train", *TINY, "evaluation=digits", "evaluation.protocols.guided.at=never"],
        "evaluation.protocols.guided.at: got 'never'",
    ),
    "unwritable directory": (["train", *TINY, "run_dir=/proc/run"], "run_dir"),
    "a folder that cannot be written": (["export", "run=x", "out=/proc/x.safetensors"], "out: got '/proc'"),
    "a budget, no list": (["plan", "experiment=digits", "study.budgets_flops=1e12"], "study.budgets_flops=["),
    "hours, no list": (
        ["plan", "experiment=digits", "study.budgets_gpu_hours=1"],
        "study.budgets_gpu_hours=[1]",
    ),
    "a width, no list": (["study", "experiment=digits", "study.widths=32"], "study.widths=[32]"),
    "negative budget": (["plan", "experiment=digits", "study.budgets_flops=[-1e9]"], "study.budgets_flops"),
    "two units for one duration": (["train", *TINY, "duration.images=640", "duration.steps=9"], "duration"),
    "unknown objective": (["train", "objective=magic"], "rectified_flow"),
    "NaN learning rate": (["train", *TINY, "optimizer.lr=.nan"], "optimizer.lr"),
    "a target outside the project": (["train", *TINY, "+network._target_=os.system"], "os.system"),
    "unknown verb": (["trian"], "trian"),
    "no such run": (["sample", "run=nowhere"], "run"),
    "processes where nothing is trained": (["sample", "run=x", "hardware.processes=2"], "torchrun"),
    "data without a place": (
        ["encode", "data=folder", "data.name=pets", "autoencoder=identity"],
        "data.source.path=...",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_message_and_exit_2(case, tmp_path, tiny_latents, monkeypatch, capsys):
    arguments, named = WRONG[case]
    if "data.directory=nowhere" not in arguments and TINY[0] in arguments:
        arguments = [*arguments, f"data.directory={tiny_latents}"]
    if case == "a target outside the project":
        arguments = [argument.replace("+network._target_", "network._target_") for argument in arguments]
    code, message = run_in_process(arguments, tmp_path, monkeypatch, capsys)
    assert code == 2, message
    assert named in message and "Traceback" not in message
    assert len(message.strip().splitlines()) == 1, message


def test_a_corrupted_shard_is_one_message_and_exit_2(tmp_path, tiny_latents, monkeypatch, capsys):
    copy = tmp_path / "latents"
    shutil.copytree(tiny_latents, copy)
    shard = next(copy.rglob("*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    arguments = ["train", *TINY, f"data.directory={copy}", "duration.images=64"]
    code, message = run_in_process(arguments, tmp_path, monkeypatch, capsys)
    assert code == 2 and shard.name in message and "Traceback" not in message


def test_a_run_directory_of_another_configuration_is_refused(tmp_path, tiny_latents, monkeypatch, capsys):
    run = ["train", *TINY, f"data.directory={tiny_latents}", "run_dir=run", "duration.images=64"]
    assert run_in_process(run, tmp_path, monkeypatch, capsys)[0] in (0, None)
    before = (tmp_path / "run/records.jsonl").read_bytes()
    code, message = run_in_process([*run, "optimizer.lr=0.5"], tmp_path, monkeypatch, capsys)
    assert code == 2 and "run_dir" in message
    assert (tmp_path / "run/records.jsonl").read_bytes() == before


def test_every_yaml_of_a_group_composes(tmp_path):
    from hydra import compose, initialize_config_dir

    from dit.config.instantiation import config_dir

    groups = (
        "data",
        "autoencoder",
        "network",
        "objective",
        "optimizer",
        "averages",
        "evaluation",
        "logger",
        "experiment",
    )
    with initialize_config_dir(config_dir(), version_base="1.3"):
        for group in groups:
            for file in sorted((Path(config_dir()) / group).glob("[!_]*.yaml")):
                assert compose("train", overrides=[f"{group}={file.stem}"])


def test_an_ordinary_sweep_runs_on_the_local_launcher(tmp_path, tiny_latents):
    settings = [f"data.directory={tiny_latents}", "duration.images=128", "evaluation=none"]
    dit("train", "-m", *TINY, *settings, "seed=0,1", "hydra/launcher=local", cwd=tmp_path, check=0)
    runs = list((tmp_path / "runs").glob("train-*/records.jsonl"))
    assert len(runs) == 2 and runs[0].read_bytes() != runs[1].read_bytes()


def test_jobs_that_slurm_refuses_are_one_message(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    for command in ("sbatch", "srun"):  # submitit looks for the second
        (tmp_path / command).write_text(
            "#!/bin/sh\necho 'sbatch: error: Invalid partition name' >&2; exit 1\n"
        )
        (tmp_path / command).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = dit("train", "-m", "seed=0,1", "hydra/launcher=slurm", cwd=tmp_path, check=1)
    assert "dit: sbatch: error: Invalid partition name" in found.stderr and "Traceback" not in found.stderr


@pytest.mark.parametrize("verb", ["plan", "study", "status", "report"])
def test_a_study_given_as_one_word_is_a_mistake_with_a_remedy(verb, tmp_path):
    found = dit(verb, "study=runs/mine", cwd=tmp_path, check=2)
    assert "write study.directory=..." in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1


@pytest.mark.filterwarnings("default")
def test_a_warning_is_a_line_of_its_text_alone(caplog, capfd, monkeypatch):
    import logging
    import warnings

    from omegaconf import OmegaConf

    from dit.verbs.app import _Guarded

    monkeypatch.setattr(
        logging, "raiseExceptions", False
    )  # a verb before left a handler of its closed output
    _Guarded(lambda cfg: warnings.warn("few images", stacklevel=1))(OmegaConf.create({}))
    assert caplog.messages == ["few images"] and "test_cli.py" not in capfd.readouterr().err


def test_filters_of_a_module_outlive_the_task_that_imports_it():
    import warnings

    from omegaconf import OmegaConf

    from dit.verbs.app import _Guarded

    with warnings.catch_warnings():
        _Guarded(lambda cfg: warnings.filterwarnings("ignore", message="of a module"))(OmegaConf.create({}))
        assert any(message and message.pattern == "of a module" for _, message, *_ in warnings.filters)
