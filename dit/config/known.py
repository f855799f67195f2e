"""The schema of a verb's command line: the keys, options and kinds of values that conf/ ships.

However an unknown key is written (``lr=3``, ``+lr=3``, ``++lr=3``), it is refused with the nearest one; a known key is
taken however it is written, also one that a part's constructor has and its file leaves out.
"""

import copy
import difflib
import importlib
import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from dit.config.given import file_gives
from dit.config.kinds import check_kind, with_whole_numbers
from dit.config.networks import OPTIONS
from dit.config.nodes import NAMED, keys_of, node_of
from dit.config.own import Said, check_own, said
from dit.config.words import Word, quoted, read_words
from dit.errors import InputError

# Options by the names that other programs and papers give them.
ALIASES = {"objective=epsilon": "objective=ddpm"}
ALIASES |= {f"network={name}": f"network={option}" for name, option in OPTIONS.items()}


def checked(words: Sequence[str], config_name: str, config_dir: str) -> list[str]:
    """The words of a command line as Hydra takes them, each checked against what the verb has.

    Raises:
        InputError: an unknown key or option, or a value of another kind than the key's.
    """
    file_gives(())
    words = [ALIASES.get(word.lstrip("+"), word) for word in words]
    options, found = read_words(words, swept=bool({"-m", "--multirun"} & {*words}))
    if not found or {"-h", "--help", "--hydra-help", "--version"} & {*options}:
        return [*options, *(word.text for word in found)]
    search = [word.text for word in found if word.key == "hydra.searchpath"]
    if folders := _folders(options):
        search.append(f"hydra.searchpath=[{','.join(quoted(f'file://{folder}') for folder in folders)}]")
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir, version_base="1.3"):
        schema = Schema(config_name, found, search, Path(config_dir))
        file_gives(schema.file_gives)
        spelled = {True: [], False: []}  # the experiment in front
        for word in found:
            spelled[word.key == "experiment"].append(schema.spelled(word))
        return [*options, *schema.of_file, *spelled[True], *spelled[False]]


def _folders(options: Sequence[str]) -> list[str]:
    """The user's own folder of configurations."""
    found = []
    for option, following in zip(options, [*options[1:], ""]):
        name, sign, value = option.partition("=")
        if name in ("--config-dir", "-cd"):
            found.append(str(Path(value if sign else following).resolve()))
    return found


