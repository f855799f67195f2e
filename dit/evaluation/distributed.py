"""Work shared by the ranks of a process group, and reductions of what they measured.

N images of all ranks, R of this one, D feature width.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from dit.evaluation.statistics import Statistics


def place(distributed: bool) -> tuple[int, int]:
    """(rank, world size): in the process group, or of a process alone."""
    return (dist.get_rank(), dist.get_world_size()) if distributed else (0, 1)


def batches_in_turn(n: int, batch_size: int, rank: int, world: int) -> Iterator[range]:
    """The samples of one rank, a batch at a time: batch k belongs to rank k mod world.

    The batches are the same for any number of ranks, so that no network rounds otherwise. All ranks get
    equally many, since sharded networks wait for each other: an empty one where there are no more.
    """
    n_batches = -(-n // batch_size)
    for number in range(rank, -(-n_batches // world) * world, world):
        start = number * batch_size
        yield range(min(start, n), min(start + batch_size, n))


def batches_in_a_row(n: int, batch_size: int, rank: int, world: int) -> Iterator[range]:
    """The same batches, consecutive ones to each rank: for files, which are read front to back."""
    edges = np.linspace(0, -(-n // batch_size), world + 1).astype(int)
    for number in range(edges[rank], edges[rank + 1]):
        yield range(number * batch_size, min((number + 1) * batch_size, n))


def rank_zero_says(value: Any) -> Any:
    """The value that rank 0 has, on every rank."""
    said = [value]
    dist.broadcast_object_list(said)
    return said[0]


def gather_images(images: torch.Tensor) -> list[torch.Tensor]:
    """The batches (B, 3, H, W) of all ranks in their order, on every rank; B may differ."""
    parts: list[torch.Tensor] = [images] * dist.get_world_size()
    dist.all_gather_object(parts, images.cpu())
    return parts


def reduce_statistics(stats: Statistics) -> Statistics:
    """The statistics of all ranks' images, on every rank.

    The global mean comes first and each rank's scatter is moved to it, so that nothing cancels.
    """
    n, mean, scatter = stats.n, stats.mean, stats.scatter
    assert n is not None, "only counted statistics are reduced"
    total = int(_sum(np.array([float(n)]))[0])
    common = _sum(mean * n) / total
    delta = mean - common
    moved = _sum(scatter + np.outer(delta, delta * n))
    return Statistics.of_moments(total, common, moved / max(total - 1, 1), stats.metadata)


def gather_rows(rows: np.ndarray, index: np.ndarray) -> np.ndarray:
    """All ranks' rows (N, ...) in the order of their global ``index`` (R,), on every rank."""
    parts: list[tuple[np.ndarray, np.ndarray]] = [(rows, index)] * dist.get_world_size()
    dist.all_gather_object(parts, (rows, index))
    order = np.argsort(np.concatenate([part[1] for part in parts]), kind="stable")
    return np.concatenate([part[0] for part in parts])[order]


def sum_integers(value: int) -> int:
    """The sum of a Python integer of any size over ranks."""
    values = [0] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return sum(values)


def _sum(array: np.ndarray) -> np.ndarray:
    on = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else "cpu"
    tensor = torch.as_tensor(array).to(on)
    dist.all_reduce(tensor)
    return tensor.cpu().numpy()
