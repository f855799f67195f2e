"""Random wrong values for random settings of every verb: exit code 0 or 2, one message, no traceback."""

import random

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from dit.cli import VERBS
from dit.config.instantiation import config_dir
from dit.config.networks import offer_networks
from tests.conftest import SYNTHETIC, TINY
from tests.fits.synthetic import write_study
from tests.training import ranks

VALUES = (
    *(
        "banana",
        "-1",
        "0",
        "7",
        "3.7",
        "-2.5",
        "1e1",
        ".nan",
        ".inf",
        "-.inf",
        "null",
        "true",
        "[]",
        "[1,2]",
        "[null]",
    ),
    *(
        "[[a]]",
        "{}",
        "{a: 1}",
        "",
        "''",
        "é ü",
        "a,b",
        "~",
        "it's",
        "#1",
        "a=b",
        "(x)",
        "x[0]",
        "${oc.env:HOME}",
        "${no}",
    ),
    *(
        "???",
        "/",
        ".",
        "..",
        "\\",
        '"',
        "%s",
        "\x1b[31m",
        "1e400",
        "0x10",
        "1_000",
        "+5",
        "1e6",
        "64,128",
        "n" * 300,
        "None",
        "NaN",
        "True",
        "[",
        "{",
    ),
)
# What takes long or writes far away where it is accepted.
LEFT_OUT = ("hydra", "hardware.processes", "hardware.threads", "data.decode_threads", "max_time", "logger")


def settings(verb: str) -> list[str]:
    """Every key of a verb, groups and nodes among them."""
    GlobalHydra.instance().clear()
    offer_networks()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose(verb)

    def keys(node, above=""):
        for name in node:
            yield f"{above}{name}"
            child = node._get_node(name)
            if isinstance(child, DictConfig) and not OmegaConf.is_missing(node, name):
                yield from keys(child, f"{above}{name}.")

    return [key for key in keys(cfg) if not key.startswith(LEFT_OUT)]


def mistake(generator: random.Random, known: list[str]) -> str:
    """A word of a command line that is probably wrong."""
    key = generator.choice(known)
    if generator.random() < 0.15:
        place = generator.randrange(len(key))
        key = key[:place] + key[place + 1 :]  # a slip of the finger
    sign = generator.choice(["", "", "", "+", "++", "~"])
    return f"~{key}" if sign == "~" else f"{sign}{key}={generator.choice(VALUES)}"


@pytest.fixture(scope="module")
def bases(tiny_latents, tmp_path_factory):
    """A right command line of each verb."""
    folder = tmp_path_factory.mktemp("fuzz")
    ranks.run(ranks.command(tiny_latents, "run", "duration.images=192"), folder)
    table = folder / "points.csv"
    rows = [
        f"{n},{d},{3 + n**-0.3 + 5 * d**-0.3}" for n in (1e3, 2e3, 4e3, 8e3) for d in (1e5, 2e5, 4e5, 8e5)
    ]
    table.write_text("\n".join(["n,d,loss", *rows]) + "\n")
    study = write_study(folder / "study", budgets=(1e12,), widths=(64,), samples=False)
    data, run = f"data.directory={tiny_latents}", f"run={folder / 'run'}"
    return {
        "encode": ["autoencoder=identity", "data.image_size=8", f"data.directory={folder / 'latents'}"],
        "train": [*TINY, data, "duration.images=64"],
        "sample": [run, "n=2", "grid.n_steps=2", f"out={folder / 'drawn'}"],
        "export": [run, f"out={folder / 'there'}"],
        "evaluate": [run, "n=4", "sweep.n_steps=[2]", "protocols=[unguided]", "weights=raw"],
        "count": ["network=dit_s_8"],
        "plan": ["experiment=digits", *[word for word in TINY if "width" not in word], data],
        "study": [
            "experiment=digits",
            *[word for word in TINY if "width" not in word],
            data,
            "study.directory=/proc/study",
        ],
        "fit": [f"data={table}", "columns.n=n", "columns.d=d", "bootstrap=0"],
        "report": [f"study.directory={study}", f"report_dir={folder / 'report'}"],
        "status": [f"study.directory={study}"],
        "bench": [*SYNTHETIC, "steps=1", "warm_up=0"],
    }


def check(arguments, monkeypatch, capsys, tmp_path):
    """Runs ``dit`` in this process; asserts that it ended in order."""
    from dit import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "dit.training.directory.train_in", lambda *_: None
    )  # what is accepted need not be trained
    GlobalHydra.instance().clear()
    capsys.readouterr()
    try:
        cli.main(list(arguments))
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr().err
    messages = [line for line in said.splitlines() if line.startswith("dit: ")]
    assert code in (None, 0, 2), f"{arguments}: {code}\n{said}"
    assert "Traceback" not in said, f"{arguments}\n{said}"
    assert len(messages) == (code == 2), f"{arguments}: {code}\n{said}"


def many(count, seed, verbs, bases, monkeypatch, capsys, tmp_path):
    """Tries as many mistakes; with ``-s``, shows what it finds as it comes."""
    generator, known, wrong = random.Random(seed), {verb: settings(verb) for verb in verbs}, []
    for number in range(count):
        verb = generator.choice(verbs)
        arguments = [verb, *bases[verb], mistake(generator, known[verb])]
        try:
            check(arguments, monkeypatch, capsys, tmp_path)
        except Exception as error:
            wrong.append(f"{arguments}: {error!r}" if not isinstance(error, AssertionError) else str(error))
            with capsys.disabled():
                print(f"{number}: {wrong[-1]}", flush=True)
    assert not wrong, f"{len(wrong)} of {count}:\n" + "\n\n".join(wrong)


FOUND = [
    ("report", "++compare=1e6"),
    ("report", "compare=[1,null]"),
    ("export", "out=" + "n" * 300),
    ("fit", "+columns.d=7"),
    ("fit", "++columns.run=true"),
    ("plan", "experiment=null"),
    ("bench", "averages.ema=${oc.env:HOME}"),
    ("bench", "network=${oc.env:HOME}"),
    ("plan", "optimizer=${oc.env:HOME}"),
    ("count", "++condition.spec.text=1e6"),
    ("evaluate", "evaluation.grid._partial_=null"),
    ("fit", "+fix.beta=1e6"),
]


@pytest.mark.parametrize(("verb", "word"), FOUND)
def test_what_was_a_traceback_once(verb, word, bases, monkeypatch, capsys, tmp_path):
    check([verb, *bases[verb], word], monkeypatch, capsys, tmp_path)


def test_a_sample_of_mistakes(bases, monkeypatch, capsys, tmp_path):
    many(12, 0, ["count", "plan", "fit", "status"], bases, monkeypatch, capsys, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", [1, 20261201])
def test_a_thousand_mistakes(seed, bases, monkeypatch, capsys, tmp_path):
    many(1000, seed, sorted(VERBS), bases, monkeypatch, capsys, tmp_path)
