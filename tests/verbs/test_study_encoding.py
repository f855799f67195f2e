"""What a study hands to ``dit encode``: its data as they are set, wherever that was."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from dit.config import encoding
from dit.config.parts import Parts

CONF = str(Path(__file__).parents[2] / "conf")


@pytest.mark.parametrize("data", ["digits", "cifar10", "imagenet256"])
def test_encoding_has_every_setting_of_the_data(data, monkeypatch, tmp_path):
    given = []

    def note(command):
        given.extend(command)
        return 0

    monkeypatch.setattr(encoding, "in_child", note)
    with initialize_config_dir(CONF, version_base="1.3"):
        cfg = compose("train", [f"data={data}", "autoencoder=sd_vae_ft_ema", "condition=bytes"])
        OmegaConf.set_struct(cfg, False)
        # as an experiment's file would
        cfg.data.update(name="my pets, 'old'", directory=str(tmp_path / "a b=c"), image_size=48, flip=False)
        cfg.data.source = {
            "_target_": "dit.data.sources.folder.Folder",
            "path": "pets (small)/1,2",
        }
        encoding.encode_if_missing(
            Parts(cfg), {"data": data, "autoencoder": "sd_vae_ft_ema", "condition": "bytes"}
        )
        assert given[1:4] == ["-m", "dit", "encode"]
        told = compose("encode", given[4:])
    expected = {group: OmegaConf.to_container(cfg[group], resolve=True) for group in encoding.GROUPS}
    found = OmegaConf.to_container(told, resolve=True)
    for key, value in expected["data"]["source"].items():
        assert found["data"]["source"][key] == value
    del found["data"]["source"], expected["data"]["source"]
    assert {group: found[group] for group in expected} == expected


def test_latents_that_are_there_are_not_encoded_again(monkeypatch, tmp_path):
    (tmp_path / "manifest.json").touch()
    monkeypatch.setattr(encoding, "in_child", lambda _: pytest.fail("encoded again"))
    assert not encoding.encode_if_missing(Parts(OmegaConf.create({"data": {"directory": str(tmp_path)}})), {})


def test_a_mistake_that_encoding_finds_is_the_studys(monkeypatch, tmp_path):
    monkeypatch.setattr(encoding, "in_child", lambda _: 2)
    cfg = OmegaConf.create(
        {"data": {"directory": str(tmp_path / "latents")}, "autoencoder": {}, "condition": {}}
    )
    with pytest.raises(SystemExit, match="2"):
        encoding.encode_if_missing(
            Parts(cfg), {"data": "folder", "autoencoder": "identity", "condition": "label"}
        )
