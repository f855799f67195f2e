"""Files that commit 1e286de wrote (``fixtures/old``) still load, sample, resume and export, with its numbers.

Latents of 91 pictures in three classes, a run stopped at 256 of 512 images with the records of all 512, the export of
its averaged weights, what that denoiser draws and how likely it finds it, and outputs of one network per conditioning.
"""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dit.condition import Classes, labelled
from dit.diffusion import grids, solvers
from dit.diffusion.guidance import ClassifierFree
from dit.diffusion.likelihood import likelihood
from dit.diffusion.sampling import sample
from dit.domain import Domain
from dit.network.config import DiTConfig
from dit.network.dit import DiT
from dit.older import with_unit
from dit.verbs.export import load_exported
from tests.training import ranks

OLD = Path(__file__).parent / "fixtures" / "old"
OUTPUTS = json.loads((OLD / "outputs.json").read_text())
# how that run was started; every key that its configuration hash covers
RUN = [
    "data=folder",
    "data.name=three",
    "data.source.path=pictures",
    "data.split.fraction=.25",
    "autoencoder=identity",
    "data.image_size=8",
    "data.directory=latents",
    "network.width=16",
    "network.aspect=16",
    "network.head_dim=16",
    "batch_size=32",
    "warmup_images=64",
    "validation.n_draws=32",
    "log_every_images=64",
    "checkpoint_every_images=128",
    "keep_every_images=256",
    "duration.images=512",
    "run_dir=run",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(OLD / "latents", tmp_path / "latents")
    shutil.copytree(OLD / "run", tmp_path / "run")
    return tmp_path


def numbers(value):
    """A record without its numbers, and these in order."""
    if isinstance(value, float):
        return "number", [value]
    if isinstance(value, (list, dict)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        found = {key: numbers(part) for key, part in items}
        return {key: part[0] for key, part in found.items()}, [n for part in found.values() for n in part[1]]
    return value, []


def test_a_run_resumes_and_ends_with_the_records_of_the_old_code(folder):
    """The same rows, the same hashes of configuration, data and draws; floats to what another machine may round. Of
    losses the rows say the unit now.
    """
    ranks.run(["train", *RUN], folder)
    found, old = (
        [json.loads(line) for line in (path / "run" / "records.jsonl").read_text().splitlines()]
        for path in (folder, OLD)
    )
    assert len(found) == len(old) == 11
    old = [with_unit(row) if row["kind"] == "validation" else row for row in old]
    for one, other in zip(found, old):
        (facts, ours), (old_facts, theirs) = numbers(one), numbers(other)
        assert facts == old_facts
        assert ours == pytest.approx(theirs, rel=2e-5)
    assert (folder / "run" / "checkpoints" / "images-000000000512").is_dir()


def test_weights_of_a_run_are_exported_as_before(folder, monkeypatch):
    from dit.config.run import load_run
    from dit.network.export import save_safetensors

    monkeypatch.chdir(folder)
    save_safetensors(
        load_run(folder / "run", "ema", None, torch.device("cpu")).denoiser.network, "new.safetensors"
    )
    old, new = load_file(OLD / "export.safetensors"), load_file("new.safetensors")
    assert old.keys() == new.keys() and all(torch.equal(old[name], new[name]) for name in old)


def test_an_exported_denoiser_samples_as_before():
    denoiser, old = load_exported(OLD / "export.safetensors"), load_file(OLD / "samples.safetensors")
    y, seeds = labelled(torch.tensor([0, 1, 2])), [1, 2, 3]
    guided, grid = ClassifierFree(denoiser, 1.5, channels=2), partial(grids.uniform, n_steps=8)
    torch.testing.assert_close(sample(guided, solvers.heun, grid, (3, 8, 8), seeds, y).x0, old["x0"])
    found = likelihood(denoiser, old["x0"], partial(grids.log_snr, n_steps=8), y, seeds=seeds)
    torch.testing.assert_close(found.bits_per_dim, old["bits_per_dim"], rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", OUTPUTS)
def test_networks_start_and_answer_as_before(name):
    """Initial weights by seed, order of parameters, conditioning, positions on the lattice and on a wider one."""
    options = {"patch_size": 2, **OUTPUTS[name]["options"]}
    network = DiT(DiTConfig(32, 3, 2, **options), Domain(3, (8, 8)), Classes(5), 6, seed=3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        x, wide = (torch.randn(2, 3, 8, width, generator=generator) for width in (8, 16))
        t = torch.tensor([10.0, 700.0])
        out, wide_out = network(x, t, labelled(torch.tensor([1, 5]))), network(wide, t)
    assert out.flatten()[::61].tolist() == pytest.approx(OUTPUTS[name]["out"], rel=1e-4, abs=1e-5)
    assert wide_out.flatten()[::131].tolist() == pytest.approx(OUTPUTS[name]["wide"], rel=1e-4, abs=1e-5)
