"""Whatever a path holds, one word of a command line means it: read back by Hydra's own parser and OmegaConf."""

import random

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from dit.overrides import override

NAMES = [
    "é",
    "a(b",
    "x=y",
    "#1",
    "[a",
    "{b",
    "}",
    "it's",
    'say "so"',
    "a,b",
    "~/x",
    "${oc.env:HOME}",
    "\\${x}",
    "a\\",
    "\\",
]
OTHERS = [
    None,
    True,
    3,
    1e-05,
    1e30,
    float("inf"),
    [1.5, "a b", None],
    ["é,(", 2],
    "null",
    "True",
    "1e6",
    "",
    " ",
]


def read(word: str):
    found = OverridesParser.create().parse_override(word)
    assert found.key_or_group == "run_dir"
    return OmegaConf.to_container(OmegaConf.create({"x": found.value()}), resolve=True)["x"]


@pytest.mark.parametrize("value", [*NAMES, *OTHERS], ids=repr)
def test_a_value_comes_back_as_it_was(value):
    assert read(override("run_dir", value)) == value


def test_any_text_comes_back_as_it_was():
    rng = random.Random(0)
    for _ in range(2000):
        text = "".join(rng.choice("a\\\"'${}()[]=#é ,:~\t\n?*|;&<>%") for _ in range(rng.randint(1, 9)))
        assert read(override("run_dir", text)) == text


def test_a_plain_path_stays_as_it_is():
    assert override("run_dir", "runs/digits/w0016") == "run_dir=runs/digits/w0016"
