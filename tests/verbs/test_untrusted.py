"""Files of strangers, with a pickle in them that would run code: every verb that reads files refuses them.

Nothing of the pickle runs, the exit code is 2, and there is one message.
"""

import hashlib
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dit.config.instantiation import instantiate
from dit.data.codec import Autoencoder
from dit.errors import InputError
from dit.evaluation.journal import Journal
from dit.network.export import load_safetensors
from dit.network.published import load_published
from dit.verbs.export import load_exported
from tests.conftest import TINY
from tests.evaluation.test_extractors import Means
from tests.evaluation.test_protocol import BASE
from tests.training import ranks


class Bomb:
    """Unpickled, it leaves a file behind."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "ran"


@pytest.fixture(autouse=True)
def nothing_ran(marker):
    yield
    assert not marker.exists(), "the pickle was run"


def test_the_bomb_works(marker):
    pickle.loads(pickle.dumps(Bomb(marker)))
    assert marker.exists()
    marker.unlink()


def weights_file(path: Path, marker: Path) -> Path:
    """What looks like a training checkpoint of DiT's code."""
    torch.save({"ema": {"x_embedder.proj.weight": torch.zeros(1)}, "opt": Bomb(marker)}, path)
    return path


def refused(arguments: list[str], cwd: Path, *words: str) -> None:
    """``dit ...`` exits with 2 and says why in one message."""
    ranks.run(arguments, cwd, code=2)
    lines = [line for line in (cwd / "stderr.txt").read_text().splitlines() if line.startswith("dit: ")]
    assert len(lines) == 1, (cwd / "stderr.txt").read_text()
    assert "Traceback" not in (cwd / "stderr.txt").read_text()
    assert all(word in lines[0] for word in words), lines[0]


@pytest.fixture(scope="module")
def honest_run(tiny_latents, tmp_path_factory):
    folder = tmp_path_factory.mktemp("honest")
    ranks.run(ranks.command(tiny_latents, "run", "duration.images=192"), folder)
    return folder / "run"


