"""The settings of a command line that nothing reads: they are refused, not ignored.

The values that a user gave are replaced by ones that note when they are read. A verb reads all its settings before it
begins to work, and then asks whether any was left over: unused, or shadowed by another one.

So are the values of a user's own experiment file. Several verbs share such a file, and each may leave some of it aside;
only a study, which the file describes, asks for all of it.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import AnyNode, DictConfig, ListConfig
from omegaconf.nodes import ValueNode

from dit.config.nodes import namesakes, node_of
from dit.config.words import read_words
from dit.errors import InputError

_OUT_OF_FILE = "Leave it out of the experiment's file."
_noting: ContextVar[bool] = ContextVar("noting", default=True)
_of_file: ContextVar[tuple[str, ...]] = ContextVar("of_file", default=())


class Given(AnyNode):
    """A value of the command line, or of a user's own experiment file: it notes when it is read.

    Attributes:
        word: what it was given by: its key, or the group that was chosen.
        read: the words that were read, of all values of one command line.
        of_file: whether the file gave it.
    """

    word: str = ""
    read: set[str]
    of_file: bool = False

    @property
    def key(self) -> str:
        """The key that the word sets: of ``solver@evaluation.solver=heun`` it is ``evaluation.solver``."""
        return self.word.partition("@")[2] or self.word

    def _value(self) -> Any:
        if self.word and _noting.get():
            self.read.add(self.word)
        return super()._value()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Given":
        copy = Given()
        self._deepcopy_impl(copy, memo)
        copy.word, copy.read, copy.of_file = self.word, self.read, self.of_file
        return copy


@contextmanager
def unnoted() -> Iterator[None]:
    """Reads that are no use of a value: to store it, or to compare it with what it was."""
    token = _noting.set(False)
    try:
        yield
    finally:
        _noting.reset(token)


def file_gives(words: Iterable[str]) -> None:
    """Keeps what a user's own experiment file gives, its keys and the groups that it chooses, for ``note_given``."""
    _of_file.set(tuple(words))


def note_given(cfg: DictConfig, words: Sequence[str]) -> None:
    """Replaces the values that a file or a command line gave by ones that note when they are read.

    What stands before the experiment was written by no user: numbers of its file, whole (``known.checked``).
    """
    read: set[str] = set()
    with unnoted():
        for word in _of_file.get():
            _note_word(cfg, word, read, of_file=True)
        found = read_words(words, swept=False)[1]
        first = next((i for i, word in enumerate(found) if word.key == "experiment"), 0)
        for word in found[first:]:
            if word.key != "experiment" and not word.override.is_delete():
                _note_word(cfg, word.key, read, of_file=False)


def _note_word(cfg: DictConfig, word: str, read: set[str], of_file: bool) -> None:
    key = word.partition("@")[2] or word
    above, _, name = key.rpartition(".")
    parent = None if key.startswith("hydra") else node_of(cfg, above)
    if parent is not None:
        _note(parent, int(name) if isinstance(parent, ListConfig) else name, word, read, of_file)


def _note(parent: Any, name: Any, word: str, read: set[str], of_file: bool) -> None:
    node = parent._get_node(name)
    if isinstance(node, ValueNode):
        given = Given(node._value(), name, parent)
        given.word, given.read, given.of_file = word, read, of_file
        parent.__dict__["_content"][name] = given
    elif isinstance(node, DictConfig | ListConfig) and not (node._is_none() or node._is_missing()):
        for child in range(len(node)) if isinstance(node, ListConfig) else list(node.keys()):
            _note(node, child, word, read, of_file)


def given_values(node: Any, *, of_file_too: bool = False) -> Iterator[Given]:
    """The values below a node that a command line gave, or a user's own experiment file too."""
    if isinstance(node, Given):
        if of_file_too or not node.of_file:
            yield node
    elif isinstance(node, DictConfig | ListConfig) and not (node._is_none() or node._is_missing()):
        for name in range(len(node)) if isinstance(node, ListConfig) else list(node.keys()):
            child = node._get_node(name)  # pyright: ignore[reportArgumentType]
            yield from given_values(child, of_file_too=of_file_too)


@contextmanager
def shadowed(node: Any, names: Iterable[str]) -> Iterator[None]:
    """Reads of a node some of whose values are replaced by others: these do not count as read."""
    hidden = [given for name in names for given in given_values(node_of(node, name), of_file_too=True)]
    words = [given.word for given in hidden]
    for given in hidden:
        given.word = ""
    try:
        yield
    finally:
        for given, word in zip(hidden, words, strict=True):
            given.word = word


def refuse_unread(cfg: DictConfig, besides: Iterable[str] = (), *, of_file_too: bool = False) -> None:
    """Raises InputError where a command line gave what nothing has read.

    Args:
        cfg: the configuration of a verb, all of whose settings have been read.
        besides: groups and keys that may be given though nothing here reads them, or what is below them.
        of_file_too: whether the same holds of a user's own experiment file.
    """
    for given in given_values(cfg, of_file_too=of_file_too):
        if given.word not in given.read and not any(
            f"{given.word}.".startswith(f"{key}.") for key in besides
        ):
            refuse(cfg, given)


def refuse_given(cfg: DictConfig, key: str, why: str, *, of_file_too: bool = False) -> None:
    """Raises InputError where a command line gave a value that another setting leaves without effect.

    A choice of the whole group, such as ``optimizer=muon``, gives none of its values by name. What a file says may be
    left without effect by a word of the command line, unless ``of_file_too``.
    """
    for given in given_values(node_of(cfg, key), of_file_too=of_file_too):
        if given.key == key or given.key.startswith(f"{key}."):
            raise InputError(key, given._val, f"nothing: {why}", _OUT_OF_FILE if given.of_file else "")


def refuse(cfg: DictConfig, given: Given) -> None:
    """Raises the InputError of a value that is not used."""
    key = given.key
    group = key.partition(".")[0]
    near = [other for other in namesakes(cfg, key) if other != key and other.startswith(f"{group}.")]
    remedy = f"Did you mean {near[0]}?" if near else _OUT_OF_FILE if given.of_file else "Leave it out."
    raise InputError(given.word, given._val, "nothing: here no use is made of it", remedy)


def of_this_command(cfg: DictConfig) -> None:
    """Notes what the command line of this process gave; not in a study's jobs, whose words the study has checked."""
    if HydraConfig.initialized() and not str(HydraConfig.get().sweeper._target_).endswith("StudySweeper"):
        note_given(cfg, [*HydraConfig.get().overrides.task])
