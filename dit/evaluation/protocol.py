"""The protocol: everything that moves a sample metric besides the model, stored beside every number."""

import dataclasses
import functools
import hashlib
import inspect
import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dit.errors import InputError, check_choice, check_number
from dit.older import with_guidance
from dit.records import PROTOCOL
from dit.trust import check_fields

ROUNDING = "clamp(127.5 x + 128)"
GUIDANCE = ("guidance", "guidance_scale", "guidance_channels")  # what guidance is varied by, all at once
NEEDS = {
    name: PROTOCOL[name] for name in ("reference", "extractor", "extractor_sha256", "preprocessing", "n")
}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a number was made. Two numbers may stand on one axis only where their protocols are equal.

    Args:
        reference: hash or name of the reference statistics.
        reference_n: images in the reference; None where its file does not say.
        extractor: name of the feature extractor.
        extractor_sha256: hash of its weights.
        preprocessing: what it does to uint8 images before the network (resize, range).
        n: images measured.
        seed: the sampling seed, from which labels and each sample's noise follow, or those averaged over; None
            for images from files.
        labels: ``balanced`` or ``random``; None for images from files.
        solver: solver with its settings; None for images from files.
        grid: time grid with its settings.
        nfe: network calls per image, guidance included.
        guidance: guidance with its settings; ``none`` when off.
        guidance_scale: its scale, 1 when off; None where it has none.
        guidance_channels: how many of the latent's channels it moves, the first ones; None: all.
        weights: ``raw``, or the averaged weights by name (``ema``).
        precision: arithmetic of the network while sampling.
        decoder: hash or kind of the autoencoder which makes images of latents.
        rounding: from the decoder's [-1, 1] to uint8; of images from files ``as stored``, and the crop they were given.
    """

    reference: str
    reference_n: int | None
    extractor: str
    extractor_sha256: str
    preprocessing: str
    n: int
    seed: int | tuple[int, ...] | None = None
    labels: str | None = None
    solver: str | None = None
    grid: str | None = None
    nfe: int | None = None
    guidance: str = "none"
    guidance_scale: float | None = 1.0
    guidance_channels: int | None = None
    weights: str | None = None
    precision: str | None = None
    decoder: str | None = None
    rounding: str = ROUNDING

    def __post_init__(self) -> None:
        check_number("evaluation.n", self.n, low=2, integer=True)
        if self.labels is not None:
            check_choice("evaluation.labels", self.labels, ("balanced", "random"))

    def as_dict(self) -> dict[str, object]:
        """The fields as JSON values, in the order of declaration."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, object]) -> "Protocol":
        """The protocol of a stored record. Raises InputError for a field this version does not know."""
        record = with_guidance(record)
        known = {field.name for field in dataclasses.fields(cls)}
        for name in record:
            if name not in known:
                raise InputError(f"protocol.{name}", record[name], "fields: " + ", ".join(sorted(known)))
        check_fields("protocol", record, NEEDS, PROTOCOL)
        seed = record.get("seed")
        seed = tuple(seed) if isinstance(seed, list) else seed
        return cls(**{**record, "seed": seed})  # type: ignore[arg-type]

    @property
    def hash(self) -> str:
        """The first 16 hex digits of the sha256 of the fields.

        Without those that ``guidance`` says already, so that protocols keep the hash that they had before these.
        """
        fields = {name: value for name, value in self.as_dict().items() if name not in GUIDANCE[1:]}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


def require_equal(
    protocols: Iterable[Protocol | Mapping[str, object]], *, varying: Iterable[str] = ()
) -> dict[str, object]:
    """Raises InputError naming the first field in which protocols differ; returns the fields they share.

    Args:
        protocols: what is about to stand in one table or on one axis.
        varying: fields which may differ because they are the axis itself (``guidance``, ``nfe``, ``solver``,
            ``seed``).
    """
    records = [item.as_dict() if isinstance(item, Protocol) else dict(item) for item in protocols]
    free = set(varying)
    for record in records[1:]:
        for name in sorted(records[0].keys() | record.keys()):
            one, two = records[0].get(name), record.get(name)
            if name not in free and one != two:
                raise InputError(
                    f"protocol.{name}",
                    two,
                    f"{one!r}, as the first number has",
                    "Measure both under one protocol.",
                )
    return {name: value for name, value in (records[0] if records else {}).items() if name not in free}


def over_seeds(
    results: Sequence[tuple[Mapping[str, float | int | None], Protocol]],
) -> tuple[dict[str, float | int | None], Protocol]:
    """Metrics over sampling seeds: the mean of each, its sd as ``<metric>_sd_over_seeds`` (one seed: None).

    The protocol's seed is then all of the seeds.

    Raises:
        InputError: the protocols differ in anything but the seed.
    """
    protocols = [protocol for _, protocol in results]
    require_equal(protocols, varying=["seed"])
    table = [metrics for metrics, _ in results]
    summary: dict[str, float | int | None] = {"n": table[0]["n"], "seeds": len(table)}
    for name in table[0]:
        values = [value for row in table if (value := row.get(name)) is not None]
        if name != "n" and len(values) == len(table):
            summary[name] = statistics.fmean(values)
            summary[f"{name}_sd_over_seeds"] = statistics.stdev(values) if len(values) > 1 else None
    return summary, dataclasses.replace(protocols[0], seed=tuple(p.seed for p in protocols))


def describe(setting: object) -> str:
    """A function, partial or frozen value as a protocol stores it: ``ddim(eta=0.5)``."""
    if setting is None or isinstance(setting, str):
        return setting or "none"
    if isinstance(setting, functools.partial):
        arguments = [repr(value) for value in setting.args]
        arguments += [f"{name}={value!r}" for name, value in sorted(setting.keywords.items())]
        return f"{_name(setting.func)}({', '.join(arguments)})"
    if dataclasses.is_dataclass(setting) or not callable(setting):
        return repr(setting)
    return _name(setting)


def _name(function: Callable[..., object]) -> str:
    return function.__name__ if inspect.isroutine(function) or inspect.isclass(function) else repr(function)
