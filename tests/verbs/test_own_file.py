"""A user's own file in conf/experiment: refused where a command line would be, and whole numbers in it are whole."""

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

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
