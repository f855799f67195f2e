"""The condition of each sample, and its kind, from which networks are built and counted.

Kinds import no torch until they make tensors, so that planning stays fast.

B batch, L tokens of a text, W channels of each, P channels of a vector that sums the text up.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from dit.errors import InputError, check_choice, check_number

if TYPE_CHECKING:
    import torch
    from torch import Tensor

POLICIES = ("balanced", "random")
LABEL_STREAM = 0x1ABE15


class Condition(Mapping[str, "Tensor"]):
    """Named tensors, batch first, that say what each sample of a batch shall be; a value, never changed in place.

    ``label`` (B,) int64 is the class; ``text`` (B, L, W) the encoded tokens of a text, of which ``text_mask`` (B, L)
    bool marks those that are there; ``pooled`` (B, P) sums the text up. An empty condition says nothing: a network then
    takes its null condition.
    """

    def __init__(self, tensors: "Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]" = ()) -> None:
        self._tensors = dict(tensors)

    def __getitem__(self, name: str) -> "Tensor":
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        return f"Condition({', '.join(f'{name} {tuple(value.shape)}' for name, value in self.items())})"

    def part(self, index: "slice | Tensor") -> "Condition":
        """That of some samples."""
        return Condition({name: tensor[index] for name, tensor in self.items()})

    def parts(self, n: int) -> "list[Condition]":
        """That of ``n`` parts of the batch, as ``torch.Tensor.chunk`` makes them."""
        chunks = {name: tensor.chunk(n) for name, tensor in self.items()}
        return [Condition({name: chunk[i] for name, chunk in chunks.items()}) for i in range(n)]

    def beside(self, other: "Condition") -> "Condition":
        """That of a batch twice as large: these samples, then ``other``'s."""
        import torch

        return Condition({name: torch.cat([tensor, other[name]]) for name, tensor in self.items()})

    def where(self, keep: "Tensor", other: "Condition") -> "Condition":
        """Of each sample this one where ``keep`` (B,) is true, else ``other``'s."""
        import torch

        def chosen(name: str, tensor: "Tensor") -> "Tensor":
            return torch.where(keep.reshape(-1, *[1] * (tensor.ndim - 1)), tensor, other[name])

        return Condition({name: chosen(name, tensor) for name, tensor in self.items()})

    def to(self, device: "torch.device | str", non_blocking: bool = False) -> "Condition":
        """The same on a device."""
        return Condition(
            {name: tensor.to(device, non_blocking=non_blocking) for name, tensor in self.items()}
        )

    def check(self, n: int) -> None:
        """Raises InputError unless there is one of each tensor for each of ``n`` samples."""
        for name, tensor in self.items():
            if tensor.ndim == 0 or len(tensor) != n:
                raise InputError(name, f"({tuple(tensor.shape)})", f"one for each of the {n} samples")


NOTHING = Condition()


def labelled(label: "Tensor") -> Condition:
    """The condition of samples of known classes, ``label`` (B,) int64."""
    return Condition({"label": label})


class ConditionKind(Protocol):
    """The kind of a data set's conditions; networks are built and counted from it.

    Attributes:
        n_tokens: tokens that show it to a network which attends to its condition.
    """

    @property
    def n_tokens(self) -> int: ...

    def null(self, n: int, device: "torch.device | str" = "cpu") -> Condition:
        """The condition of ``n`` samples that says nothing about them."""
        ...

    def drawn(self, policy: str, seed: int, n: int) -> Condition:
        """The conditions of ``n`` samples to be made; those of a smaller n are their first."""
        ...


