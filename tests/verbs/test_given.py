"""A setting that is given and then overridden, shadowed or not used is refused, before any work and any data."""

import sys
from contextlib import nullcontext

import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from dit.config.given import note_given, refuse_given
from dit.errors import InputError
from tests.conftest import SYNTHETIC, TINY, dit
from tests.training import ranks


@pytest.fixture(scope="module")
def folder(tiny_latents, tmp_path_factory):
    """Where a tiny run lies."""
    folder = tmp_path_factory.mktemp("given")
    ranks.run(ranks.command(tiny_latents, "run", "duration.images=192"), folder)
    return folder


@pytest.fixture
def refused(folder, monkeypatch, capsys):
    """Runs ``dit`` in this process and returns its one message; nothing may have been trained or drawn."""
    from dit import cli

    def run(*arguments):
        monkeypatch.chdir(folder)
        monkeypatch.setattr("dit.training.directory.train_in", lambda *_: pytest.fail("it trains"))
        GlobalHydra.instance().clear()
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main(list(arguments))
        said = capsys.readouterr().err
        (message,) = [line for line in said.splitlines() if line.startswith("dit: ")]
        assert end.value.code == 2 and "Traceback" not in said, said
        return message

    return run


TRAIN = ["train", *TINY, "duration.images=64", "run_dir=new"]
UNUSED = {
    # of training: another protocol's scale, no samples, a study's and a sampler's keys
    "evaluation.guidance.scale=3": [*TRAIN, "evaluation=digits"],
    "sample_weights=raw": TRAIN,
    "study.widths=[16]": TRAIN,
    # of a plan: what it says for each run
    "duration.images=640": ["plan", "experiment=digits"],
    "seed=3": ["plan", "experiment=digits"],
    "study.span=3": ["plan", "experiment=digits"],
    "study.mfu=0.3": ["plan", "experiment=digits"],
    "run_dir=x": ["plan", "experiment=digits"],
    "batch_size=64": ["status", "study.directory=."],
    "optimizer.lr=1": ["report", "study.directory=."],
    # of samples: other tasks'
    "strength=0.3": ["sample", "run=run", "n=2"],
    "weak_run=run": ["sample", "run=run", "n=2"],
    "labels=random": ["sample", "run=run", "n=2", "task=inpaint"],
    "precision=bfloat16": ["sample", "run=run", "n=2", "task=interpolate"],
    # of evaluations: what the short keys and the sweeps stand in for
    "evaluation.extractor=digits": ["evaluate", "run=run", "weights=raw", "n=4", "extractor=digits"],
    "evaluation.protocols.guided.n=8": ["evaluate", "run=run", "weights=raw", "n=4"],
    "evaluation.grid.n_steps=8": ["evaluate", "run=run", "weights=raw", "n=4", "sweep.n_steps=[2]"],
    "evaluation.protocols.guided.seed=8": ["evaluate", "run=run", "weights=raw", "sweep.seed=[2]"],
    "image_size=8": ["evaluate", "run=run", "weights=raw", "n=4"],
    "autoencoder_directory=x": ["export", "run=run", "out=there"],
    "duration.steps=3": ["bench", "sample", *SYNTHETIC],
    "data.image_size=8": ["bench", "train", *SYNTHETIC],
    "autoencoder=identity": ["bench", "sample", *SYNTHETIC],
    # of training on latents that are there: how they are computed
    "data.batch_size=8": TRAIN,
    "data.decode_threads=2": TRAIN,
}


@pytest.mark.parametrize("word", UNUSED)
def test_a_setting_without_effect_is_refused(word, refused, tiny_latents):
    arguments = UNUSED[word]
    if TINY[0] in arguments:
        arguments = [*arguments, f"data.directory={tiny_latents}"]
    message = refused(*arguments, word)
    assert message.startswith(f"dit: {word.partition('=')[0]}: got ") and "allowed: nothing" in message


@pytest.mark.parametrize("verb", ["export", "evaluate", "sample"])
@pytest.mark.parametrize("value", ["[[a]]", "[192]"])
def test_a_list_for_one_number_is_told_as_such(verb, value, refused):
    """And not as a setting of which no use is made, to be left out."""
    message = refused(verb, "run=run", f"images_seen={value}")
    assert message.startswith("dit: images_seen: got [") and "allowed: one value, or null" in message


def test_the_scale_of_guidance_is_the_protocols(refused):
    message = refused("plan", "experiment=digits", "evaluation.guidance.scale=3")
    assert "Did you mean evaluation.protocols." in message and message.endswith(".guidance_scale?")


FIRST = {
    "optimizer.lr=0": "optimizer.lr",
    "averages.ema.sigma_rel=-1": "sigma_rel",
    "schedule.final_share=2": "schedule.final_share",
    "max_time=soon": "max_time",
    "validation.n_bins=0": "validation.n_bins",
    "evaluation.protocols.guided.labels=some": "labels",
    "evaluation.metrics=[beauty]": "beauty",
    "accumulation=0": "accumulation",
    "duration.steps=3": "duration",
    "hardware.device=tpu": "hardware.device",
    "hardware.threads=0": "hardware.threads",
    "duration.images=128": "a cosine",  # within its warm-up
}


