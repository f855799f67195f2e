import contextlib
import io
import resource

import numpy as np
import pytest
import torch
from PIL import Image

from dit.data.images import UnreadableImage
from dit.data.pixels import centre_crop, decode, decode_square, to_rgb


def noise(*shape: int, high: int = 256, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, shape).astype(np.uint8)


def encoded(image: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def test_no_halving_when_the_short_side_is_less_than_twice_the_size():
    """500 x 375 to 256: scale 256/375 gives 341 x 256, of which columns 42 to 298 are the middle."""
    image = Image.fromarray(noise(375, 500, 3))
    expected = image.resize((341, 256), Image.Resampling.BICUBIC).crop((42, 0, 298, 256))
    assert np.array_equal(centre_crop(image, 256), np.asarray(expected))


def test_one_halving():
    """600 x 1100 to 256: box to 300 x 550, bicubic to 256 x 469, rows 106 to 362."""
    image = Image.fromarray(noise(1100, 600, 3))
    half = image.resize((300, 550), Image.Resampling.BOX)
    expected = half.resize((256, 469), Image.Resampling.BICUBIC).crop((0, 106, 256, 362))
    assert np.array_equal(centre_crop(image, 256), np.asarray(expected))


def test_halving_to_exactly_the_size_is_an_average_of_pixels():
    """Exactly twice the size is halved: the mean of 2x2 pixels (Pillow rounds after each of two passes)."""
    pixels = noise(128, 130, 3)
    result = centre_crop(Image.fromarray(pixels), 64)
    mean = pixels.reshape(64, 2, 65, 2, 3).mean(axis=(1, 3))[:, 0:64]
    assert np.abs(result - mean).max() <= 1


def test_bicubic_is_the_antialiased_catmull_rom_of_torch():
    pixels = noise(100, 100, 3)
    smooth = np.asarray(Image.fromarray(pixels).resize((30, 30)).resize((100, 100)))
    result = centre_crop(Image.fromarray(smooth), 64)
    tensor = torch.from_numpy(smooth.copy()).permute(2, 0, 1)[None].double()
    expected = torch.nn.functional.interpolate(tensor, (64, 64), mode="bicubic", antialias=True)[0]
    assert (torch.from_numpy(result.copy()).permute(2, 0, 1) - expected.clamp(0, 255)).abs().max() <= 1.5


def test_an_image_of_the_right_size_is_untouched_and_a_small_one_is_enlarged():
    pixels = noise(32, 32, 3)
    assert np.array_equal(centre_crop(Image.fromarray(pixels), 32), pixels)
    assert centre_crop(Image.fromarray(noise(10, 20, 3)), 32).shape == (32, 32, 3)


def test_greyscale_and_one_bit_become_rgb():
    grey = noise(8, 8)
    assert np.array_equal(
        decode_square(encoded(Image.fromarray(grey), "PNG"), 8), np.repeat(grey[..., None], 3, 2)
    )
    bits = noise(8, 8, high=2).astype(bool)
    assert np.array_equal(decode_square(encoded(Image.fromarray(bits), "PNG"), 8)[..., 0], bits * 255)


def test_sixteen_bit_greyscale_is_scaled_not_clipped():
    levels = np.array([[0, 128, 129, 257], [30000, 40000, 65278, 65535]] * 2, np.uint16)
    content = encoded(Image.fromarray(levels), "PNG")
    expected = np.rint(levels / 65535 * 255)
    assert np.array_equal(decode_square(content, 4)[..., 0], expected)


def test_sixteen_bit_rgb_keeps_the_high_byte():
    """Pillow cannot write such a file, so its bytes are put together here from the PNG specification."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    levels = np.random.default_rng(0).integers(0, 65536, (4, 4, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in levels)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert np.array_equal(decode_square(content, 4), levels >> 8)


def test_cmyk_becomes_rgb():
    """No ink is white, all black ink is black, full cyan has no red."""
    for ink, expected in (
        ((0, 0, 0, 0), (255, 255, 255)),
        ((0, 0, 0, 255), (0, 0, 0)),
        ((255, 0, 0, 0), (0, 255, 255)),
    ):
        content = encoded(Image.new("CMYK", (16, 16), ink), "JPEG", quality=100)
        assert np.abs(decode_square(content, 16).astype(int) - expected).max() <= 3


def test_palette_and_transparency():
    colours = Image.fromarray(noise(8, 8, 3, high=2) * 255)
    palette = colours.convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    assert np.array_equal(decode_square(encoded(palette, "PNG"), 8), np.asarray(colours))
    clear = colours.copy()
    clear.putalpha(0)
    assert np.array_equal(decode_square(encoded(clear, "PNG"), 8), np.asarray(colours))


def test_animation_gives_its_first_frame():
    frames = [Image.new("P", (8, 8), colour) for colour in range(3)]
    for frame in frames:
        frame.putpalette([10, 20, 30, 250, 0, 0, 0, 250, 0])
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (decode_square(content, 8) == (10, 20, 30)).all()


def test_orientation_tag_is_ignored():
    image = Image.fromarray(noise(8, 16, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    assert decode(encoded(image, "PNG", exif=exif)).size == (16, 8)


def pillows_own(content: bytes) -> bytes | None:
    """The pixels as `Image.open` reads them; None where it cannot."""
    try:
        return Image.open(io.BytesIO(content)).convert("RGB").tobytes()
    except Exception:
        return None


def ours(content: bytes) -> bytes | None:
    try:
        return decode(content).tobytes()
    except UnreadableImage:
        return None


def test_every_kind_of_jpeg_is_decoded_as_pillow_does_broken_or_whole():
    """Colour and grey, subsampled, progressive, with metadata before the frame; then cut short, changed, extended."""
    exif = Image.Exif()
    exif[0x0112] = 6
    metadata = {"exif": exif, "icc_profile": b"profile" * 100, "comment": b"comment"}
    files = [
        encoded(image, "JPEG", quality=quality, subsampling=subsampling, progressive=progressive, **more)
        for shape in ((1, 1, 3), (33, 65, 3))
        for image in (Image.fromarray(noise(*shape)), Image.fromarray(noise(*shape)).convert("L"))
        for quality, subsampling, progressive in ((75, 2, False), (95, 0, True))
        for more in ({}, metadata)
    ]
    files.append(encoded(Image.fromarray(noise(33, 65, 3)), "JPEG", keep_rgb=True))
    files.append(encoded(Image.fromarray(noise(33, 65, 3)), "JPEG", restart_marker_blocks=2))
    files.append(encoded(Image.fromarray(noise(33, 65, 3)).convert("CMYK"), "JPEG"))
    generator = np.random.default_rng(0)
    for content in files:
        assert pillows_own(content) == ours(content) is not None
        for _ in range(20):
            changed = bytearray(content)
            for place in generator.integers(0, min(len(content), 700), generator.integers(3)):
                changed[place] = generator.integers(256)
            changed = bytes(changed[: generator.integers(1, 2 * len(content))]) + b"after the end"
            assert pillows_own(changed) == ours(changed)


PHOTO = encoded(Image.fromarray(noise(64, 64, 3)), "JPEG")
PNG = encoded(Image.fromarray(noise(64, 64, 3)), "PNG")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "zero bytes"),
        (PHOTO[: len(PHOTO) // 2], "truncated"),
        (PNG[: len(PNG) // 2], "truncated|broken"),
        (PHOTO[:10], "identified|[Tt]runcated"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "^cannot be identified"),
        (b"<html>404</html>", "^cannot be identified as an image$"),
        (encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "floating-point"),
        (encoded(Image.fromarray(np.full((4, 4), 70000, np.int32)), "TIFF"), "16 bits"),
    ],
)
def test_unreadable_images_say_why(content, reason):
    with pytest.raises(UnreadableImage, match=reason):
        decode_square(content, 32)


@pytest.mark.filterwarnings("ignore")
def test_random_damage_never_escapes():
    """Whatever a decoder runs into is an UnreadableImage, or an image."""
    generator = np.random.default_rng(0)
    for content in (
        PHOTO,
        PNG,
        encoded(Image.fromarray(noise(64, 64)), "GIF"),
        encoded(Image.new("RGB", (9, 9)), "TIFF"),
    ):
        for _ in range(15):
            damaged = bytearray(content)
            for place in generator.integers(0, min(len(damaged), 400), 3):
                damaged[place] = generator.integers(256)
            with contextlib.suppress(UnreadableImage):
                assert decode_square(bytes(damaged), 16).shape == (16, 16, 3)


def whole_enlargement(image: Image.Image, size: int) -> np.ndarray:
    """ADM's way, which makes all of the enlarged picture to cut out its middle."""
    scale = size / min(image.size)
    new_size = (round(image.width * scale), round(image.height * scale))
    image = image.resize(new_size, Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image)[top : top + size, left : left + size]


@pytest.mark.parametrize(
    "shape",
    [(200, 5), (5, 200), (4001, 7), (7, 4001), (1, 999), (999, 1), (20_000, 3), (15, 16), (16, 129), (90, 8)],
)
def test_a_strip_is_enlarged_in_its_middle_alone(shape):
    """As the whole would be: the same pixels, but for a level of 255 where Pillow's float32 boxes round."""
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    image = Image.fromarray(pixels)
    difference = centre_crop(image, 16).astype(int) - whole_enlargement(image, 16)
    assert np.abs(difference).max() <= (1 if max(shape) > 8 * min(shape) else 0)


def test_a_picture_of_extreme_shape_costs_memory_of_its_own_size():
    """2 million x 1 pixels, 6 MB, were 393 GB at 256 pixels."""
    image = Image.new("RGB", (2_000_000, 1), (1, 2, 3))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert np.array_equal(centre_crop(image, 256), np.broadcast_to(np.uint8([1, 2, 3]), (256, 256, 3)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KB


def test_16_bit_levels_are_divided_by_257_and_rounded():
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    found = np.asarray(to_rgb(Image.fromarray(levels)))[..., 0]
    assert np.array_equal(found, np.rint(levels / 257))
