"""Sets of images on disk, read and written as they are measured: folder, zip, parquet, ADM-style .npz.

B images of a batch, N images in all.
"""

import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from dit.data.images import Source
from dit.data.pixels import UnreadableImage, centre_crop, decode
from dit.data.sources.base import check_regular
from dit.data.sources.folder import Folder, Zip
from dit.data.sources.names import is_hidden
from dit.data.sources.parquet import Parquet
from dit.errors import InputError, check_number
from dit.evaluation.grids.pictures import png_bytes
from dit.files import whole

FEW = 8  # so many images are not all black
EPOCH = (1980, 1, 1, 0, 0, 0)  # the time stamp of zip members: equal images, equal bytes


class ImageSet(Protocol):
    """Images of one size, readable by position."""

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> torch.Tensor:
        """Images start..stop-1, uint8 (B, 3, H, W)."""
        ...


class ImageFiles:
    """The images of a folder, zip or parquet file, in the source's order.

    Args:
        source: where they are; unusual files are converted as `dit.data.pixels` says.
        image_size: brings each image to this size by ADM's centre crop; None takes them as they are, all of
            one size.
    """

    def __init__(self, source: Source, image_size: int | None = None) -> None:
        self.source, self.image_size = source, image_size
        self._shape: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.source)

    def read(self, start: int, stop: int) -> torch.Tensor:
        pixels = np.stack([self._one(position) for position in range(start, stop)])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()

    def _one(self, position: int) -> np.ndarray:
        name = self.source.describe(position)
        try:
            image = decode(self.source.content(position))
        except UnreadableImage as error:
            raise InputError(name, str(error), "an image that can be read") from None
        pixels = np.asarray(image) if self.image_size is None else centre_crop(image, self.image_size)
        if self._shape is None:
            self._shape = pixels.shape
        if pixels.shape != self._shape:
            allowed = f"{self._shape[1]}x{self._shape[0]} pixels, as the first image"
            raise InputError(name, f"({pixels.shape[1]}x{pixels.shape[0]})", allowed, "Name an image_size.")
        return pixels


