"""From configuration to job everything is made once: the manifest read, the costs counted, each part of Hydra built."""

from collections import Counter
from pathlib import Path

import hydra
import pytest

from dit.config.instantiation import config_dir
from dit.errors import RunError
from dit.network import config as network_config
from dit.training import directory
from dit.verbs import plan, study, train
from tests.conftest import TINY

RUN = [*TINY, "evaluation=digits", "read_at_flops=[]", "duration.images=640"]


@pytest.fixture
def calls(monkeypatch) -> Counter[str]:
    """How often manifests are read from the disk, networks are counted, and each node is built."""
    found: Counter[str] = Counter()
    read, count, build = Path.read_bytes, network_config.count, hydra.utils.instantiate

    def reading(path: Path) -> bytes:
        found["manifest"] += path.name == "manifest.json"
        return read(path)

    def counting(*arguments):
        found["count"] += 1
        return count(*arguments)

    def building(node, *arguments, **options):
        found[f"build {node._get_full_key(None)}"] += 1
        return build(node, *arguments, **options)

    monkeypatch.setattr(Path, "read_bytes", reading)
    monkeypatch.setattr(network_config, "count", counting)
    monkeypatch.setattr(hydra.utils, "instantiate", building)
    # the digits' extractor takes no pictures of 8x8, which is another test's business
    monkeypatch.setattr("dit.config.readings.Yardstick.check_extractor", lambda _: None)
    return found


def composed(*words: str):
    with hydra.initialize_config_dir(config_dir(), version_base="1.3"):
        return hydra.compose("train", list(words))


def test_a_run(calls, tiny_latents, tmp_path, monkeypatch):
    jobs = []
    monkeypatch.setattr(directory, "train_in", lambda path, job, *_: jobs.append(job))
    train.task(composed(*RUN, f"data.directory={tiny_latents}", f"run_dir={tmp_path / 'run'}"))
    assert len(jobs) == 1
    assert (calls["manifest"], calls["count"]) == (1, 1)
    built = {name for name in calls if name.startswith("build ")}
    assert {"build network", "build objective", "build evaluation.solver"} <= built
    assert {name: calls[name] for name in built} == dict.fromkeys(built, 1)


def test_a_plan_of_data_that_are_there(calls, tiny_latents):
    """One count and one network for each width; one more network, to be checked before there are widths."""
    widths = "study.widths=[16,32,48,64,80]"
    words = ["experiment=digits", *TINY, widths, f"data.directory={tiny_latents}", "+format=json"]
    plan.task(composed(*words))
    assert (calls["manifest"], calls["count"], calls["build network"]) == (1, 5, 6)
    assert all(calls[name] == 1 for name in calls if name.startswith("build ") and name != "build network")


def test_a_study_and_the_job_of_one_of_its_runs(calls, tiny_latents, tmp_path, monkeypatch):
    """The driver plans once, as `dit plan` does; a run reads the manifest once more, in a process of its own."""
    monkeypatch.setattr(directory, "train_in", lambda *_: None)
    words = [
        "experiment=digits",
        *TINY,
        "study.widths=[16,32]",
        "study.force=true",
        f"data.directory={tiny_latents}",
    ]
    words += [f"study.directory={tmp_path / 'study'}", "study.retries=0"]

    handed = []

    def launch(name, jobs):
        handed.extend(jobs)
        raise OSError("nothing is launched")

    with pytest.raises(RunError, match="nothing is launched"):
        study.run(composed(*words), study.Launcher(launch, False, False), {})
    assert (calls["manifest"], calls["count"], calls["build network"]) == (1, 2, 3)
    calls.clear()
    train.task(composed(*words, *handed[0]))
    assert (calls["manifest"], calls["count"], calls["build network"]) == (1, 1, 1)
