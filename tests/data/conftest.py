"""Latent directories made once per session."""

from pathlib import Path

import pytest

from dit.data.autoencoder import Identity, TrainedKL
from dit.data.encode import encode_dataset
from dit.data.images import Digits
from dit.data.split import Stratified

TINY_KL = TrainedKL(
    widths=(8, 8), latent_channels=2, kl_weight=1e-3, learning_rate=3e-3, batch_size=4, steps=3, seed=0
)


def encode_digits(directory: Path, autoencoder=None, **options):
    options = {"name": "digits", "image_size": 32, "shard_images": 500} | options
    return encode_dataset(directory, Digits(), autoencoder or Identity(), Stratified(297), **options)


@pytest.fixture(scope="session")
def pixels(tmp_path_factory) -> Path:
    """Digits as pixels, in four blocks."""
    directory = tmp_path_factory.mktemp("pixels") / "latents"
    encode_digits(directory)
    return directory


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """Digits through a hardly trained AutoencoderKL at 16x16, with mirrored images, in bfloat16."""
    directory = tmp_path_factory.mktemp("tiny") / "latents"
    encode_digits(directory, TINY_KL, image_size=16, flip=True, dtype="bfloat16")
    return directory