@pytest.fixture
def forged_run(honest_run, tmp_path, marker):
    """A run whose checkpoint holds a pickle under the name of its tensors, with hashes that agree."""
    run = tmp_path / "forged"
    shutil.copytree(honest_run, run)
    (checkpoint,) = (run / "checkpoints").iterdir()
    file = checkpoint / "rank-00000.safetensors"
    weights_file(file, marker)
    manifest = json.loads((checkpoint / "manifest.json").read_text().rstrip("\n").rsplit("\n", 1)[0])
    data = file.read_bytes()
    manifest["files"][file.name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    text = json.dumps(manifest, indent=1, sort_keys=True)
    seal = hashlib.sha256(text.encode()).hexdigest()
    (checkpoint / "manifest.json").write_text(f"{text}\n{seal}\n")
    return run


READERS = {
    "sample": ["sample", "run={run}", "n=2", "weights=raw"],
    "sample, weaker run": ["sample", "run={honest}", "weak_run={run}", "guidance=autoguidance", "n=2"],
    "evaluate": ["evaluate", "run={run}"],
    "export": ["export", "run={run}", "out=exported.safetensors"],
}


@pytest.mark.parametrize("verb", list(READERS))
def test_verbs_that_read_a_run_refuse_a_forged_checkpoint(verb, forged_run, honest_run, tmp_path):
    arguments = [part.format(run=forged_run, honest=honest_run) for part in READERS[verb]]
    refused(arguments, tmp_path, "weights")


@pytest.mark.parametrize("verb", list(READERS))
def test_a_file_of_weights_is_no_run(verb, honest_run, tmp_path, marker):
    file = weights_file(tmp_path / "model.pt", marker)
    arguments = [part.format(run=file, honest=honest_run) for part in READERS[verb]]
    refused(arguments, tmp_path, "model.pt")


def loads_a_pickle(module: str, file: Path) -> dict:
    """A node of configuration that would have Hydra unpickle a file, by a library's name in a module of ours."""
    return {"_target_": f"{module}.torch.load", "f": str(file), "weights_only": False}


@pytest.mark.parametrize("verb", list(READERS))
@pytest.mark.parametrize("module", ["dit.training.strategy", "dit.diffusion.objective"])
def test_the_configuration_of_a_run_names_no_code_of_libraries(verb, module, honest_run, tmp_path, marker):
    run = tmp_path / "forged"
    shutil.copytree(honest_run, run)
    cfg = OmegaConf.load(run / "config.yaml")
    cfg.objective = cfg.network = loads_a_pickle(module, weights_file(tmp_path / "model.pt", marker))
    OmegaConf.save(cfg, run / "config.yaml")
    refused([part.format(run=run, honest=honest_run) for part in READERS[verb]], tmp_path, "_target_")


@pytest.mark.parametrize(
    "target", ["dit.cli.main", "dit.training.checkpoint.safe_open", "dit.network.nothing"]
)
def test_a_configuration_names_parts_of_ours_alone(target):
    with pytest.raises(InputError, match=r"dit\.diffusion"):
        instantiate(OmegaConf.create({"weight": {"_target_": target}}))


def test_the_configuration_of_a_run_is_plain_yaml(honest_run, tmp_path, marker):
    run = tmp_path / "forged"
    shutil.copytree(honest_run, run)
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(f"x: !!python/object/apply:os.system ['touch {marker}']\n{text}")
    refused(["sample", f"run={run}", "n=2"], tmp_path, "config.yaml")


def test_an_exported_file_names_no_code_of_libraries(honest_run, tmp_path, marker):
    ranks.run(["export", f"run={honest_run}", "out=honest.safetensors"], tmp_path)
    with safe_open(tmp_path / "honest.safetensors", framework="pt") as file:
        metadata = file.metadata()
    node = loads_a_pickle("dit.training.strategy", weights_file(tmp_path / "model.pt", marker))
    tensors = load_file(tmp_path / "honest.safetensors")
    forged = {key: text for key, text in metadata.items() if key != "sha256"}  # as before there were hashes
    save_file(tensors, tmp_path / "forged.safetensors", {**forged, "objective": json.dumps(node)})
    with pytest.raises(InputError, match="_target_"):
        load_exported(tmp_path / "forged.safetensors")


def test_an_exported_file_whose_objective_is_none(honest_run, tmp_path):
    ranks.run(["export", f"run={honest_run}", "out=honest.safetensors"], tmp_path)
    with safe_open(tmp_path / "honest.safetensors", framework="pt") as file:
        metadata = file.metadata()
    tensors, bad = load_file(tmp_path / "honest.safetensors"), tmp_path / "bad.safetensors"
    metadata.pop("sha256")
    for text in ("{", "\t{}", '{"a": "\0"}', "[" * 3000, "3", '"???"', '{"_partial_": true}', '{"a": 1e999}'):
        save_file(tensors, bad, {**metadata, "objective": text})
        with pytest.raises(InputError, match=r"bad\.safetensors"):
            load_exported(bad)


def changed_digit(file: Path) -> None:
    """Another number in valid JSON."""
    data = file.read_bytes()
    place = data.rfind(b"0.") + 2
    file.write_bytes(data[:place] + (b"1" if data[place : place + 1] != b"1" else b"2") + data[place + 1 :])


def test_a_changed_digit_is_an_error_of_whoever_goes_on_or_reads(honest_run, tiny_latents, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(honest_run, run)
    whole = (run / "records.jsonl").read_bytes()
    changed_digit(run / "records.jsonl")
    refused(ranks.command(tiny_latents, "run", "duration.images=192"), tmp_path, "records.jsonl", "SHA-256")
    (run / "records.jsonl").write_bytes(whole)
    Journal(run).add({"n": 2}, [{"run": "run", "n": 2, "frechet_distance": 0.5, "protocol": BASE.as_dict()}])
    changed_digit(run / "evaluations.jsonl")
    (tmp_path / "stderr.txt").unlink()
    refused(["evaluate", "report=run"], tmp_path, "evaluations.jsonl", "SHA-256")


def test_train_resumes_no_forged_checkpoint(forged_run, tiny_latents, tmp_path):
    refused(ranks.command(tiny_latents, "forged", "duration.images=384"), tmp_path, "safetensors")


def test_train_branches_from_no_forged_checkpoint(forged_run, tiny_latents, tmp_path, marker):
    (checkpoint,) = (forged_run / "checkpoints").iterdir()
    more = ["duration.images=384", f"branch_from={checkpoint}"]
    refused(ranks.command(tiny_latents, "branch", *more), tmp_path, "safetensors")


def test_train_branches_from_no_file_of_weights(tiny_latents, tmp_path, marker):
    file = weights_file(tmp_path / "model.pt", marker)
    more = ["duration.images=384", f"branch_from={file}"]
    refused(ranks.command(tiny_latents, "branch", *more), tmp_path, "branch_from")


def test_evaluate_unpickles_no_arrays(tmp_path, marker):
    """Object arrays in an .npz are pickles: as images, as a reference, as the features' weights."""
    file = tmp_path / "set.npz"
    bombs = np.array([Bomb(marker)], dtype=object)
    np.savez(file, arr_0=bombs, mu=bombs, sigma=bombs, allow_pickle=True)
    refused(["evaluate", f"images={file}", f"reference={file}"], tmp_path, "set.npz")


def test_evaluate_reads_no_statistics_that_are_pickles(tmp_path, honest_run, marker):
    file = tmp_path / "reference.npz"
    file.write_bytes(pickle.dumps({"mu": Bomb(marker)}))
    torch.jit.script(Means()).save(f"{tmp_path}/means.ts")  # which takes pictures of any size
    extractor = f"extractor=torchscript:{tmp_path}/means.ts"
    refused(["evaluate", f"run={honest_run}", f"reference={file}", extractor], tmp_path, "reference.npz")


@pytest.mark.parametrize("kind", ["inception", "torchscript", "dinov2"])
def test_evaluate_takes_no_extractor_from_a_pickle(kind, tmp_path, honest_run, marker):
    file = weights_file(tmp_path / "features.pt", marker)
    refused(["evaluate", f"run={honest_run}", f"extractor={kind}:{file}"], tmp_path, "features.pt")


def autoencoder(folder: Path, marker: Path) -> Path:
    """A diffusers directory with its weights in a pickle."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    model = AutoencoderKL(block_out_channels=(4,), norm_num_groups=1, layers_per_block=1, latent_channels=2)
    model.save_pretrained(folder)
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    weights_file(folder / "diffusion_pytorch_model.bin", marker)
    return folder


def test_encode_takes_no_autoencoder_from_a_pickle(tmp_path, marker):
    folder = autoencoder(tmp_path / "vae", marker)
    arguments = [
        "encode",
        "autoencoder=sd_vae_ft_ema",
        f"autoencoder.spec.path={folder}",
        "data.image_size=8",
    ]
    arguments += [f"data.directory={tmp_path / 'latents'}"]
    refused(arguments, tmp_path, "autoencoder")


def test_latents_are_decoded_by_no_autoencoder_from_a_pickle(tmp_path, marker):
    with pytest.raises(InputError, match="safetensors, which run no code"):
        Autoencoder.load("AutoencoderKL", autoencoder(tmp_path / "vae", marker))


def test_export_takes_no_autoencoder_from_a_pickle(tmp_path, honest_run, marker):
    folder = autoencoder(tmp_path / "vae", marker)
    arguments = ["export", f"run={honest_run}", "out=pipeline", "format=diffusers"]
    refused([*arguments, f"autoencoder_directory={folder}"], tmp_path, "autoencoder")


@pytest.mark.parametrize("verb", ["train", "bench"])
def test_no_latents_are_read_from_pickles(verb, tiny_latents, tmp_path, marker):
    """The hash of a shard is in the manifest; a forged one is still no safetensors file."""
    latents = tmp_path / "latents"
    shutil.copytree(tiny_latents, latents)
    manifest = json.loads((latents / "manifest.json").read_text())
    for split in manifest["splits"].values():
        for entry in split["shards"]:
            file = latents / entry["file"]
            weights_file(file, marker)
            entry["bytes"], entry["sha256"] = (
                file.stat().st_size,
                hashlib.sha256(file.read_bytes()).hexdigest(),
            )
    (latents / "manifest.json").write_text(json.dumps(manifest))
    train = ranks.command(latents, "run")
    bench = ["bench", *TINY, "latents=data", f"data.directory={latents}", "steps=1"]
    refused(train if verb == "train" else bench, tmp_path)


@pytest.mark.parametrize("verb", ["report", "fit", "status"])
def test_records_that_are_pickles_are_refused(verb, tmp_path, marker):
    study = tmp_path / "study"
    study.mkdir()
    (study / "records.jsonl").write_bytes(pickle.dumps(Bomb(marker)))
    (study / "plan.json").write_bytes(pickle.dumps(Bomb(marker)))
    (study / "study.json").write_bytes(pickle.dumps(Bomb(marker)))
    refused([verb, f"study.directory={study}"] if verb != "fit" else [verb, f"study={study}"], tmp_path)


@pytest.mark.parametrize("layout", ["dit", "sit", "lightningdit"])
def test_published_weights_are_no_pickles(layout, tmp_path, marker):
    with pytest.raises(InputError, match="runs no code"):
        load_published(weights_file(tmp_path / "model.pt", marker), layout)


def test_a_file_of_ours_is_no_pickle(tmp_path, marker):
    with pytest.raises(InputError, match="safetensors"):
        load_safetensors(weights_file(tmp_path / "model.safetensors", marker))
