"""Muon: steps of orthogonal matrices for the hidden matrices of the blocks, AdamW for everything else.

m n: rows and columns of one linear map, k: maps stacked in one parameter (q, k and v; the modulations of a block).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from dit.training.averaging import shard

# The quintic of the Newton-Schulz iteration and the number of iterations: singular values end in about [.7, 1.2].
# Source: Jordan et al. 2024, Muon: an optimizer for hidden layers in neural networks.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
# Root mean square of an update: that of a typical AdamW step, so that the two share one learning rate and weight decay.
# Source: Liu et al. 2025, arXiv 2502.16982, section 2.2.
RMS = 0.2


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


def direction(matrix: Tensor, maps: int) -> Tensor:
    """Orthogonal directions of the ``maps`` linear maps that are stacked in a matrix (maps m, n), at AdamW's size."""
    parts = matrix.unflatten(0, (maps, -1))  # (k, m, n)
    return orthogonalize(parts).flatten(0, 1) * (RMS * max(parts.shape[1:]) ** 0.5)


class _Hidden(NamedTuple):
    """A parameter that Muon takes, how many linear maps it stacks, and its group's settings."""

    parameter: Tensor
    maps: int
    settings: dict[str, Any]


class MuonAdamW(torch.optim.Optimizer):
    """One optimizer of two methods; each parameter's state is tensors, as in torch's own optimizers.

    Parameters may be DTensors cut by rows, as FSDP2 cuts them. An orthogonal direction needs the whole matrix, so the
    ranks that share the matrices take turns: each puts one together, and hands the pieces of its direction back.

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
        """Moves every parameter that has a gradient, unless ``found_inf`` is set and not 0; the host does not wait."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        hidden = [
            _Hidden(parameter, maps, group)
            for group in self.param_groups[: self.n_hidden]
            for parameter, maps in zip(group["params"], group["maps"], strict=True)
            if parameter.grad is not None
        ]
        hidden.sort(key=lambda each: each.parameter.numel())  # turns of matrices that take like times
        ranks = _sharers(hidden[0].parameter) if hidden else None
        at_once = 1 if ranks is None else ranks.size()
        for first in range(0, len(hidden), at_once):
            self._move(hidden[first : first + at_once], ranks)
        self.adamw.found_inf = self.found_inf  # type: ignore[attr-defined]
        self.adamw.step()
        return loss

    def _move(self, turn: Sequence[_Hidden], ranks: dist.ProcessGroup | None) -> None:
        updates = [self._update(each.parameter) for each in turn]
        alone = ranks is None
        directions = [direction(updates[0], turn[0].maps)] if alone else _directions(turn, updates, ranks)
        for each, piece in zip(turn, directions, strict=True):
            lr, weights = each.settings["lr"], shard(each.parameter)
            moved = weights.mul(1 - lr * each.settings["weight_decay"]).add_(piece, alpha=-lr)
            self._set(weights, moved)

    def _update(self, parameter: Tensor) -> Tensor:
        """This rank's piece of the update, Nesterov's, before it is made orthogonal."""
        assert parameter.grad is not None
        gradient, state = shard(parameter.grad), self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = shard(state["momentum"])
        moved = momentum.lerp(gradient, 1 - self.momentum)
        self._set(momentum, moved)
        return gradient.lerp(moved, self.momentum)

    def _set(self, value: Tensor, moved: Tensor) -> None:
        value.copy_(moved if self.found_inf is None else torch.where(self.found_inf > 0, value, moved))


def _sharers(parameter: Tensor) -> dist.ProcessGroup | None:
    """The ranks among which a parameter is cut; None where each holds it whole."""
    if not isinstance(parameter, DTensor):
        return None
    mesh = parameter.device_mesh
    group = mesh.get_group(mesh.ndim - 1)  # the last dimension is that of shards
    return group if group.size() > 1 else None


def _directions(turn: Sequence[_Hidden], pieces: Sequence[Tensor], ranks: dist.ProcessGroup) -> list[Tensor]:
    """This rank's pieces of the directions of at most as many matrices as ranks, of which rank i computes the i-th."""
    size, rank = ranks.size(), ranks.rank()
    idle = [0] * (size - len(turn))
    sent = [piece.numel() for piece in pieces] + idle
    mine = turn[rank] if rank < len(turn) else None
    received = [0] * size if mine is None else _cut(mine.parameter.shape, size)
    whole = pieces[0].new_empty(sum(received))  # pieces are rows, in the order of the ranks
    dist.all_to_all_single(whole, torch.cat([piece.flatten() for piece in pieces]), received, sent, ranks)
    if mine is not None:
        whole = direction(whole.view(mine.parameter.shape), mine.maps).flatten()
    back = pieces[0].new_empty(sum(sent))
    dist.all_to_all_single(back, whole, sent, received, ranks)
    return [part.view_as(piece) for part, piece in zip(back.split(sent), pieces, strict=False)]


def _cut(shape: torch.Size, size: int) -> list[int]:
    """Elements of each of ``size`` ranks' pieces of a matrix, as FSDP2 cuts it: like ``torch.chunk``, by rows."""
    rows = -(-shape[0] // size)
    return [max(0, min(rows, shape[0] - rank * rows)) * shape[1] for rank in range(size)]
