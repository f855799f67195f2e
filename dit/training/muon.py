"""Muon: steps of orthogonal matrices for the hidden matrices of the blocks, AdamW for everything else.

m n: rows and columns of one linear map, k: maps stacked in one parameter (q, k and v; the modulations of a block).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate

from dit.network.config import DiTConfig

# The quintic of the Newton-Schulz iteration and the number of iterations: singular values end in about [.7, 1.2].
# Source: Jordan et al. 2024, Muon: an optimizer for hidden layers in neural networks.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
# Root mean square of an update: that of a typical AdamW step, so that the two share one learning rate and weight decay.
# Source: Liu et al. 2025, arXiv 2502.16982, section 2.2.
RMS = 0.2


def hidden_maps(name: str, config: DiTConfig) -> int:
    """How many linear maps a parameter of a network stacks if Muon takes it, else 0.

    Muon takes every matrix of the blocks. Maps that share a parameter only to be computed together are orthogonalised
    one by one.
    """
    if not (name.startswith("blocks.") and name.endswith(".weight")) or "norm" in name:
        return 0
    stacked = {"qkv": 3, "kv": 2, "modulation": config.n_modulations}
    if config.mlp == "swiglu":
        stacked["fc1"] = 2
    return stacked.get(name.split(".")[-2], 1)


def orthogonalize(matrices: Tensor) -> Tensor:
    """The nearest orthogonal matrices, roughly: U V' with singular values near 1 of U S V'.

    Args:
        matrices: (k, m, n). Computed in bfloat16 on a GPU, in their own precision on a CPU.

    Source: Jordan et al. 2024 (see COEFFICIENTS).
    """
    a, b, c = COEFFICIENTS
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    is_tall = x.shape[1] > x.shape[2]
    x = x.mT if is_tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if is_tall else x).to(matrices.dtype)


class MuonAdamW(torch.optim.Optimizer):
    """One optimizer of two methods; each parameter's state is tensors, as in torch's own optimizers.

    Parameters may be DTensors: the momentum stays sharded; the update, which needs the whole matrix, is gathered and
    computed on every rank.

    Args:
        hidden: groups for Muon, each with ``maps``: how many linear maps each of its parameters stacks.
        others: groups for AdamW.
        lr: learning rate of both.
        momentum: of Muon, in Nesterov's form.
        betas, eps: of AdamW.

    Source: Jordan et al. 2024; scale of the update and weight decay: Liu et al. 2025, arXiv 2502.16982, equation 4.
    """

    def __init__(
        self,
        hidden: Sequence[dict[str, Any]],
        others: Sequence[dict[str, Any]],
        *,
        lr: float,
        momentum: float,
        betas: tuple[float, float],
        eps: float = 1e-8,
    ) -> None:
        super().__init__([*hidden, *others], {"lr": lr, "weight_decay": 0.0})
        self.momentum, self.n_hidden = momentum, len(hidden)
        # it works on the same groups and the same state, so whoever sets a rate or restores a state sees one optimizer
        self.adamw = torch.optim.AdamW(
            self.param_groups[self.n_hidden :], lr=lr, betas=betas, eps=eps, fused=True
        )
        self.adamw.state = self.state
        self.found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Moves every parameter that has a gradient, unless ``found_inf`` is set and not 0 (which is waited for)."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self.found_inf is not None and self.found_inf.item():
            return loss
        for group in self.param_groups[: self.n_hidden]:
            for parameter, maps in zip(group["params"], group["maps"], strict=True):
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(self._direction(parameter, maps), alpha=-group["lr"])
        self.adamw.step()
        return loss

    def _direction(self, parameter: Tensor, maps: int) -> Tensor:
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].lerp_(gradient, 1 - self.momentum)
        update = gradient.lerp(momentum, self.momentum)
        whole = update.full_tensor() if isinstance(update, DTensor) else update
        matrices = whole.unflatten(0, (maps, -1))  # (k, m, n)
        direction = orthogonalize(matrices).flatten(0, 1) * (RMS * max(matrices.shape[1:]) ** 0.5)
        if isinstance(update, DTensor):
            mesh = update.device_mesh
            everywhere = DTensor.from_local(direction, mesh, [Replicate()] * mesh.ndim, run_check=False)
            direction = everywhere.redistribute(placements=update.placements)
        return direction
