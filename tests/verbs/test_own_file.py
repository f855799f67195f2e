"""A user's own file in conf/experiment: refused where a command line would be, and whole numbers in it are whole."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from dit import cli
from dit.config.given import given_values, note_given
from dit.config.instantiation import config_dir
from dit.config.known import checked
from dit.errors import InputError

# The README's, with numbers as people write them.
PETS = """# @package _global_
defaults:
  - override /data: folder
  - override /autoencoder: identity
data: {name: pets, image_size: 32, source: {path: datasets/pets}}
network: {aspect: 32, head_dim: 32, patch_size: 4}
batch_size: 2.56e2
study:
  name: pets
  budgets_flops: [1.0e+14, 3.16e+14, 1.0e+15, 3.16e+15]
  widths: [64, 9.6e1, 128]
  max_images: 5e6
"""


@pytest.fixture
def own(tmp_path):
    """The words of a command line that chooses a file of this text, as Hydra gets them."""
    (tmp_path / "experiment").mkdir()

    def words(text, *more, verb="plan"):
        (tmp_path / "experiment/pets.yaml").write_text(text)
        return checked(["--config-dir", str(tmp_path), *more, "experiment=pets"], verb, config_dir())[2:]

    return words


def test_whole_numbers_are_whole(own, tmp_path):
    words = own(PETS, "seed=3")
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("plan", [f"hydra.searchpath=[file://{tmp_path}]", *words])
    found = [cfg.batch_size, cfg.study.max_images, *cfg.study.widths]
    assert found == [256, 5_000_000, 64, 96, 128] and {type(one) for one in found} == {int}
    assert all(isinstance(budget, float) for budget in cfg.study.budgets_flops)
    note_given(cfg, words)  # what the file says is not what the command line gave
    assert [given.word for given in given_values(cfg)] == ["seed"]


WRONG = {
    "lr: 3": "lr: got 3; allowed: a key of dit plan. Did you mean optimizer.lr?",
    "optimizer: {learning_rate: 3}": "Did you mean optimizer.lr?",
    "optimizer: 3": "its keys",
    "optimizer: {lr: fast}": "a number",
    "batchsize: 3": "Did you mean batch_size?",
    "log_every_images: [64]": "one value",
    "averages: {slow: {_target_: dit.training.averaging.Power, sigma: 1}}": None,  # its constructor's to say
    "label_dropout: {a: 1}": "one value",
    "evaluation: {guidance: {scale: 3}}": "evaluation.guidance",  # of evaluation=none
}


@pytest.mark.parametrize("line", WRONG)
def test_what_a_command_line_may_not_say_a_file_may_not(line, own):
    if WRONG[line] is None:
        assert own(f"{PETS}{line}\n")
        return
    with pytest.raises(InputError) as caught:
        own(f"{PETS}{line}\n")
    assert WRONG[line] in str(caught.value)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (PETS.replace("study:", "study: ["), "while parsing"),
        (PETS.replace("identity", "identitty"), "autoencoder/identitty"),
        (PETS.partition("\n")[2], "experiment/pets"),
        ("seed: 3\n", "# @package _global_"),
    ],
)
def test_a_file_that_is_none_is_one_message(text, named, own):
    with pytest.raises(InputError, match="experiment: got 'pets'") as caught:
        own(text)
    assert named in str(caught.value)


@pytest.mark.parametrize("experiment", ["digits", "cifar10", "imagenet256"])
@pytest.mark.parametrize("verb", ["plan", "train", "report"])
def test_the_shipped_files_are_taken_as_they_are(verb, experiment):
    assert checked([f"experiment={experiment}"], verb, config_dir()) == [f"experiment={experiment}"]


@pytest.fixture
def planned(tmp_path, capsys):
    """The exit code and the messages of ``dit plan`` by a file of this text."""
    (tmp_path / "experiment").mkdir()

    def run(text, *more):
        (tmp_path / "experiment/own.yaml").write_text(text)
        GlobalHydra.instance().clear()
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main(["plan", "--config-dir", str(tmp_path), "experiment=own", *more])
        return end.value.code, capsys.readouterr().err

    return run


def shipped(name):
    return (Path(config_dir()) / "experiment" / f"{name}.yaml").read_text()


OF_NO_EFFECT = {
    "seed: 3": "seed: got 3; allowed: nothing: study.seeds",
    "duration: {images: 64}": "duration.images: got 64; allowed: nothing",
    "run_name: mine": "run_name: got 'mine'; allowed: nothing",
    "read_at_flops: [1e12]": "read_at_flops: got 1000000000000.0; allowed: nothing",
}
REFUSED_BY_RUNS = {
    "averages: {ema: {sigma_rel: -1}}": "sigma_rel",
    "strategy: magic": "strategy",
    "evaluation: {metrics: [beauty]}": "beauty",
}


@pytest.mark.parametrize("line", {**OF_NO_EFFECT, **REFUSED_BY_RUNS})
def test_a_study_refuses_in_a_file_what_it_would_ignore_or_its_runs_refuse(line, planned):
    code, said = planned(f"{shipped('digits')}{line}\n")
    assert code == 2 and {**OF_NO_EFFECT, **REFUSED_BY_RUNS}[line] in said
    assert ("Leave it out of the experiment's file." in said) is (line in OF_NO_EFFECT)


def test_a_study_refuses_a_value_that_a_file_changes_and_one_of_an_option_of_its_own(planned, tmp_path):
    code, said = planned(shipped("digits").replace("lr: 8.0e-3", "lr: 0"))
    assert code == 2 and "optimizer.lr: got 0; allowed:" in said
    (tmp_path / "optimizer").mkdir()
    adamw = (Path(config_dir()) / "optimizer/adamw.yaml").read_text()
    (tmp_path / "optimizer/mine.yaml").write_text(re.sub(r"weight_decay: \S+", "weight_decay: -1", adamw))
    chosen = shipped("digits").replace(
        "  - override /network", "  - override /optimizer: mine\n  - override /network"
    )
    code, said = planned(chosen)
    assert code == 2 and "weight_decay: got -1" in said


@pytest.mark.parametrize("name", ["digits", "cifar10", "imagenet256"])
def test_a_copy_of_a_shipped_file_is_taken(name, planned):
    more = ["compile=none"] if "compile" in shipped(name) else []
    code, said = planned(shipped(name), *more)
    assert code == 0, said
    code, said = planned(
        shipped(name), *more, "study.widths=[64,128,192,256,320,384]", "network.width=64", "study.force=true"
    )
    assert code == 0 and "has no say" in said, said  # words over the file's


@pytest.mark.parametrize("option", ["--config-name", "-cn", "--config-path"])
def test_another_primary_configuration_is_refused(option):
    with pytest.raises(InputError, match="experiment=NAME"):
        checked([f"{option}=plan" if option.startswith("--") else option, "seed=3"], "train", config_dir())
