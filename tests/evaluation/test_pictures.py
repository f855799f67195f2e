import io

import numpy as np
import pytest
import torch
from PIL import Image

from dit.errors import InputError
from dit.evaluation.grids.pictures import picture_grid, png_bytes, write_png


def test_pillow_reads_back_the_pixels_and_the_bytes_repeat(tmp_path, images) -> None:
    picture = picture_grid(images[:7], columns=3, magnify=2)
    first = write_png(tmp_path / "new" / "a.png", picture).read_bytes()
    assert first == png_bytes(picture)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(first)).convert("RGB")), picture)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


def test_images_stand_row_by_row() -> None:
    images = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 4, 6) * 10
    picture = picture_grid(images, columns=2, gap=1)
    assert picture.shape == (3 * 5 + 1, 2 * 7 + 1, 3)
    assert picture[1, 1, 0] == 0 and picture[1, 8, 0] == 10 and picture[6, 1, 0] == 20
    assert picture[11, 8, 0] == 255  # an empty place is white


def test_only_uint8_images_are_drawn() -> None:
    with pytest.raises(InputError, match="uint8"):
        picture_grid(torch.zeros(2, 3, 4, 4), columns=2)
