"""Peak rates of accelerators, for MFU (share of the peak) and for the price of a plan. Standard library only."""

import re

# Dense bf16 matrix products with fp32 accumulation, FLOP/s of one device; the more special name first.
# Sources: NVIDIA's data sheets of the A100 (2021), H100 (2023), H200 (2024) and HGX B200 (2025), whose tensor-core
# figures are "with sparsity" and twice these except for the A100; AMD's data sheet of the Instinct MI300X (2023).
PEAK_BF16_FLOPS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "MI300X": 1307e12,
}


def peak_flops(device_name: str) -> float | None:
    """Peak dense bf16 rate of an accelerator in FLOP/s (not multiply-adds); None where its name is not in the table.

    Args:
        device_name: as the driver gives it (``NVIDIA H100 80GB HBM3``) or short (``h100``); part of a device (MIG)
            has no rate here.
    """
    if re.search(r"\bmig\b", device_name, re.IGNORECASE):
        return None
    for name, rate in PEAK_BF16_FLOPS.items():
        words = r".*\b".join(re.escape(word) + r"(?![a-z0-9])" for word in name.split())
        if re.search(rf"(?<![a-z0-9]){words}", device_name, re.IGNORECASE):
            return rate
    return None
