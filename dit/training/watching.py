"""What is looked at while a run trains: loss by noise level, rates, memory, waiting for data.

Nothing here stops the device but ``bin_means``: meters are tensors that are added to in every step and read seldom.

b: samples of a step, K: bins of log-SNR.
"""

import resource
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dit.accelerators import peak_flops


def bin_totals(loss: Tensor, log_snr: Tensor, edges: Tensor) -> Tensor:
    """Sum of losses and number of samples per bin of log-SNR: what to add to a meter after each step.

    A product with a mask instead of a scatter: the same bits on every run, also on a GPU.

    Args:
        loss: (b,) of each sample.
        log_snr: (b,) where it was taken.
        edges: (K + 1,) increasing; bin k is [edges[k], edges[k + 1]), and the outer two hold all beyond them as well.

    Returns:
        (2, K) float64: sums, then numbers.
    """
    n_bins = len(edges) - 1
    bins = torch.bucketize(log_snr.detach(), edges[1:-1].to(log_snr.dtype), right=True)  # (b,)
    mask = (bins[:, None] == torch.arange(n_bins, device=bins.device)).double()  # (b, K)
    values = torch.stack([loss.detach().double(), torch.ones_like(loss, dtype=torch.float64)])  # (2, b)
    return values @ mask


def bin_means(totals: Tensor) -> list[float | None]:
    """Mean loss of each bin of summed ``bin_totals`` (2, K); None for a bin without samples."""
    sums, counts = totals.tolist()
    return [total / count if count else None for total, count in zip(sums, counts, strict=True)]


def device_name(device: torch.device) -> str:
    """The accelerator's name as its driver gives it, or ``cpu``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that tensors held on a GPU since its peak was reset; on a CPU the most this process ever held."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Waiting:
    """An iterable of batches that knows how long its consumer waited for them.

    Args:
        batches: what to iterate, a loader.

    Attributes:
        seconds: waited so far, over all iterations.
    """

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = batches
        self.seconds = 0.0

    def __iter__(self) -> Iterator[Any]:
        iterator = iter(self.batches)
        while True:
            start = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            finally:
                self.seconds += time.perf_counter() - start
            yield batch


@dataclass(frozen=True)
class Moment:
    """One look at a run.

    Attributes:
        seconds: a monotonic clock.
        images_seen: the run's clock.
        waited_seconds: waited for data so far.
    """

    seconds: float
    images_seen: int
    waited_seconds: float = 0.0


@dataclass(frozen=True)
class Work:
    """What a run has to do, and with what.

    Args:
        total_images: the clock at the end.
        train_flops_per_image: training FLOPs of one image (not multiply-adds).
        device_name: of one accelerator.
        n_devices: how many share the batch.
    """

    total_images: int
    train_flops_per_image: float
    device_name: str = "cpu"
    n_devices: int = 1

    def mfu(self, images_per_second: float) -> float | None:
        """Model FLOPs utilisation: the training FLOPs done per second over the devices' peak; None without a peak.

        Recomputation by activation checkpointing is not counted as work done.

        Source: Chowdhery et al. 2022 (PaLM), arXiv 2204.02311, appendix B.
        """
        peak = peak_flops(self.device_name)
        if peak is None:
            return None
        return images_per_second * self.train_flops_per_image / (peak * self.n_devices)

    def rates(self, then: Moment, now: Moment) -> dict[str, float | None]:
        """Images/s, FLOP/s, MFU, share of time waited for data and ETA in seconds, from what went on between two looks.

        An ETA without progress is None.
        """
        elapsed = now.seconds - then.seconds
        rate = (now.images_seen - then.images_seen) / elapsed
        return {
            "images_per_second": rate,
            "flops_per_second": rate * self.train_flops_per_image,
            "mfu": self.mfu(rate),
            "data_wait_share": (now.waited_seconds - then.waited_seconds) / elapsed,
            "eta_seconds": (self.total_images - now.images_seen) / rate if rate else None,
        }
