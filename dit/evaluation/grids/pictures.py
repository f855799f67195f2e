"""Grids of images as PNG files whose bytes depend on the pixels alone."""

import struct
import zlib
from pathlib import Path

import numpy as np
import torch

from dit.errors import InputError
from dit.files import write_bytes


def picture_grid(images: torch.Tensor, columns: int, *, gap: int = 2, magnify: int = 1) -> np.ndarray:
    """A (H', W', 3) uint8 picture of images in rows of ``columns``, white between them and in empty places.

    Args:
        images: (N, 3, H, W) uint8, row by row.
        columns: images in a row.
        gap: pixels between neighbours and around the edge.
        magnify: whole-number enlargement of each pixel.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or not len(images):
        raise InputError(
            "images", f"({images.dtype} {tuple(images.shape)})", "uint8 (N, 3, H, W) with N >= 1"
        )
    tiles = images.cpu().numpy().repeat(magnify, 2).repeat(magnify, 3).transpose(0, 2, 3, 1)
    count, height, width, _ = tiles.shape
    rows = -(-count // columns)
    canvas = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for place, tile in enumerate(tiles):
        top, left = (
            gap + index * (size + gap) for index, size in zip(divmod(place, columns), (height, width))
        )
        canvas[top : top + height, left : left + width] = tile
    return canvas


def write_png(path: str | Path, picture: np.ndarray) -> Path:
    """Writes a (H, W, 3) uint8 picture as PNG without a time stamp: equal pixels, equal bytes."""
    return write_bytes(Path(path), png_bytes(picture))


def png_bytes(picture: np.ndarray) -> bytes:
    """The PNG file of a (H, W, 3) uint8 picture. Source: W3C PNG specification, sections 5 and 11."""
    height, width, _ = picture.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB, no interlace
    rows = np.concatenate(
        [np.zeros((height, 1), np.uint8), picture.reshape(height, -1)], axis=1
    )  # filter 0 per row
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body
