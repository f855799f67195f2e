"""What a configuration's data are, as one value: from the manifest, or before encoding from the settings."""

from dataclasses import dataclass
from typing import Any

from dit.condition import Classes, ConditionKind
from dit.data.autoencoder import AutoencoderSpec, latent_domain
from dit.data.conditions.base import Conditions
from dit.data.images import Source
from dit.data.manifest import Manifest, condition_kind, domain_of
from dit.domain import Domain


@dataclass(frozen=True)
class Facts:
    """The data that a run is trained on.

    Attributes:
        domain: what one sample is.
        kind: what a network is told of each.
        n_train, n_held_out: numbers of samples; None where the settings do not tell them before encoding.
        manifest_hash: names the encoded data; None before encoding.
    """

    domain: Domain
    kind: ConditionKind
    n_train: int | None
    n_held_out: int | None
    manifest_hash: str | None = None

    @classmethod
    def of_manifest(cls, manifest: Manifest) -> "Facts":
        """Those of encoded data."""
        content = manifest.content
        n_train, n_held_out = (content["splits"][name]["count"] for name in ("train", "validation"))
        domain, kind = domain_of(content), condition_kind(content)
        return cls(domain, kind, n_train, n_held_out, manifest.sha256)

    @classmethod
    def of_source(
        cls,
        source: Source,
        spec: AutoencoderSpec,
        conditions: Conditions,
        split: Any,
        image_size: int | None,
    ) -> "Facts":
        """Those of data that are not encoded yet.

        Args:
            source: raw samples.
            spec: the autoencoder.
            conditions: what networks are told of the samples.
            split: what chooses the held-out samples (``dit.data.split``).
            image_size: of pictures; None of arrays, which have their own.
        """
        n_held_out = split.held_out(source)
        n_train = None if n_held_out is None else len(source) - n_held_out
        domain = latent_domain(spec, source, image_size)
        return cls(domain, conditions.kind(Classes(len(source.class_names))), n_train, n_held_out)