@dataclass(frozen=True)
class Classes:
    """Each sample is of one of ``n`` classes: ``label`` (B,) int64 in [0, n); label n says nothing.

    Args:
        n: number of classes; 0 is data without classes, whose label is always 0.
        empty: classes without a training image, which are never drawn: no network has learnt them.
    """

    n: int
    empty: tuple[int, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        check_number("num_classes", self.n, low=0, integer=True)
        object.__setattr__(self, "empty", tuple(self.empty))

    @property
    def n_tokens(self) -> int:
        return 1

    def all(self, label: int, n: int, device: "torch.device | str" = "cpu") -> Condition:
        """The condition of ``n`` samples of one class."""
        import torch

        return labelled(torch.full((n,), label, device=device))

    def null(self, n: int, device: "torch.device | str" = "cpu") -> Condition:
        return self.all(self.n, n, device)

    def drawn(self, policy: str, seed: int, n: int) -> Condition:
        """The classes of ``n`` samples to be made.

        Args:
            policy: ``balanced`` (classes in turn; equal counts where their number divides ``n``) or ``random``
                (uniform and independent, by seed). Balanced labels give an FID about 0.1 lower on ImageNet: the
                protocol names them.
            seed: the sampling seed.
            n: number of samples.
        """
        import torch

        check_choice("labels", policy, POLICIES)
        if not self.n:
            return self.null(n)
        learnt = np.array([label for label in range(self.n) if label not in self.empty], np.int64)
        if policy == "balanced":
            return labelled(torch.from_numpy(learnt[np.arange(n) % len(learnt)]))
        place = np.random.default_rng([seed, LABEL_STREAM]).integers(len(learnt), size=n, dtype=np.int64)
        return labelled(torch.from_numpy(learnt[place]))


@dataclass(frozen=True)
class Nothing:
    """Data of which a network is told nothing at all, as it is where no label, text or picture goes with them."""

    @property
    def n_tokens(self) -> int:
        return 0

    def null(self, n: int, device: "torch.device | str" = "cpu") -> Condition:
        return NOTHING

    def drawn(self, policy: str, seed: int, n: int) -> Condition:
        return NOTHING


@dataclass(frozen=True)
class Text:
    """Each sample is described by a text: ``text`` (B, L, W), its ``text_mask``, and ``pooled`` (B, P) if there is one.

    The null condition is a text without tokens, as the empty text is.

    Args:
        length: L, places for tokens.
        width: W, channels of a token.
        pooled: P, channels of the vector that sums the text up; 0 where there is none.
    """

    length: int
    width: int
    pooled: int = 0

    def __post_init__(self) -> None:
        for name, low in (("length", 1), ("width", 1), ("pooled", 0)):
            check_number(f"condition.{name}", getattr(self, name), low=low, integer=True)

    @property
    def n_tokens(self) -> int:
        """Those of the text, and a learned one that is all a network sees of a text without tokens."""
        return 1 + self.length

    def null(self, n: int, device: "torch.device | str" = "cpu") -> Condition:
        import torch

        half = {
            "dtype": torch.float16,
            "device": device,
        }  # as shards store texts; float32 beside it stays float32
        told = {
            "text": torch.zeros(n, self.length, self.width, **half),
            "text_mask": torch.zeros(n, self.length, dtype=torch.bool, device=device),
        }
        return Condition(told | ({"pooled": torch.zeros(n, self.pooled, **half)} if self.pooled else {}))

    def drawn(self, policy: str, seed: int, n: int) -> Condition:
        """Null conditions: no text is known here. ``LatentSet.drawn`` takes the texts of held-out samples."""
        check_choice("labels", policy, POLICIES)
        return self.null(n)


@dataclass(frozen=True)
class Several:
    """Conditions of several kinds at once, whose tensors have different names.

    Args:
        kinds: at least two.
    """

    kinds: tuple[ConditionKind, ...]

    @property
    def n_tokens(self) -> int:
        return sum(kind.n_tokens for kind in self.kinds)

    def null(self, n: int, device: "torch.device | str" = "cpu") -> Condition:
        return joined(kind.null(n, device) for kind in self.kinds)

    def drawn(self, policy: str, seed: int, n: int) -> Condition:
        return joined(kind.drawn(policy, seed, n) for kind in self.kinds)


def joined(conditions: Iterable[Condition]) -> Condition:
    """What several conditions say of the same samples; the later one where two hold tensors of one name."""
    return Condition({name: tensor for told in conditions for name, tensor in told.items()})


def together(kinds: Sequence[ConditionKind]) -> ConditionKind:
    """The kind of conditions that say all that these say."""
    return (kinds[0] if len(kinds) == 1 else Several(tuple(kinds))) if kinds else Nothing()


Kind = TypeVar("Kind", Classes, Text)


def find(kind: ConditionKind, wanted: type[Kind]) -> Kind | None:
    """The part of a kind that is ``Classes`` or ``Text``; None where it has none."""
    parts = kind.kinds if isinstance(kind, Several) else (kind,)
    return next((part for part in parts if isinstance(part, wanted)), None)


_KINDS = {"classes": Classes, "nothing": Nothing, "text": Text}


def kind_as_dict(kind: ConditionKind) -> dict[str, Any]:
    """A kind as a value ready for json."""
    if isinstance(kind, Several):
        return {"kind": "several", "kinds": [kind_as_dict(part) for part in kind.kinds]}
    name = next(name for name, known in _KINDS.items() if type(kind) is known)
    return {"kind": name, **vars(kind)}


def kind_of_dict(said: Mapping[str, Any]) -> ConditionKind:
    """The kind of ``kind_as_dict``."""
    fields = dict(said)
    if (name := fields.pop("kind")) == "several":
        return Several(tuple(map(kind_of_dict, fields["kinds"])))
    return _KINDS[name](**fields)
