"""What compute costs: FLOPs into device-hours and days, and back. Imports no torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dit.accelerators import PEAK_BF16_FLOPS, peak_flops
from dit.errors import InputError, check_number

HOUR, DAY = 3600.0, 86400.0


@dataclass(frozen=True)
class Price:
    """The rate at which a study computes.

    Args:
        flops_per_second: of one device, as achieved in training.
        devices: how many work at a time.
        source: where the rate comes from, in words.
        by_size: (multiply-adds per token, FLOPs per second) of measured networks, rising: what ``flops_per_second``
            is for others. Between them it is linear in the logarithms, beyond them that of the nearest.
    """

    flops_per_second: float
    devices: int
    source: str
    by_size: tuple[tuple[float, float], ...] = ()

    def device_hours(self, flops: float, size: float | None = None) -> float:
        """Hours of one device for that much training compute of a network of that size."""
        rate = self.flops_per_second
        if self.by_size and size is not None:
            sizes, rates = np.log(np.array(self.by_size)).T
            rate = math.exp(np.interp(math.log(size), sizes, rates))
        return flops / rate / HOUR

    def of(self, flops: float, hours: float) -> dict[str, Any]:
        """A price as JSON values: compute and its hours of one device; days are those of all devices busy."""
        return {
            "flops": flops,
            "flops_per_second": flops / hours / HOUR,
            "rate": self.source,
            "gpu_hours": hours,
            "devices": self.devices,
            "days": hours * HOUR / self.devices / DAY,
        }


def make_price(
    flops_per_second: float | None, hardware: str | None, mfu: float, devices: int
) -> Price | None:
    """The price of a study; None where neither rate nor hardware is given.

    Args:
        flops_per_second: of one device, as measured.
        hardware: a name of ``dit.accelerators``, in place of it.
        mfu: share of the hardware's peak that training reaches.
        devices: how many work at a time.

    Raises:
        InputError: both are given, hardware that is not in the table, numbers out of range.
    """
    check_number("study.devices", devices, low=1, integer=True)
    check_number("study.mfu", mfu, above=0.0, high=1.0)
    if flops_per_second is not None and hardware is not None:
        raise InputError(
            "study.flops_per_second, study.hardware", (flops_per_second, hardware), "one of the two",
            "A rate is measured, or a share (study.mfu) of a hardware's peak.",
        )  # fmt: skip
    if hardware is not None:
        peak = peak_flops(str(hardware))
        if peak is None:
            allowed = "one of " + ", ".join(PEAK_BF16_FLOPS)
            raise InputError("study.hardware", hardware, allowed, "Or give study.flops_per_second.")
        return Price(mfu * peak, devices, f"{hardware}, {peak:.4g} FLOP/s at {mfu:.0%} MFU")
    if flops_per_second is None:
        return None
    check_number("study.flops_per_second", flops_per_second, above=0.0)
    return Price(flops_per_second, devices, f"{flops_per_second:.3g} FLOP/s")


def budgets_in_flops(
    flops: Sequence[float], gpu_hours: Sequence[float], price: Price | None
) -> Sequence[float]:
    """Budgets in FLOPs, given as such or as device-hours.

    Raises:
        InputError: both are given, or hours without a rate.
    """
    if not gpu_hours:
        return flops
    if flops:
        got = (list(flops), list(gpu_hours))
        raise InputError("study.budgets_flops, study.budgets_gpu_hours", got, "one of the two")
    if price is None:
        remedy = "Set study.hardware and study.mfu, or study.flops_per_second."
        raise InputError("study.budgets_gpu_hours", list(gpu_hours), "hours at a known rate", remedy)
    for hours in gpu_hours:
        check_number("study.budgets_gpu_hours", hours, above=0.0)
    return [hours * HOUR * price.flops_per_second for hours in gpu_hours]