class ImageArray:
    """The images of an ADM-style .npz: ``arr_0``, uint8 (N, H, W, 3), read a piece at a time.

    Args:
        path: the file.

    Raises:
        InputError: no such array, or of another type or shape.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        check_regular(self.path, str(path))
        try:
            archive = zipfile.ZipFile(self.path)  # open for as long as its member is read
            promised = archive.getinfo("arr_0.npy").file_size
            self._member = archive.open("arr_0.npy")
        except KeyError:
            raise InputError(str(path), "no arr_0", "an .npz with images in arr_0") from None
        except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError) as error:
            raise InputError(str(path), str(error), "a readable .npz file") from None
        shape, fortran, dtype = _array_header(self._member, self.path)
        if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or fortran:
            remedy = "Store numbers 0..255 of type uint8, the three channels last."
            raise InputError(f"{path}: arr_0", f"({dtype} {shape})", "uint8 (N, H, W, 3)", remedy)
        self._shape, self._start = shape, self._member.tell()
        if min(shape) < 1 or math.prod(shape) != promised - self._start:
            got = f"(a header of {shape} before {promised - self._start} bytes)"
            raise InputError(f"{path}: arr_0", got, "a header that agrees with its file", "Write it again.")

    def __len__(self) -> int:
        return self._shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """(W, H) of the images."""
        return self._shape[2], self._shape[1]

    def read(self, start: int, stop: int) -> torch.Tensor:
        size = int(np.prod(self._shape[1:]))
        self._member.seek(self._start + start * size)
        data = self._member.read((stop - start) * size)
        if len(data) != (stop - start) * size:
            raise InputError(str(self.path), f"({len(data)} bytes)", "a complete file", "It is cut short.")
        pixels = np.frombuffer(data, np.uint8).reshape(-1, *self._shape[1:])
        if start == 0 and len(pixels) >= FEW and pixels.max() <= 1:
            raise InputError(f"{self.path}: arr_0", "(values 0..1)", "values 0..255", "Multiply them by 255.")
        return torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())


def holds_images(path: Path) -> bool:
    """Whether an .npz has images, beside the statistics in it."""
    with zipfile.ZipFile(path) as archive:
        return "arr_0.npy" in archive.namelist()


def _array_header(member: Any, path: Path) -> tuple[tuple[int, ...], bool, np.dtype]:
    try:
        version = np.lib.format.read_magic(member)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        return read[version](member)
    except (ValueError, KeyError) as error:
        raise InputError(f"{path}: arr_0", str(error), "a plain numpy array") from None


def open_images(path: str | Path, image_size: int | None = None, key: str = "images") -> ImageSet:
    """The images at a path: a folder, a .zip, a .parquet file or an .npz with ``arr_0``.

    Args:
        path: where they are.
        image_size: see ``ImageFiles``; an .npz must have it already.
        key: what messages call the path.
    """
    path = Path(path)
    if image_size is not None:
        check_number("image_size", image_size, low=1, integer=True)
    if path.suffix == ".npz":
        images = ImageArray(path)
        if image_size is not None and images.size != (image_size, image_size):
            got, allowed = f"({image_size} for {path})", "{}x{}, or null".format(*images.size)
            raise InputError("image_size", got, allowed, "An .npz is taken as it is.")
        return images
    if path.suffix == ".zip":
        source = Zip(str(path))
    elif path.suffix == ".parquet" or any(not is_hidden(file.name) for file in path.glob("*.parquet")):
        source = Parquet(str(path), label_column=None)
    elif path.is_dir():
        source = Folder(str(path))
    else:
        raise InputError(key, str(path), "a folder, .zip, .parquet or .npz that exists")
    try:
        len(source)
    except InputError as error:  # a source calls its path what encoding calls it
        raise InputError(key, error.got, error.allowed, error.remedy) from None
    return ImageFiles(source, image_size)


def write_npz(
    path: str | Path, batches: Iterable[torch.Tensor], n: int, labels: torch.Tensor | None = None
) -> Path:
    """Writes images as ADM's tools read them: ``arr_0`` uint8 (N, H, W, 3), and labels as ``arr_1``."""
    return write_arrays(path, (batch.permute(0, 2, 3, 1) for batch in batches), n, labels)


def write_arrays(
    path: str | Path, batches: Iterable[torch.Tensor], n: int, labels: torch.Tensor | None = None
) -> Path:
    """Writes samples (N, ...) as ``arr_0`` of an .npz file, and labels as ``arr_1``.

    Nothing but the batch at hand is held in memory.

    Args:
        path: the file.
        batches: (B, ...) of one kind of numbers.
        n: samples in all, known beforehand since the array's header comes first.
        labels: (N,) int64.
    """
    path, written = Path(path), 0
    with whole(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        with archive.open(zipfile.ZipInfo("arr_0.npy", EPOCH), "w", force_zip64=True) as member:
            for batch in batches:
                numbers = batch.cpu().contiguous().numpy()
                if not written:
                    header = {"descr": np.lib.format.dtype_to_descr(numbers.dtype), "fortran_order": False}
                    header["shape"] = (n, *numbers.shape[1:])
                    np.lib.format.write_array_header_1_0(member, header)  # type: ignore[arg-type]
                member.write(numbers.tobytes())
                written += len(numbers)
        assert written == n, f"{written} images were made where {n} were announced"
        if labels is not None:
            with archive.open(zipfile.ZipInfo("arr_1.npy", EPOCH), "w") as member:
                np.lib.format.write_array(member, labels.cpu().numpy(), allow_pickle=False)
    return path


def write_folder(path: str | Path, batches: Iterable[torch.Tensor]) -> Path:
    """Writes each image as ``000017.png``, numbered as they come."""
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    number = 0
    for batch in batches:
        for image in batch.cpu().permute(0, 2, 3, 1).numpy():
            (path / f"{number:06d}.png").write_bytes(png_bytes(image))
            number += 1
    return path
