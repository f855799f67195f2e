"""What a command line may say: unknown keys, options and kinds of values, and signs that Hydra keeps for itself."""

import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from dit.config.instantiation import config_dir
from dit.config.known import checked
from dit.errors import InputError
from tests.conftest import dit


def composed(verb, *words):
    """The verb's configuration, by Hydra, from the words that were passed on to it."""
    found = checked(words, verb, config_dir())
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        return compose(verb, overrides=found)


def refusal(verb, *words):
    with pytest.raises(InputError) as caught:
        checked(words, verb, config_dir())
    return str(caught.value)


@pytest.mark.parametrize("plus", ["", "+", "++"])
@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("lr=3", "optimizer.lr?"),
        ("optimizer.learning_rate=3", "optimizer.lr?"),
        ("optimizer.betta=3", "optimizer.betas?"),
        ("batchsize=3", "batch_size?"),
        ("patch_size=3", "network.patch_size?"),
        ("evaluation.protocols.guided.scale=3", "evaluation.protocols.guided.guidance_scale?"),
        ("evaluation.protocols.guied={n: 3, m: 4}", "evaluation.protocols.guided?"),
        ("solver=ddim", "solver@evaluation.solver=...?"),
    ],
)
def test_an_unknown_key_is_refused_however_it_is_written(plus, word, meant):
    assert f"Did you mean {meant}" in refusal("train", "evaluation=digits", plus + word)


@pytest.mark.parametrize("plus", ["", "+", "++"])
def test_a_known_key_is_taken_however_it_is_written(plus):
    assert composed("train", f"{plus}optimizer.lr=3").optimizer.lr == 3
    assert composed("train", f"{plus}objective.learned_variance=true").objective.learned_variance is True
    named = composed(
        "train", f"{plus}averages.slow={{_target_: dit.training.averaging.Power, sigma_rel: 0.2}}"
    )
    assert {*named.averages} == {"ema", "slow"}


def test_options_have_their_nearest_and_their_other_names():
    assert "Did you mean objective=rectified_flow?" in refusal("train", "objective=rectifiedflow")
    assert "Did you mean experiment=digits?" in refusal("plan", "experiment=digit")
    assert composed("train", "objective=epsilon") == composed("train", "objective=ddpm")
    for wrong in ("optimizer=3", "optimizer=null", "optimizer=[adamw]", "~optimizer"):
        assert "one of adamw, muon" in refusal("train", wrong)


KINDS = {
    "network.width=[16]": "one value",
    "network.mlp_ratio=large": "a number",
    "network.rope=1": "true or false",
    "duration=5": "duration.images",
    "duration=null": "duration.images",
    "validation=[1]": "validation.n_draws",
    "optimizer.betas=0.9": "optimizer.betas=[0.9]",
    "optimizer.lr={a:1}": "one value",
    "optimizer.lr=true": "a number",
    "compile=3": "text",
    "study={budgets_flops:3}": "study.budgets_flops=[3]",
    "seed=1,2": "-m",
    "branch_from=[a]": "one value, or null",
    "keep_every_images=[[a]]": "one value, or null",
    "duration.flops=[]": "a value",
    "lr": "lr=...",
    "ä=3": "letters",
    "study.widths=[1,2": "['a b','c,d']",
    "~seed": "averages",
}


@pytest.mark.parametrize("word", KINDS)
def test_a_value_of_another_kind_is_refused(word):
    assert KINDS[word] in refusal("train", word)


PATHS = [
    "Jörg's Bilder, alt/x",
    "a=b",
    "~x",
    "#1 (new)",
    "[old] {2}",
    "50 % & more!",
    'say "hi"',
    "back\\slash",
    "日本",
]


@pytest.mark.parametrize("path", PATHS)
def test_paths_and_columns_hold_any_sign(path):
    assert (
        composed("train", "data=folder", "data.name=x", f"data.source.path={path}").data.source.path == path
    )
    assert composed("fit", f"columns.n={path}").columns.n == path
    assert composed("sample", f"run=runs/{path}").run == f"runs/{path}"


def test_names_of_columns_may_be_numbers_and_the_home_folder_is_known(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert composed("fit", "columns.n=2020").columns.n == "2020"
    assert composed("fit", "columns.n=null").columns.n is None
    assert composed("sample", "run=~/runs/a b").run == "/home/me/runs/a b"


@pytest.mark.parametrize("number", ["2024", "1e6", "1_000", "true", "-.5", "nan"])
def test_a_number_where_a_path_or_a_name_belongs_is_its_text(number):
    assert composed("sample", f"run={number}").run == number
    assert composed("train", f"data.name={number}").data.name == number
    assert composed("report", f"study.directory={number}").study.directory == number


@pytest.mark.parametrize("plus", ["+", "++"])
def test_columns_and_paths_hold_any_sign_however_they_are_written(plus):
    assert composed("fit", f"{plus}columns.n=7").columns.n == "7"
    assert composed("fit", f"{plus}columns.unique=64,128").columns.unique == "64,128"
    assert composed("sample", f"{plus}run=a, b (c)").run == "a, b (c)"


def test_a_word_without_a_key_is_named():
    for word in ("=3", "={", "+=a"):
        assert f"{word}: got (no key)" in refusal("plan", word)


def test_whole_numbers_written_with_an_exponent_are_whole():
    cfg = composed(
        "train", "duration.images=1e6", "batch_size=2.56e2", "optimizer.lr=1e0", "duration.flops=1e12"
    )
    found = [cfg.duration.images, cfg.batch_size, cfg.optimizer.lr, cfg.duration.flops]
    assert found == [1_000_000, 256, 1.0, 1e12]
    assert [type(value) for value in found] == [int, int, float, float]
    assert composed("train", "study.widths=[1e2,64]").study.widths == [100, 64]
    assert "1.5" in str(composed("train", "batch_size=1.5e0").batch_size)  # refused by its own check


def test_a_terminal_that_is_not_utf_8_shows_what_it_can(tmp_path):
    command = [sys.executable, "-X", "utf8=0", "-m", "dit", "sample", "run=Jörg"]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONIOENCODING": "ascii", "PYTHONPATH": ":".join(sys.path)}
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)
    assert found.returncode == 2 and b"J\\xf6rg" in found.stderr and b"Traceback" not in found.stderr


def test_a_verb_has_its_nearest(tmp_path):
    assert "Did you mean dit train?" in dit("trian", cwd=tmp_path, check=2).stderr
