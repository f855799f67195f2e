"""The configuration of a diffusion transformer, which builds and counts itself; imports torch only to build."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dit.condition import ConditionKind
from dit.domain import Domain
from dit.network.counting import Counts, count
from dit.network.options import DiTOptions

if TYPE_CHECKING:
    from dit.network.dit import DiT


@dataclass(frozen=True)
class DiTConfig(DiTOptions):
    """One network, whatever it is trained on; ``DiTOptions`` explains its fields."""

    def build(
        self, domain: Domain, kind: ConditionKind, out_channels: int | None = None, *, seed: int = 0
    ) -> "DiT":
        """The network for samples of one domain and conditions of one kind; of tokens it gives logits (B, V, ...).

        Args:
            domain: what one sample is; other sizes work too.
            kind: what the network is told besides the time.
            out_channels: channels of the output; None means those of the domain.
            seed: of the initial weights.
        """
        from dit.network.dit import DiT

        return DiT(self, domain, kind, out_channels, seed=seed)

    def count(self, domain: Domain, kind: ConditionKind, out_channels: int | None = None) -> Counts:
        """The parameters and multiply-adds of ``build``'s network."""
        return count(self, domain, kind, out_channels)
