"""The configuration of a diffusion transformer, which builds and counts itself; imports torch only to build."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dit.condition import ConditionKind
from dit.domain import Domain
from dit.network.counting import Counts, count
from dit.network.options import FIXED_INPUTS, MUP_BASE_WIDTH, DiTOptions

if TYPE_CHECKING:
    from torch import Tensor

    from dit.network.dit import DiT


@dataclass(frozen=True)
class DiTConfig(DiTOptions):
    """One network, whatever it is trained on; ``DiTOptions`` explains its fields."""

    @property
    def facts(self) -> dict[str, Any]:
        """What a run's record says of its network."""
        return {
            name: getattr(self, name) for name in ("width", "depth", "heads", "patch_size", "conditioning")
        }

    def lr_multiplier(self, name: str, parameter: "Tensor") -> float:
        """Learning rate of one parameter over that at the base width; 1 for all in the standard parametrization.

        Under muP with Adam a matrix whose inputs grow with the width learns at base width / width; what reads a
        fixed number of inputs (patches, time features, labels, texts, positions) and every vector at the base rate.
        """
        reads_fixed = name.startswith((*FIXED_INPUTS, "t_embedder.mlp.0", "y_embedder", "pos_embed"))
        if self.parametrization == "standard" or parameter.ndim == 1 or reads_fixed:
            return 1.0
        return MUP_BASE_WIDTH / self.width

    def decays(self, name: str, parameter: "Tensor") -> bool:
        """Whether weight decay acts: on matrices, not on vectors, embeddings and positions."""
        return parameter.ndim > 1 and not name.startswith(("x_embedder.table", "y_embedder", "pos_embed"))

    def hidden_maps(self, name: str) -> int:
        """How many linear maps a parameter stacks if Muon takes it, else 0.

        Muon takes every matrix of the blocks. Maps that share a parameter only to be computed together are
        orthogonalised one by one.
        """
        if not (name.startswith("blocks.") and name.endswith(".weight")) or "norm" in name:
            return 0
        stacked = {"qkv": 3, "kv": 2, "modulation": self.n_modulations}
        if self.mlp == "swiglu":
            stacked["fc1"] = 2
        return stacked.get(name.split(".")[-2], 1)

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