def test_a_half_life_is_held_to_the_end_before_data_are_looked_for(refused):
    message = refused("train", "data.directory=none", *HALF, "duration.images=640")
    assert "averages.ema.half_life_images: got 1000000" in message


MADE_OTHERWISE = ["autoencoder=digits_kl", "data.shard_images=64"]


@pytest.mark.parametrize("word", MADE_OTHERWISE)
@pytest.mark.parametrize("verb", ["train", "plan", "bench"])
def test_what_made_the_latents_otherwise_is_refused(verb, word, refused, tiny_latents):
    tiny = [one for one in TINY if verb != "plan" or "width" not in one]
    more = {"train": ["run_dir=new"], "plan": ["experiment=digits"], "bench": ["what=data"]}[verb]
    message = refused(verb, *tiny, *more, f"data.directory={tiny_latents}", word)
    assert "encoded another way" in message and word.partition("=")[0].rpartition(".")[2] in message


@pytest.mark.parametrize("word", FIRST)
def test_checks_that_need_no_data_come_first(word, refused):
    assert FIRST[word] in refused(
        "train", "evaluation=digits", "schedule=cosine", "data.directory=none", word
    )


PLANNED = {
    **{
        word: named
        for word, named in FIRST.items()
        if word not in ("schedule.final_share=2", *(word for word in FIRST if word.startswith("duration")))
    },
    "label_dropout=2": "label_dropout",
    "strategy=magic": "strategy",
    "evaluation=imagenet": "grid",  # steps of a discrete path
    "grid@evaluation.grid=respaced": "grid",
    "sample_weights=emma": "sample_weights",
}


@pytest.mark.parametrize("word", PLANNED)
def test_a_plan_refuses_what_its_runs_would(word, refused):
    assert PLANNED[word] in refused("plan", "experiment=digits", word)


def test_what_encodes_the_data_is_one_command_to_type(refused, tmp_path):
    own = ["data=folder", "data.name=pets", "data.source.path=my pets", "data.image_size=64"]
    message = refused("train", *own, "autoencoder=identity")
    assert (
        "Run first: dit encode data=folder autoencoder=identity data.name=pets 'data.source.path=my pets'"
        in message
    )
    assert "data.image_size=64" in message
    message = refused("train", "experiment=cifar10", "evaluation=none")
    assert message.endswith("Run first: dit encode data=cifar10 autoencoder=identity")


def test_a_network_is_not_compiled_without_a_compiler(refused, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert "compile: got 'block'" in refused("train", "compile=block")


HALF = ["averages=constant", "averages.ema.half_life_images=1e6"]


def test_a_half_life_beyond_the_run_is_refused(refused, tiny_latents):
    """At the end 2^-(64 / 1e6) of the average would be the weights before training."""
    message = refused(*TRAIN, f"data.directory={tiny_latents}", *HALF)
    assert "averages.ema.half_life_images: got 1000000; allowed: at most the 64 images of a run" in message
    assert "averages=power" in message


def test_a_plan_refuses_a_half_life_beyond_its_shortest_run(refused):
    message = refused("plan", "experiment=digits", "averages=constant")
    assert "averages.ema.half_life_images: got 1774000; allowed: at most the" in message


def test_a_half_life_beyond_the_first_reading_is_said_to_be(tmp_path):
    words = ["averages=constant", "averages.ema.half_life_images=4000"]
    found = dit("plan", "experiment=digits", *words, cwd=tmp_path, check=0).stderr
    assert "half_life_images=4000 exceeds the" in found and "of the first reading" in found


def test_planning_a_changed_grid_imports_no_torch(tmp_path):
    script = (
        "import sys, dit.cli\n"
        "try: dit.cli.main(['plan', 'experiment=digits', 'study.budgets_flops=[1e11,1e12]', 'batch_size=32'])\n"
        "except SystemExit as end: assert end.code in (0, None), end.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    import subprocess

    found = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_the_width_of_a_study_is_said_to_be_without_effect(tmp_path):
    assert (
        "study.widths has"
        in dit("plan", "experiment=digits", "network.width=64", cwd=tmp_path, check=0).stderr
    )


@pytest.mark.parametrize("key, refused", [("optimizer.base_width", True), ("optimizer.momentum", False)])
def test_a_chosen_group_gives_none_of_its_values_by_name(key, refused):
    cfg = OmegaConf.create({"optimizer": {"lr_rule": "constant", "base_width": 64, "momentum": 0.9}})
    note_given(cfg, ["optimizer=muon"])
    refuse_given(cfg, key, "not this one")
    note_given(cfg, ["optimizer.base_width=32"])
    with pytest.raises(InputError, match=key) if refused else nullcontext():
        refuse_given(cfg, key, "not this one")
