"""Published sizes by their published names, and a ladder of sizes at constant aspect; imports no torch."""

from typing import Any

from dit.errors import InputError, check_number
from dit.network.config import DiTConfig

# (width, depth, heads): DiT 2212.09748 table 1; LightningDiT 2501.01423 keeps the shapes of B, L and XL.
DIT_SHAPES = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "XL": (1152, 28, 16)}
# U-ViT 2209.12152 table 1; its depth counts the middle block too, as here.
UVIT_SHAPES = {"S": (512, 13, 8), "M": (768, 17, 12), "L": (1024, 21, 16), "H": (1152, 29, 16)}


def _published() -> dict[str, DiTConfig]:
    presets = {}
    for size, (width, depth, heads) in DIT_SHAPES.items():
        for patch_size in (8, 4, 2):
            presets[f"DiT-{size}/{patch_size}"] = DiTConfig(width, depth, heads, patch_size)
    for size in ("B", "L", "XL"):
        for patch_size in (1, 2):
            presets[f"LightningDiT-{size}/{patch_size}"] = DiTConfig(
                *DIT_SHAPES[size], patch_size, norm="rms", mlp="swiglu", rope=True
            )
    for size, (width, depth, heads) in UVIT_SHAPES.items():
        for patch_size in (4, 2):
            presets[f"U-ViT-{size}/{patch_size}"] = DiTConfig(
                width,
                depth,
                heads,
                patch_size,
                conditioning="in_context",
                positions="learned",
                long_skips=True,
            )
    return presets


PRESETS: dict[str, DiTConfig] = _published()


def ladder(
    width: int, aspect: int = 64, head_dim: int = 64, patch_size: int = 2, **options: Any
) -> DiTConfig:
    """The network of this width on a ladder where width/depth and the head's width stay constant.

    Args:
        width: D; a multiple of both ``aspect`` and ``head_dim``.
        aspect: width / depth.
        head_dim: channels of one head.
        patch_size: P.
        **options: further fields of ``DiTConfig`` (conditioning, rope, parametrization, ...).

    Raises:
        InputError: the width is off the ladder; never rounded silently.
    """
    check_number("network.width", width, low=1, integer=True)
    check_number("network.aspect", aspect, low=1, integer=True)
    check_number("network.head_dim", head_dim, low=1, integer=True)
    for name, step in (("aspect", aspect), ("head_dim", head_dim)):
        if width % step:
            lower = max(width // step * step, step)
            raise InputError(
                "network.width",
                width,
                f"a multiple of network.{name}={step}",
                f"Nearest: {lower} or {lower + step}.",
            )
    return DiTConfig(width, width // aspect, width // head_dim, patch_size, **options)
