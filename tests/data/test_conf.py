"""The YAML files of data and autoencoders build what they say."""

from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from dit.data.encode import encode_dataset
from dit.data.images import Digits

CONF = Path(__file__).parents[2] / "conf"
# image size and latents, as the papers of these autoencoders have them
LATENTS = {
    "identity": (32, (3, 32, 32)),
    "digits_kl": (32, (4, 8, 8)),
    "sd_vae_ft_ema": (256, (4, 32, 32)),
    "sd_vae_ft_mse": (512, (4, 64, 64)),
    "taesd": (256, (4, 32, 32)),
    "dc_ae_f32c32": (512, (32, 16, 16)),
}


@pytest.mark.parametrize("path", sorted((CONF / "autoencoder").glob("*.yaml")), ids=lambda path: path.stem)
def test_autoencoder(path):
    config = OmegaConf.load(path)
    assert config.name == path.stem and path.read_text().startswith("# ")
    image_size, shape = LATENTS[path.stem]
    assert instantiate(config.spec).latent_shape(image_size) == shape


@pytest.mark.parametrize("path", sorted((CONF / "data").glob("*.yaml")), ids=lambda path: path.stem)
def test_data(path):
    config = OmegaConf.load(path)
    arrays = path.stem in ("array", "clips", "waveforms", "sequences", "tokens")
    if arrays or path.stem == "folder":  # a user's own, whose name and place only the user knows
        assert OmegaConf.is_missing(config, "name") and OmegaConf.is_missing(config.source, "path")
        config.name, config.source.path = path.stem, "somewhere"
        for name in config.source:
            if OmegaConf.is_missing(config.source, name):
                config.source[name] = 16
    assert config.name == path.stem and path.read_text().startswith("# ")
    source, split = instantiate(config.source), instantiate(config.split)
    if isinstance(source, Digits):
        assert len(source) == 1797 and split.count >= 250
    keys = set(config) - {"name", "directory", "source", "split"}
    assert keys <= set(encode_dataset.__kwdefaults__) | {"image_size"}
    shared = {"normalise", "shard_images", "allow_bad", "decode_threads"}
    of_pictures = {"image_size", "flip", "dtype", "batch_size"}
    assert keys == (shared if arrays or path.stem == "digit_tokens" else shared | of_pictures)
