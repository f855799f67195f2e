"""Peak rates by the names that drivers give devices; the figures are those of the vendors' data sheets."""

import pytest

from dit.accelerators import peak_flops


@pytest.mark.parametrize(
    ("device", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H200", 989),
        ("NVIDIA B200", 2250),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("AMD Instinct MI300X", 1307),
        ("h100", 989),
    ],
)
def test_known(device: str, tera: float) -> None:
    assert peak_flops(device) == tera * 1e12


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        "",
        "NVIDIA GeForce RTX 4090",
        "NVIDIA RTX A1000",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "NVIDIA GB200",
    ],
)
def test_unknown_is_none(device: str) -> None:
    assert peak_flops(device) is None
