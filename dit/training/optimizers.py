"""The optimizer and how its learning rate follows the clock and the width."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from dit.errors import InputError, check_choice, check_number
from dit.network.base import Network
from dit.network.parametrization import MUP_ADAM_EPS, parameter_groups
from dit.training import muon


def constant(lr: float, width: int, base_width: int) -> float:
    """The same learning rate at every width."""
    return lr


def inverse_width(lr: float, width: int, base_width: int) -> float:
    """Lr x base_width / width: what Adam wants for hidden matrices (Yang et al. 2022, arXiv 2203.03466, table 3)."""
    return lr * base_width / width


def inverse_sqrt_width(lr: float, width: int, base_width: int) -> float:
    """Lr x sqrt(base_width / width): between the other two, common in published scaling studies."""
    return lr * (base_width / width) ** 0.5


LEARNING_RATE_RULES: dict[str, Callable[[float, int, int], float]] = {
    rule.__name__: rule for rule in (constant, inverse_width, inverse_sqrt_width)
}


@dataclass(frozen=True)
class AdamW:
    """AdamW with a learning-rate rule over width and a linear warm-up over images.

    Args:
        lr: learning rate at ``base_width``.
        lr_rule: how it follows the network's width; a name of LEARNING_RATE_RULES.
        base_width: the width at which ``lr`` holds as it is.
        betas: decay of the two moments.
        weight_decay: decoupled decay of the matrices; vectors, embeddings and positions are never decayed.
    """

    lr: float
    lr_rule: str = "constant"
    base_width: int = 64
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_number("optimizer.lr", self.lr, above=0, high=10)
        check_choice("optimizer.lr_rule", self.lr_rule, LEARNING_RATE_RULES)
        check_number("optimizer.base_width", self.base_width, low=1, integer=True)
        check_number("optimizer.weight_decay", self.weight_decay, low=0)
        if not isinstance(self.betas, (list, tuple)) or len(self.betas) != 2:
            raise InputError("optimizer.betas", self.betas, "two numbers in [0, 1)")
        for beta in self.betas:
            check_number("optimizer.betas", beta, low=0, below=1)

    @property
    def _decays(self) -> tuple[float, float]:
        return float(self.betas[0]), float(self.betas[1])  # torch refuses integers

    def learning_rate(self, width: int) -> float:
        """The learning rate for a network of ``width``, by the rule."""
        return LEARNING_RATE_RULES[self.lr_rule](self.lr, width, self.base_width)

    def build(self, network: Network) -> torch.optim.Optimizer:
        """The optimizer over a network's parameters (fused: one kernel for all tensors).

        With muP every group has its own multiple of the learning rate, and width enters nowhere else.

        Raises:
            InputError: a learning-rate rule beside muP, which is one itself.
        """
        mup = network.config.parametrization == "mup"
        if mup and self.lr_rule != "constant":
            raise InputError(
                "optimizer.lr_rule",
                self.lr_rule,
                "constant with network.parametrization=mup",
                "muP scales the learning rate itself.",
            )
        lr = self.learning_rate(network.config.width)
        groups = parameter_groups(network, lr, self.weight_decay)
        return torch.optim.AdamW(
            groups, lr=lr, betas=self._decays, eps=MUP_ADAM_EPS if mup else 1e-8, fused=True
        )


@dataclass(frozen=True)
class Muon(AdamW):
    """Muon for the matrices of the blocks; AdamW for embeddings, the output, biases and gains.

    Its updates are scaled to the size of AdamW's, so that learning rate, rule and weight decay mean the same.

    Args:
        momentum: of Muon, in Nesterov's form.
        lr, lr_rule, base_width, betas, weight_decay: as of AdamW.

    Source: see ``dit.training.muon``.
    """

    momentum: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("optimizer.momentum", self.momentum, low=0, below=1)

    def build(self, network: Network) -> torch.optim.Optimizer:
        """The optimizer over a network's parameters.

        Raises:
            InputError: muP, whose learning rates are derived for Adam.
        """
        config = network.config
        if config.parametrization == "mup":
            raise InputError(
                "optimizer",
                "muon",
                "adamw with network.parametrization=mup",
                "muP's rates are derived for Adam: use optimizer=adamw, or network.parametrization=standard.",
            )
        maps = {parameter: config.hidden_maps(name) for name, parameter in network.named_parameters()}
        if not any(maps.values()):
            allowed = "adamw for networks without linear maps in their blocks"
            raise InputError("optimizer", "muon", allowed)
        lr = self.learning_rate(config.width)
        hidden, others = [], []
        for group in parameter_groups(network, lr, self.weight_decay):
            taken = [parameter for parameter in group["params"] if maps[parameter]]
            rest = [parameter for parameter in group["params"] if not maps[parameter]]
            if taken:
                hidden.append({**group, "params": taken, "maps": [maps[p] for p in taken], "name": "hidden"})
            if rest:
                others.append({**group, "params": rest})
        return muon.MuonAdamW(hidden, others, lr=lr, momentum=self.momentum, betas=self._decays)
