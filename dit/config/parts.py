"""The parts of a run that its configuration names, each made once; ``import torch`` comes with those that need it."""

import dataclasses
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from dit.config.facts import Facts
from dit.config.instantiation import instantiate
from dit.config.objective import is_fit, out_channels
from dit.config.protocols import protocols
from dit.data.autoencoder import AutoencoderSpec
from dit.data.conditions.base import Conditions
from dit.data.images import Source
from dit.data.manifest import Manifest, check_settings
from dit.data.split import is_of_before
from dit.errors import InputError
from dit.network.config import DiTConfig
from dit.network.counting import Counts

if TYPE_CHECKING:
    from dit.config.samplings import Sampling
    from dit.diffusion.objective import Learnable
    from dit.training.averaging import Profile
    from dit.training.hardware import Hardware
    from dit.training.job import Recipe
    from dit.training.methods import Method
    from dit.training.optimizers import AdamW
    from dit.training.schedules import Schedule
    from dit.training.settings import Duration, ReadPoint, Settings
    from dit.training.strategy import Strategy


def check_list(key: str, value: Any) -> None:
    """Refuses one value where a list belongs, which would be taken letter by letter."""
    if not OmegaConf.is_list(value) and not isinstance(value, list):
        raise InputError(key, value, "a list", f"Write {key}=[{'' if value is None else value}].")


class Parts:
    """What a run is made of: every part checks its values when it is first asked for, and is made then, once.

    Args:
        cfg: of a run, or of a study whose runs share it.
        facts: of data that are not those of the configuration, such as synthetic ones.
    """

    def __init__(self, cfg: DictConfig, facts: Facts | None = None) -> None:
        self.cfg = cfg
        if facts is not None:
            self.facts = facts

    def make(self, *names: str) -> None:
        """Makes parts now, so that their constructors check what the configuration says.

        Raises:
            InputError: a value that is wrong.
        """
        for name in names:
            getattr(self, name)

    # -- the data --------------------------------------------------------------------------------------

    @property
    def is_encoded(self) -> bool:
        """Whether the latents are there."""
        return (Path(self.cfg.data.directory) / "manifest.json").is_file()

    @cached_property
    def manifest(self) -> Manifest:
        """That of the latents; raises InputError where there are none."""
        return Manifest.read(self.cfg.data.directory)

    @cached_property
    def source(self) -> Source:
        """The raw samples, which need not be where a run is."""
        return instantiate(self.cfg.data.source)

    @cached_property
    def spec(self) -> AutoencoderSpec:
        """The autoencoder, whose files need not be where a run is."""
        return instantiate(self.cfg.autoencoder.spec)

    @cached_property
    def conditions(self) -> Conditions:
        """What networks are told of the data: of older runs, which do not say, the label."""
        node = self.cfg.get("condition")
        return Conditions() if node is None else instantiate(node.spec)

    @cached_property
    def facts(self) -> Facts:
        """What the data are.

        Raises:
            InputError: the latents that are there were made with other settings, which nothing could heed any more.
        """
        data, split = self.cfg.data, instantiate(self.cfg.data.split)
        size = data.get("image_size")  # None of arrays
        if not self.is_encoded:
            return Facts.of_source(self.source, self.spec, self.conditions, split, size)
        asked = {key: data[key] for key in ("flip", "normalise") if key in data} | {"image_size": size}
        asked["condition"] = self.conditions.config
        if not is_of_before(self.manifest.content["config"].get("split"), split.config):
            asked["split"] = split.config
        check_settings(self.manifest, asked)
        return Facts.of_manifest(self.manifest)

    # -- the network and what it costs -----------------------------------------------------------------

    @cached_property
    def network(self) -> DiTConfig:
        """The network's configuration."""
        return instantiate(self.cfg.network)

    @cached_property
    def counts(self) -> Counts:
        """Parameters and multiply-adds of the network on the data."""
        return self.count(self.network, self.facts)

    def count(self, network: DiTConfig, facts: Facts) -> Counts:
        """Those of another network, or on other data."""
        found = network.count(facts.domain, facts.kind, out_channels(self.cfg, facts.domain))
        if is_fit(self.cfg):
            return found
        return dataclasses.replace(found, train_macs_per_image=self.method.step_cost(found))

    # -- training --------------------------------------------------------------------------------------

    @cached_property
    def settings(self) -> "Settings":
        """The numbers of the training loop: the fields of ``Settings`` are keys of the configuration."""
        from dit.training.settings import Settings

        return Settings(**{field.name: self.cfg[field.name] for field in dataclasses.fields(Settings)})

    @cached_property
    def duration(self) -> "Duration":
        """How long to train."""
        from dit.training.settings import Duration

        return Duration(**self.cfg.duration)

    @cached_property
    def points(self) -> "list[ReadPoint]":
        """Where the run is measured; the last is its end."""
        from dit.training.settings import read_points

        check_list("read_at_flops", self.cfg.read_at_flops)
        batch_size, per_image = self.settings.batch_size, self.counts.train_flops_per_image
        last_step = self.duration.in_steps(batch_size, per_image)
        return read_points(list(self.cfg.read_at_flops), last_step, batch_size, per_image)

    @cached_property
    def objective(self) -> "Learnable":
        """Process and times."""
        return instantiate(self.cfg.objective)

    @cached_property
    def method(self) -> "Method":
        """What a step asks of the network for the objective."""
        return instantiate(self.cfg.method)(self.objective, self.settings.label_dropout)

    @cached_property
    def optimizer(self) -> "AdamW":
        """The optimizer's settings."""
        return instantiate(self.cfg.optimizer)

    @cached_property
    def schedule(self) -> "Schedule":
        """Of the learning rate."""
        return instantiate(self.cfg.schedule)

    @cached_property
    def profiles(self) -> "dict[str, Profile]":
        """Averages of the weights, by name."""
        return instantiate(self.cfg.averages)

    @cached_property
    def strategy(self) -> "Strategy":
        """How a step is carried out."""
        from dit.training.strategy import Strategy

        others = [field.name for field in dataclasses.fields(Strategy) if field.name != "name"]
        return Strategy(self.cfg.strategy, **{key: self.cfg[key] for key in others})

    @cached_property
    def hardware(self) -> "Hardware":
        """What the run computes on."""
        return instantiate(self.cfg.hardware)

    @property
    def recipe(self) -> "Recipe":
        """What is trained, and how."""
        from dit.training.job import Recipe

        return Recipe(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Recipe)})

    # -- samples that are measured on the way ------------------------------------------------------------

    @cached_property
    def samplings(self) -> "dict[str, Sampling]":
        """How samples are drawn, by the protocol's name; each fits the objective's path, or this raises InputError."""
        if not protocols(self.cfg):
            return {}
        from dit.config.samplings import Sampling
        from dit.diffusion.sampling import rehearse

        found = Sampling.read(self.cfg.evaluation)
        for sampling in found.values():
            rehearse(self.objective.process, sampling.solver, sampling.grid)
        return found
