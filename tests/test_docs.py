"""The pages: links lead somewhere, the files and names they mention exist, commands compose, Python runs."""

import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from dit.config.networks import offer_networks

ROOT = Path(__file__).parents[1]
offer_networks()  # as every verb does
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "slurm/*.md", "experiments/**/*.md")
    for page in ROOT.glob(pattern)
)
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links, as GitHub does it."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@every_page
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if not link.startswith("http"):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@every_page
def test_files_and_names_exist(page):
    """`dit/.../file.py`, and `dit/.../file.py: Name`."""
    for path, names in re.findall(
        r"`((?:dit|conf|tests|benchmarks|docs|slurm)/[\w/.-]+)(?:: ([\w.]+))?`", page.read_text()
    ):
        assert (ROOT / path).exists(), path
        for name in filter(None, names.split(".")):
            assert name in (ROOT / path).read_text(), f"{path}: {name}"


def commands(page: Path) -> list[str]:
    """Command lines of `dit` in a page's code that are written out; what is optional, in brackets, is left off."""
    text = page.read_text().replace("\\\n", " ")
    blocks = re.findall(r"^(?:    )?(?:torchrun .*-m )?(dit \w+ .*)$", text, re.M)
    lines = [re.split(r"\s+#|\s+\[", line)[0] for line in blocks + re.findall(r"`(dit \w+ [^`\n]+)`", text)]
    return [line for line in lines if not re.search(r"\.\.\.|[|<]| -m ", line)]


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """A folder of configuration with the experiment that README.md writes down."""
    folder = tmp_path_factory.mktemp("conf")
    (folder / "experiment").mkdir()
    (block,) = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    (folder / "experiment/pets.yaml").write_text(block)
    return folder


@cache
def composed(command: str, own: Path) -> None:
    verb, *words = shlex.split(command)[1:]
    if verb == "bench":
        words[0] = f"what={words[0]}"
    elif verb == "fit":  # conditions are quoted by the verb itself
        words = [word.replace("data=", "data.path=", 1) for word in words if not word.startswith("where=")]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        words = [word for word in words if not word.startswith("hydra")]
        compose(verb, [*words, f"hydra.searchpath=[file://{own}]"])


@every_page
def test_commands_compose(page, own):
    for command in commands(page):
        composed(command, own)


def test_commands_are_found():
    assert len(commands(ROOT / "README.md")) > 10


@pytest.mark.parametrize("page", ["docs/network.md", "docs/objectives.md"])
def test_python_runs(page):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)
    assert blocks
    for block in blocks:
        exec(block, {})
