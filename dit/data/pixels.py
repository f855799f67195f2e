"""Encoded image files to square uint8 RGB: the decoding and cropping of ADM, and what happens to unusual
files.

Conversions (each has a test):
    greyscale, 1-bit, palette   repeated or looked up to RGB
    16-bit greyscale            divided by 257 and rounded; Pillow's own conversion would clip to white
    16-bit RGB                  the high byte of each channel, which is all that Pillow reads
    CMYK, YCCK                  Pillow's conversion, without colour profiles
    transparency                dropped: the colours stored under it are kept, as in ADM
    animation                   the first frame
    EXIF orientation            ignored, as in ADM
    truncated, empty, not an image, floating point: `UnreadableImage`
"""

import io
import struct
import zlib

import numpy as np
from PIL import Image, UnidentifiedImageError

from dit.data.images import UnreadableImage

# What file names promise, and no PostScript: for that Pillow would start another program.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # as Image.open: more may be an attack
JPEG_FRAMES = (0xC0, 0xC1, 0xC2)  # markers of baseline, extended and progressive frames
JPEG_NO_SEGMENT = {*range(0xC0), *range(0xD0, 0xDB), 0xFF}  # no length follows, or pixels begin
BICUBIC = Image.Resampling.BICUBIC
LONG = 8  # times its other side: beyond, no whole enlargement is made
MARGIN = 4  # pixels that the bicubic filter reaches beyond a place when it enlarges, and one more
SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")


def decode(content: bytes) -> Image.Image:
    """An encoded file as an 8-bit RGB image.

    Raises:
        UnreadableImage: empty, truncated, or no image at all.
    """
    if not content:
        raise UnreadableImage("zero bytes")
    try:
        image = _plain_jpeg(content)
        if image is None:
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            image.load()
        return to_rgb(image)
    except UnidentifiedImageError:  # its text holds a memory address, and reasons are stored in manifests
        raise UnreadableImage("cannot be identified as an image") from None
    # The decoders of Pillow raise whatever their format's parser runs into.
    except (OSError, SyntaxError, ValueError, IndexError, KeyError, EOFError, MemoryError) as error:
        raise UnreadableImage(str(error)) from error
    except (struct.error, zlib.error, Image.DecompressionBombError) as error:
        raise UnreadableImage(str(error)) from error


def _plain_jpeg(content: bytes) -> Image.Image | None:
    """A JPEG of three 8-bit channels, by Pillow's decoder but without its reading of headers, which takes as long as a
    small image; None for all else, also what is broken: `Image.open` knows more and says why.

    Source: ITU-T T.81, annex B (marker segments, frame header).
    """
    place = 2 if content.startswith(b"\xff\xd8") else len(content)
    while place + 10 <= len(content):
        prefix, marker, length = struct.unpack_from(">BBH", content, place)
        if prefix != 0xFF or marker in JPEG_NO_SEGMENT:
            return None
        if marker in JPEG_FRAMES:
            bits, height, width, channels = struct.unpack_from(">BHHB", content, place + 4)
            if (bits, channels) != (8, 3) or not 0 < height * width <= MAX_PIXELS:
                return None
            try:
                return Image.frombytes("RGB", (width, height), content, "jpeg", "RGB", "")
            except ValueError:
                return None
        place += 2 + length
    return None


def to_rgb(image: Image.Image) -> Image.Image:
    """Any loaded image as 8-bit RGB; the table at the top of this file."""
    if image.mode == "RGB":
        return image
    if image.mode == "F":
        raise UnreadableImage("floating-point pixels")
    if image.mode in SIXTEEN_BIT:
        # rounded to the nearest, in whole numbers, which take half the memory: 257 is odd, so there are no ties
        levels = (np.asarray(image).astype(np.int32) + 128) // 257
        if levels.min() < 0 or levels.max() > 255:
            raise UnreadableImage("integer pixels outside 16 bits")
        image = Image.fromarray(levels.astype(np.uint8))
    return image.convert("RGB")


def centre_crop(image: Image.Image, size: int) -> np.ndarray:
    """The central square at ``size`` pixels, (size, size, 3) uint8: ADM's preprocessing.

    Halve by 2x2 averages (box filter) while the shorter side is at least twice ``size``, bring the shorter
    side to ``size`` with the bicubic filter, cut the middle out. Pixels equal those of ADM, and so of the
    reference sets made with it.

    Source: Dhariwal & Nichol, 2105.05233, published preprocessing of its ImageNet models; also used by DiT,
        2212.09748.
    """
    if image.size == (size, size):  # np.asarray without its ceremony, which small images feel
        return np.frombuffer(image.tobytes(), np.uint8).reshape(size, size, 3)
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    if min(image.size) != size:
        scale = size / min(image.size)
        new_size = (round(image.width * scale), round(image.height * scale))
        if scale > 1 and max(new_size) > LONG * size:
            return np.asarray(_enlarged_middle(image, size, new_size))
        image = image.resize(new_size, BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image)[top : top + size, left : left + size]


def _enlarged_middle(image: Image.Image, size: int, new_size: tuple[int, int]) -> Image.Image:
    """The central square of what ``image`` would be at ``new_size``, without making it: as a whole, a strip of 65,000x8
    would take a thousand times its own memory.

    One axis after the other, as Pillow does it, with the pixels that the filter reaches. A level of 255 may differ.
    """
    for axis in (0, 1):
        step, first = image.size[axis] / new_size[axis], (new_size[axis] - size) // 2
        low, high = first * step, (first + size) * step
        cut = max(0, int(low) - MARGIN)  # Pillow has boxes in float32: exact near 0 alone
        bounds = [0, 0, *image.size]
        bounds[axis], bounds[axis + 2] = cut, min(image.size[axis], int(high) + MARGIN)
        near = image.crop((bounds[0], bounds[1], bounds[2], bounds[3]))
        box, target = [0.0, 0.0, *map(float, near.size)], list(near.size)
        box[axis], box[axis + 2], target[axis] = low - cut, min(high - cut, near.size[axis]), size
        image = near.resize((target[0], target[1]), BICUBIC, box=(box[0], box[1], box[2], box[3]))
    return image


def decode_square(content: bytes, size: int) -> np.ndarray:
    """An encoded file as its central square, (size, size, 3) uint8."""
    return centre_crop(decode(content), size)
