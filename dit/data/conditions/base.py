"""The conditions that a latent directory stores of each sample, for networks to be told; imports no torch."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from dit.condition import Classes, ConditionKind, Text, together
from dit.data.images import Source
from dit.data.manifest import Manifest, check_settings
from dit.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

SHOWN = 5  # items without a caption that an error lists by name

# n texts -> text (n, L, W) float16, text_mask (n, L) bool and, where there is one, pooled (n, P) float16; on the CPU
Encode = Callable[[Sequence[str]], "dict[str, Tensor]"]


class TextEncoder(Protocol):
    """What turns texts into the tensors that a network is told."""

    @property
    def kind(self) -> Text:
        """The kind of condition that it makes."""
        ...

    @property
    def config(self) -> dict[str, Any]:
        """Its settings but for the place of its files, as the manifest stores them; holds ``kind``."""
        ...

    @property
    def files(self) -> dict[str, str]:
        """File name -> SHA-256 of its weights and vocabulary; empty where it has none."""
        ...

    def open(self, device: str) -> Encode:
        """The working encoder. A text that is too long is cut."""
        ...


@dataclass(frozen=True)
class Conditions:
    """The parts of a sample's condition.

    Args:
        label: whether its class is one.
        text: the encoder of its caption; None where captions are none.
    """

    label: bool = True
    text: TextEncoder | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.label, bool):
            raise InputError("condition.spec.label", self.label, "true or false")
        if self.text is not None and not hasattr(self.text, "kind"):
            remedy = "condition=bytes, clip or t5 chooses one."
            raise InputError("condition.spec.text", self.text, "the settings of an encoder", remedy)

    def kind(self, classes: Classes) -> ConditionKind:
        """The kind of condition of samples that are of these classes."""
        return together([*([classes] if self.label else []), *([self.text.kind] if self.text else [])])

    @property
    def config(self) -> dict[str, Any] | None:
        """What the manifest stores; None for labels alone, which older directories hold."""
        if self == Conditions():
            return None
        return {"label": self.label, "text": None if self.text is None else self.text.config}


class Captions:
    """The captions of a source's items, and the encoder that makes columns of shards of them.

    Args:
        source: gives the captions, all of which are read at once.
        encoder: of texts.
        device: where it runs.
        batch_size: texts per call of the encoder.

    Raises:
        InputError: the source has no captions, or an item has none.
    """

    def __init__(self, source: Source, encoder: TextEncoder, device: str, batch_size: int) -> None:
        self.texts = _captions(source)
        self.encoder, self.device, self.batch_size = encoder, device, batch_size

    @property
    def identity(self) -> dict[str, Any]:
        """What tells these encoded texts from others, beside the encoder's settings."""
        digest = hashlib.sha256()
        for text in self.texts:
            digest.update(text.encode() + b"\0")
        return {"captions_sha256": digest.hexdigest(), "encoder": self.encoder.files}

    @cached_property
    def _encode(self) -> Encode:
        return self.encoder.open(self.device)

    def columns(self, index: Sequence[int]) -> "dict[str, list[Tensor]]":
        """The columns of some items, in batches: name -> tensors (b, ...)."""
        batches = range(0, len(index), self.batch_size)
        parts = [
            self._encode([self.texts[i] for i in index[first : first + self.batch_size]]) for first in batches
        ]
        return {name: [part[name] for part in parts] for name in parts[0]}


def _captions(source: Source) -> list[str]:
    read = getattr(source, "captions", None)
    if read is None:
        got = f"(a text, of {source.identity()['kind']} data)"
        raise InputError("condition", got, "label: these data have no captions")
    found = read()
    missing = [source.describe(index) for index, text in enumerate(found) if text is None]
    if missing:
        listed = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
        raise InputError(
            "condition",
            f"({len(missing)} of {len(found)} items without a caption: {listed})",
            "a caption of each item: a .txt file beside it of the same name, or a text in data.source.caption_column",
            "Or train on labels with condition=label.",
        )
    return found


def open_encoder(conditions: Conditions, directory: str, config: dict[str, Any]) -> Encode:
    """The encoder by which the texts of a latent directory were made, for other texts.

    Args:
        conditions: of the run.
        directory: its latents.
        config: that of their manifest.

    Raises:
        InputError: there is none, or it is another one now.
    """
    if conditions.text is None or "texts" not in config:
        remedy = "Encode with condition=bytes, clip or t5, and train on that."
        raise InputError(
            "prompt", f"(a run on {directory}, which holds no texts)", "a run told texts", remedy
        )
    check_settings(Manifest.read(directory), {"condition": conditions.config})
    if conditions.text.files != config["texts"]["encoder"]:
        got, allowed = f"(other files than those that made {directory})", "the very encoder of these texts"
        raise InputError("condition.spec.text.path", got, allowed)
    return conditions.text.open("cpu")
