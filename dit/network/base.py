"""What training and sampling use of a network, whatever its architecture."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from dit.condition import ConditionKind
from dit.domain import Domain


class NetworkConfig(Protocol):
    """The part of a configuration that optimizers read."""

    @property
    def width(self) -> int: ...

    @property
    def parametrization(self) -> str:
        """``standard`` | ``mup``."""
        ...

    def lr_multiplier(self, name: str, parameter: Tensor) -> float:
        """The learning rate of a parameter over that at the base width."""
        ...

    def decays(self, name: str, parameter: Tensor) -> bool:
        """Whether weight decay acts on a parameter."""
        ...

    def hidden_maps(self, name: str) -> int:
        """How many linear maps a parameter stacks if Muon takes it, else 0."""
        ...


class Network(nn.Module):
    """A network F(x, t, condition) for samples of one domain and conditions of one kind; built by its configuration.

    Attributes:
        config: its configuration.
        domain: the samples it is built for.
        kind: what it is told besides the time.
        out_channels: channels of the output.
        blocks: what is compiled, recomputed and sharded one by one.
        turns_velocity: whether its velocity belongs to a time that runs the other way, which ``forward`` turns round.
    """

    config: Any
    domain: Domain
    kind: ConditionKind
    out_channels: int
    blocks: Sequence[nn.Module] | nn.ModuleList
    turns_velocity = False

    def twin(self) -> "Network":
        """A network of the same kind, with initial weights."""
        return type(self)(self.config, self.domain, self.kind, self.out_channels)

    def fill_tables(self) -> None:
        """Recomputes what no checkpoint stores; needed after ``to_empty`` of a network on meta."""