class Schema:
    """A verb's configuration under the options that were chosen, before any value was set.

    Args:
        config_name: of the verb.
        words: overrides; those that choose an option of a group are checked here.
        search: overrides that say where a user's own configurations lie.
        shipped: the folder of conf/.
    """

    def __init__(self, config_name: str, words: Sequence[Word], search: Sequence[str], shipped: Path) -> None:
        self.config_name, self.search = config_name, search
        given = [word for word in words if word.key.endswith("._target_")]
        self.targets = {word.key.removesuffix("._target_"): word.value for word in given}
        self.loader = GlobalHydra.instance().config_loader()
        chosen = [word for word in words if self.is_group(word)]
        for word in chosen:
            self._check_option(word)
        try:
            self.cfg = self._compose(chosen)
        except (HydraException, OmegaConfBaseException, YAMLError) as error:
            raise self._diagnosed(chosen, error) from error
        self.keys, self.of_file = [*keys_of(self.cfg)], list[str]()
        self.file_gives: list[str] = []  # of a user's own file: its keys, and the groups that it chooses
        swept = any(word.override.is_sweep_override() for word in chosen)
        if self.choices.get("experiment") is not None and not swept:
            found = self._check_experiment()
            if not (shipped / "experiment" / f"{self.choices['experiment']}.yaml").is_file():
                beside = [word for word in chosen if word.key != "experiment"]
                self.file_gives = [*self._groups_of_file(beside), *(one.key for one in found)]

    def _groups_of_file(self, chosen: Sequence[Word]) -> list[str]:
        """The groups of which the experiment's file chooses an option."""
        with_file = self.choices
        self._compose(chosen)
        without, self.choices = self.choices, with_file
        return [
            group for group in with_file if group != "experiment" and with_file[group] != without.get(group)
        ]

    def _check_experiment(self) -> list[Said]:
        """Holds the chosen experiment's file to what is in conf/ without it; all that it says."""
        with_file, chosen = self.cfg, self.choices
        beside = [f"{group}={option}" for group, option in chosen.items()
                  if option is not None and group != "experiment" and not group.startswith("hydra/")]  # fmt: skip
        self.cfg = self._composed(beside)
        self.keys, self.choices = [*keys_of(self.cfg)], chosen
        found = [*said(with_file, self.cfg)]
        self.of_file = check_own(found, self._unknown_in_file)
        self.cfg, self.keys = with_file, [*keys_of(with_file)]
        return found

    def _unknown_in_file(self, key: str, value: Any) -> InputError | None:
        """The error of a key in the experiment's file; None where it is one of a part, or of a name."""
        if key == "experiment":
            return InputError(key, self.choices[key], "a file that begins with the line # @package _global_")
        return None if self._may_have(key, value, added=True) else self._unknown(key, value)

    def _compose(self, chosen: Iterable[Word]) -> DictConfig:
        return self._composed([f"{word.key}={_option(word) or 'null'}" for word in chosen])

    def _composed(self, words: Sequence[str]) -> DictConfig:
        cfg = compose(self.config_name, overrides=[*self.search, *words], return_hydra_config=True)
        self.choices = dict(cfg.hydra.runtime.choices)
        OmegaConf.set_struct(cfg, False)
        del cfg["hydra"]
        return cfg

    def _diagnosed(self, chosen: Sequence[Word], error: Exception) -> InputError:
        """The error of the option that does not fit, with one that would."""
        self.keys = [*keys_of(self._compose([]))]
        group, end = "", 0
        for end in range(1, len(chosen) + 1):
            try:
                self._compose(chosen[:end])
            except (HydraException, OmegaConfBaseException, YAMLError) as found:
                group, error = chosen[end - 1].key, found
                if group == "experiment":
                    break
                if "Could not override" not in str(error) and "match" not in str(error):
                    break
                places = [name for name in self.choices if name.split("@")[0].split("/")[-1] == group]
                if places:
                    return InputError(
                        group, _option(chosen[end - 1]), "a group of this verb", _mean(places[0] + "=...")
                    )
                return self._unknown(group, _option(chosen[end - 1]))
        shown = " ".join(str(error).partition("Config search path")[0].split())
        if group == "experiment":
            return InputError(group, _option(chosen[end - 1]), "a file that Hydra can read", shown)
        return InputError("the options chosen", "(these together)", "options of conf/", shown)

    def is_group(self, word: Word) -> bool:
        """Whether a word chooses an option rather than a value."""
        group = word.key.partition("@")[0]
        return group != "data.path" and "." not in group and bool(self._options(group))

    def _options(self, group: str) -> list[str]:
        """The options of a group, those in a user's own folder among them."""
        return self.loader.get_group_options(group, config_name=self.config_name, overrides=[*self.search])

    def _check_option(self, word: Word) -> None:
        """Raises InputError unless the option is there."""
        group, option = word.key.partition("@")[0], _option(word)
        options = [name for name in self._options(group) if not name.startswith("_")]
        if word.override.is_delete() and group == "experiment":
            return
        if str(option) not in options or word.override.is_delete():
            near = difflib.get_close_matches(str(option), options, n=1)
            remedy = _mean(f"{word.key}={near[0]}") if near else ""
            raise InputError(word.key, option, "one of " + ", ".join(options), remedy)

    def spelled(self, word: Word) -> str:
        """A word as Hydra takes it.

        Raises:
            InputError: its key is unknown, or its value of another kind.
        """
        key, value = word.key, word.override.value() if word.override.is_sweep_override() else word.value
        if key.startswith("hydra.") or self.is_group(word):
            return word.text.lstrip("+")
        node = node_of(self.cfg, key)
        if word.override.is_delete():
            if node is None or key.rpartition(".")[0] not in NAMED:
                raise InputError(f"~{key}", "(to be left out)", f"an entry of {' or '.join(NAMED)}")
            return word.text
        added = word.override.is_add() or word.override.is_force_add()
        if node is None and not self._may_have(key, value, added):
            raise self._unknown(key, value)
        text = word.text.lstrip("+")
        if node is None:
            return f"++{text}"
        if word.override.is_sweep_override():
            return text
        check_kind(key, node, self._resolved(key, value))
        return with_whole_numbers(text, key, node, value)

    def _resolved(self, key: str, value: Any) -> Any:
        """What a value that is made from others comes to; itself where it cannot be made, which composing says."""
        if not (isinstance(value, str) and "${" in value):
            return value
        trial = copy.deepcopy(self.cfg)
        try:
            OmegaConf.update(trial, key, value)
            found = OmegaConf.select(trial, key, throw_on_missing=True)
        except OmegaConfBaseException:
            return value
        return OmegaConf.to_container(found) if OmegaConf.is_config(found) else found

    def _may_have(self, key: str, value: Any, added: bool) -> bool:
        """Whether a key that conf/ does not list is a setting all the same: a named entry, or a constructor's."""
        above, _, name = key.rpartition(".")
        for place, entries in NAMED.items():
            if above == place:
                return isinstance(value, dict) and (entries is None or {*value} <= {*entries})
            if entries is not None and above.rpartition(".")[0] == place:
                return added and name in entries  # without the +, the entry's name is a slip
        parent = node_of(self.cfg, above)
        shipped = parent.get("_target_") if isinstance(parent, DictConfig) else None
        target = self.targets.get(above, shipped)  # a study hands on a part that an experiment's file chose
        return target is not None and name in _parameters(str(target))

    def _unknown(self, key: str, value: Any) -> InputError:
        """The error of a key that there is not, with the nearest one that there is."""
        above, _, name = key.rpartition(".")
        beside = [known for known in self.keys if known.rpartition(".")[0] == above] if above else []
        allowed = "one of " + ", ".join(beside) if beside else f"a key of dit {self.config_name}"
        slips = difflib.get_close_matches(key, self.keys, n=1, cutoff=0.9) if above and not beside else []
        near = next(iter(slips), None) or _nearest(name, beside) or _nearest(name, self.keys)
        return InputError(
            key, value, allowed, _mean(near) if near else f"dit {self.config_name} --cfg job shows all."
        )


def _nearest(name: str, keys: Sequence[str]) -> str | None:
    """The key whose last part is likest to a name, or stands for it: ``lr`` for ``learning_rate``."""
    # of equal last parts the one with the shortest way to it
    last = {key.rpartition(".")[2]: key for key in sorted(keys, key=lambda key: -key.count("."))}
    initials = "".join(word[:1] for word in name.split("_")) if "_" in name else None
    parts = [one for one in last if name in (one, *one.split("_")) or one == initials]
    near = difflib.get_close_matches(name, parts, n=1, cutoff=0)
    near = near or difflib.get_close_matches(name, [*last], n=1, cutoff=0.7)
    return last[near[0]] if near else None


def _mean(text: str) -> str:
    return f"Did you mean {text}?"


def _option(word: Word) -> Any:
    """The option that a word chooses; of a sweep the first."""
    value = word.value
    return value[0] if isinstance(value, list) and word.override.is_sweep_override() else value


def _parameters(target: str) -> set[str]:
    """The names that a part's constructor takes."""
    module, _, name = target.rpartition(".")
    try:
        return {*inspect.signature(getattr(importlib.import_module(module), name)).parameters}
    except (ImportError, AttributeError, TypeError, ValueError):
        return set()
