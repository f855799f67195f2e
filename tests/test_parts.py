"""What ``_target_`` may name: an enumeration of all that can be reached, and what each of them does."""

import importlib
import inspect
import itertools
import os
import pkgutil
import sys
from contextlib import suppress

import pytest
import wandb  # noqa: F401 - makes folders of its own when it is first imported
from omegaconf import OmegaConf

import dit
from dit.config.instantiation import SOURCES, check_parts, instantiate, parts
from dit.errors import InputError

ALLOWED = sorted(set().union(*parts().values()))


def callables() -> set[str]:
    """Every dotted name of something callable in a module of ours, one attribute deep into what it holds."""
    found = set()
    for module in pkgutil.walk_packages(dit.__path__, "dit."):
        if module.name == "dit.__main__":  # importing it runs the program
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if callable(value):
                found.add(f"{module.name}.{name}")
            if inspect.ismodule(value) or inspect.isclass(value):
                inner = (key for key, one in vars(value).items() if callable(one))
                found |= {f"{module.name}.{name}.{key}" for key in inner}
    return found


def test_of_all_callables_only_those_of_conf_can_be_named():
    """Of the thousands of names that lead to something callable, the check lets through those of conf/ alone."""
    names = callables()
    assert len(names) > 5000, "the walk finds the program"
    passed = set()
    for name, place in itertools.product(names, ("objective", "anywhere")):
        with suppress(InputError):
            check_parts({"_target_": name}, [place])
            passed.add(name)
    assert passed <= set(ALLOWED)
    assert all(name.split(".")[1] in ("data", "diffusion", "network", "training") for name in ALLOWED)


@pytest.mark.parametrize(
    ("place", "target"),
    [
        ("objective", "dit.data.sources.folder.Folder"),  # right elsewhere
        ("path", "dit.diffusion.targets.Noise"),
        ("weight", "dit.training.wandb_sink.WandbSink"),
        ("network", "dit.network.export.save_safetensors"),
        ("objective", "dit.evaluation.grids.pictures.write_png"),
        ("data", "dit.data.shards.write_safetensors"),
        ("solver", "dit.diffusion.solvers.euler.__init__"),
        ("solver", ["dit.diffusion.solvers.euler"]),
    ],
)
def test_a_part_is_built_in_its_own_place_alone(place, target):
    with pytest.raises(InputError, match="_target_"):
        instantiate(OmegaConf.create({place: {"_target_": target, "path": "x"}})[place])


def test_what_stands_deeper_is_looked_up_too():
    node = OmegaConf.create({"objective": {"weight": [{"of": {"_target_": "dit.records.RecordWriter"}}]}})
    with pytest.raises(InputError, match=r"objective\.weight\.of\._target_"):
        instantiate(node.objective)


class Watch:
    """Counts what the interpreter reports of files written, processes started and code compiled, while it is on."""

    def __init__(self) -> None:
        self.on, self.seen = False, []
        sys.addaudithook(self)

    def __call__(self, event, arguments):
        if self.on and (
            event.startswith(("os.", "subprocess.", "socket.", "shutil.", "ctypes.", "pickle.", "urllib."))
            or event in ("open", "exec", "compile")
        ):
            self.seen.append((event, arguments))


@pytest.fixture(scope="module")
def watch():
    watch = Watch()
    yield watch
    watch.on = False


def forbidden(event, arguments, victim):
    """Whether an event shows a writer, a reader of a path that was named, or an interpreter."""
    if event == "open":
        path, _, flags = arguments
        writes = flags is not None and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        return bool(writes) or str(victim.parent) in str(path)
    if event in ("exec", "compile"):  # dataclasses and imports compile; nobody compiles what was handed in
        return str(victim) in repr(arguments)
    return event not in ("os.listdir", "os.scandir", "os.fwalk", "os.walk", "os.putenv", "os.unsetenv")


@pytest.mark.parametrize("target", ALLOWED)
def test_no_part_writes_reads_a_path_or_runs_code_when_it_is_built(target, tmp_path, watch):
    """Each is called as Hydra calls it, with a path (or a text that would be code) for everything it takes."""
    module, _, name = target.rpartition(".")
    made = getattr(importlib.import_module(module), name)
    assert callable(made)
    names = list(inspect.signature(made).parameters)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for value in (str(victim), f"__import__('os').remove({str(victim)!r})", 8):
        watch.seen.clear()
        watch.on = True
        try:
            made(**dict.fromkeys(names, value))
        except Exception:
            pass
        finally:
            watch.on = False
        bad = [seen for seen in watch.seen if forbidden(*seen, victim)]
        assert not bad, bad
    assert victim.read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["victim"]


def test_the_documented_sources_are_there():
    for target in SOURCES:
        module, _, name = target.rpartition(".")
        assert inspect.isclass(getattr(importlib.import_module(module), name))
