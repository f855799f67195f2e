"""The published networks as options of the group ``network``: rows of ``dit.network.presets``, no files."""

from hydra.core.config_store import ConfigStore

from dit.network.config import DiTConfig
from dit.network.presets import PRESETS

PUBLISHED = f"{DiTConfig.__module__}.{DiTConfig.__qualname__}"  # what each row builds


def _option(name: str) -> str:
    return name.lower().replace("u-vit", "uvit").replace("-", "_").replace("/", "_")


OPTIONS = {name: _option(name) for name in PRESETS}  # DiT-XL/2: dit_xl_2


def offer_networks() -> None:
    """Puts the table's rows beside the files of conf/network, for all that this process composes from now on."""
    for name, network in PRESETS.items():
        node = {"_target_": PUBLISHED, **network.as_dict()}
        ConfigStore.instance().store(OPTIONS[name], node, group="network")
