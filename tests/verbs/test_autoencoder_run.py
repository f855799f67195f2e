"""An AutoencoderKL with random weights from a local directory, the network off: encode, train, sample, evaluate."""

import functools
import json

import numpy as np
import pytest
import torch

from tests.conftest import TINY, dit

SCALING, SHIFT = 0.18215, 0.25


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    """(folder, model)."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    torch.manual_seed(0)
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=SCALING,
        shift_factor=SHIFT,
    ).eval()
    folder = tmp_path_factory.mktemp("offline")
    model.save_pretrained(folder / "vae")
    return folder, model


def test_a_local_autoencoder_serves_the_whole_way_offline(vae, monkeypatch):
    folder, model = vae
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    kl = ["autoencoder=sd_vae_ft_ema", "autoencoder.spec.path=vae", "autoencoder.spec.reduction=2"]
    same = [*kl, "data.directory=latents"]
    size = [setting for setting in TINY if not setting.startswith(("data.", "autoencoder"))]
    run = functools.partial(dit, cwd=folder, check=0)
    run("encode", *same)
    run(
        "train", *size, *same, "network.patch_size=4", "duration.images=128", "evaluation=none", "run_dir=run"
    )
    run("sample", "run=run", "n=6", "grid.n_steps=3", "guidance=none", "save=npz", "out=drawn")
    evaluated = run(
        "evaluate", "run=run", "n=20", "evaluation.grid.n_steps=3", "protocols=[unguided]", "format=json"
    )
    (row,) = json.loads(evaluated.stdout)["evaluations"]
    manifest = json.loads((folder / "latents/manifest.json").read_text())
    assert row["protocol"]["decoder"] == f"AutoencoderKL {manifest['autoencoder']['sha256'][:16]}"

    # Scaling and shift once: what the network sees has unit variance, and a sample is decoded by diffusers from
    # x std + mean with no factor besides, mean and std being those of diffusers' own posterior.
    from dit.config.run import load_run
    from dit.data.images import Digits
    from dit.data.latents import LatentSet
    from dit.diffusion import grids, sampling, solvers
    from dit.evaluation.generate import sample_seeds

    monkeypatch.chdir(folder)
    train, digits = LatentSet("latents", "train"), Digits()
    pixels = np.stack([digits.pixels(digits.content(i), 32) for i in train.source_index.tolist()])
    with torch.no_grad():
        posterior = model.encode(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1).latent_dist
    mean = posterior.mean.mean((0, 2, 3))
    std = (posterior.mean.var((0, 2, 3), correction=0) + posterior.var.mean((0, 2, 3))).sqrt()
    x0 = train.draw(torch.arange(len(train)), torch.randn(len(train), *train.shape))
    assert (x0.std((0, 2, 3)) - 1).abs().max() < 0.01 and x0.mean((0, 2, 3)).abs().max() < 0.01
    denoiser = load_run("run", "ema", None, torch.device("cpu")).denoiser
    grid = functools.partial(grids.uniform, n_steps=3)
    labels = train.kind.drawn("balanced", 0, 6)
    drawn = sampling.sample(denoiser, solvers.euler, grid, train.shape, sample_seeds(0, 6), labels).x0
    with torch.no_grad():
        decoded = model.decode(drawn * std[:, None, None] + mean[:, None, None]).sample
    expected = (127.5 * decoded + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    written = np.load(folder / "drawn/samples.npz")
    assert np.abs(written["arr_0"].astype(int) - expected).max() <= 1
    assert written["arr_1"].tolist() == labels["label"].tolist()


def test_a_missing_hub_file_is_one_message_that_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    found = dit(
        "encode", "autoencoder=sd_vae_ft_ema", f"data.directory={tmp_path}/latents", cwd=tmp_path, check=2
    )
    *_, message = found.stderr.strip().splitlines()
    assert "Warning" not in found.stderr and "Traceback" not in found.stderr
    assert (
        "https://huggingface.co/stabilityai/sd-vae-ft-ema" in message and "autoencoder.spec.path" in message
    )
