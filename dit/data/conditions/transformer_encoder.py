"""Texts by an encoder of transformers: CLIP, T5, BERT and others, from a local directory."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dit.condition import Text
from dit.data.conditions.base import Encode
from dit.data.manifest import file_sha256
from dit.errors import InputError, check_number
from dit.trust import read_json

if TYPE_CHECKING:
    from torch import Tensor

WIDTHS = ("hidden_size", "d_model", "dim")  # the names that configurations have for the width of a token
KEPT = (".json", ".safetensors", ".model", ".txt")  # files of an encoder: settings, weights, vocabularies


@dataclass(frozen=True)
class Transformer:
    """A text encoder of the library transformers, in float32: its last hidden states are the tokens.

    Args:
        path: a directory as its ``save_pretrained`` writes it: weights as safetensors, and tokenizer. Nothing is
            downloaded.
        length: tokens that are read; the rest of a longer text is cut off.
        pooled: whether the encoder's pooled output is told besides; CLIP and BERT have one, T5 has none.
    """

    path: str
    length: int
    pooled: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not self.path:
            raise InputError("condition.spec.text.path", self.path, "the directory of a text encoder")
        check_number("condition.spec.text.length", self.length, low=1, integer=True)
        if not isinstance(self.pooled, bool):
            raise InputError("condition.spec.text.pooled", self.pooled, "true or false")

    @cached_property
    def kind(self) -> Text:
        width = next((self._settings[name] for name in WIDTHS if name in self._settings), None)
        if not isinstance(width, int) or isinstance(width, bool) or width < 1:
            raise self._refused(f"a config.json that says the width of a token ({', '.join(WIDTHS)})")
        return Text(self.length, width, width if self.pooled else 0)

    @property
    def config(self) -> dict[str, Any]:
        return {"kind": "transformer", "length": self.length, "pooled": self.pooled}

    @cached_property
    def files(self) -> dict[str, str]:
        paths = [path for path in sorted(self._folder.iterdir()) if path.suffix in KEPT and path.is_file()]
        return {path.name: file_sha256(path) for path in paths}

    @cached_property
    def _folder(self) -> Path:
        folder = Path(os.path.expanduser(self.path))
        if not (folder / "config.json").is_file():
            raise self._refused("a directory with config.json, weights as safetensors, and a tokenizer")
        return folder

    @cached_property
    def _settings(self) -> dict[str, Any]:
        """The encoder's own, of a model of text and pictures those of its texts."""
        found = read_json(self._folder / "config.json")
        inner = found.get("text_config")
        return inner if isinstance(inner, dict) else found

    def _refused(self, allowed: str, why: str = "") -> InputError:
        return InputError("condition.spec.text.path", f"{self.path}{why}", allowed)

    def open(self, device: str) -> Encode:
        try:
            import transformers
        except ImportError as error:
            remedy = "Install it: pip install dit-scaling[text]. Or use condition=bytes."
            raise InputError("condition", "(a text encoder)", "the library transformers", remedy) from error
        kinds: dict[str, Any] = {
            "clip": transformers.CLIPTextModel
        }  # of whose two models only that of texts is read
        auto: Any = transformers.AutoModelForTextEncoding
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(self._folder, **options)
            config = transformers.AutoConfig.from_pretrained(self._folder, **options)
            load = kinds.get(config.model_type, auto).from_pretrained
            model, found = load(
                self._folder, **options, use_safetensors=True, dtype="float32", output_loading_info=True
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            why = f" ({' '.join(str(error).split())[:200]})"
            raise self._refused("a text encoder that transformers can read", why) from error
        if missing := sorted(found["missing_keys"]):  # transformers fills them with random numbers
            raise self._refused("a complete encoder", f" (without its weights {missing[0]}, ...)")
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return _Working(self, tokenizer, model.eval().requires_grad_(False).to(device))


@dataclass(frozen=True)
class _Working:
    """A tokenizer and a model of transformers, as one function of texts."""

    spec: Transformer
    tokenizer: Any
    model: Any

    def __call__(self, texts: Sequence[str]) -> "dict[str, Tensor]":
        import torch

        limits = {"padding": "max_length", "truncation": True, "max_length": self.spec.length}
        tokens = self.tokenizer(list(texts), **limits, return_tensors="pt").to(self.model.device)
        mask = tokens["attention_mask"]
        with torch.no_grad():
            told = self.model(input_ids=tokens["input_ids"], attention_mask=mask)
        found = {"text": self._half(told.last_hidden_state), "text_mask": mask.bool().cpu()}
        if not self.spec.pooled:
            return found
        if getattr(told, "pooler_output", None) is None:
            allowed = "false: this encoder has no pooled output"
            raise InputError("condition.spec.text.pooled", True, allowed)
        return found | {"pooled": self._half(told.pooler_output)}

    def _half(self, numbers: "Tensor") -> "Tensor":
        import torch

        half = numbers.to(torch.float16).cpu()
        if not bool(half.isfinite().all()):
            allowed = "an encoder whose outputs are finite in float16"
            raise InputError("condition.spec.text.path", self.spec.path, allowed)
        return half
