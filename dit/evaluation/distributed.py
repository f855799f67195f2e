"""Reductions of measurements over the ranks of a process group, which must exist.

N images of all ranks, R of this one, D feature width.
"""

import numpy as np
import torch
import torch.distributed as dist

from dit.evaluation.statistics import Statistics


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
    return Statistics.of_moments(total, common, moved / (total - 1), stats.metadata)


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
