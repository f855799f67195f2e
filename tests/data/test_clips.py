"""Clips: video files, animated pictures and folders of frames give the same frames; what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dit.data.images import UnreadableImage
from dit.data.sources.clips import Clips
from dit.domain import Domain
from dit.errors import InputError


def moving(n: int, height: int = 20, width: int = 32) -> list[Image.Image]:
    """Frames of one grey each, brighter from one to the next: 10, 20, 30 ..."""
    return [Image.new("RGB", (width, height), (10 * (k + 1),) * 3) for k in range(n)]


def as_frames(folder: Path, frames: list[Image.Image]) -> None:
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        frame.save(folder / f"{number:03d}.png")


def as_video(path: Path, frames: list[Image.Image], codec: str) -> None:
    av = pytest.importorskip("av", reason="the extra `video` is not installed")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=8)
        stream.width, stream.height, stream.pix_fmt = *frames[0].size, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())


def greys(source: Clips, index: int = 0) -> np.ndarray:
    """The mean level of each frame, 0 to 255."""
    item = source.pixels(source.content(index))
    assert (item.shape, item.dtype) == (source.domain.shape, np.float32)
    return (item.mean((0, 2, 3)) + 1) * 127.5


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.gif", "a"])
def test_frames_are_the_first_of_each_stride(tmp_path, name):
    frames = moving(9)
    if name == "a":
        as_frames(tmp_path / "c" / name, frames)
    elif name.endswith(".gif"):
        (tmp_path / "c").mkdir()
        frames[0].save(tmp_path / "c" / name, save_all=True, append_images=frames[1:])
    else:
        as_video(tmp_path / "c" / name, frames, "mpeg4")
    source = Clips(str(tmp_path), frames=4, stride=2, size=16)
    assert source.domain == Domain(3, (4, 16, 16))
    assert (len(source), source.class_names, source.describe(0)) == (1, ("c",), f"c/{name}")
    np.testing.assert_allclose(greys(source), [10, 30, 50, 70], atol=0.01 if name in ("a", "a.gif") else 3)


def test_a_frame_is_what_a_picture_would_be(tmp_path):
    """The square of ADM, between -1 and 1, colours first."""
    from dit.data.pixels import centre_crop

    picture = Image.fromarray(np.random.default_rng(0).integers(256, size=(20, 32, 3), dtype=np.uint8))
    as_frames(tmp_path / "c" / "a", [picture] * 2)
    source = Clips(str(tmp_path), frames=2, size=8)
    item = source.pixels(source.content(0))
    expected = centre_crop(picture, 8).astype(np.float64) / 127.5 - 1
    np.testing.assert_allclose(item[:, 1], expected.transpose(2, 0, 1), atol=1e-6)


def test_only_frames_that_are_taken_identify_a_clip(tmp_path):
    as_frames(tmp_path / "c" / "a", moving(9))
    source = Clips(str(tmp_path), frames=2, stride=3, size=8)
    before = source.content(0)
    (tmp_path / "c" / "a" / "004.png").write_bytes(b"")
    assert Clips(str(tmp_path), frames=2, stride=3, size=8).content(0) == before
    assert source.identity() != Clips(str(tmp_path), frames=2, stride=2, size=8).identity()


def test_what_is_no_clip_is_told(tmp_path):
    as_frames(tmp_path / "c" / "short", moving(6))
    as_frames(tmp_path / "c" / "torn", moving(8))
    (tmp_path / "c" / "torn" / "002.png").write_bytes(b"\x89PNG")
    (tmp_path / "c" / "x.gif").write_bytes(b"GIF89a")
    names = ["short", "torn", "x.gif"]
    if as_video_is_possible():
        (tmp_path / "c" / "z.mp4").write_bytes(b"#EXTM3U\n/etc/passwd\n")
        names.append("z.mp4")
    source = Clips(str(tmp_path), frames=4, stride=2, size=8)
    assert [source.describe(i) for i in range(len(source))] == [f"c/{name}" for name in names]
    for index, name in enumerate(names):
        with pytest.raises(UnreadableImage, match="fewer than the 7 frames" if name == "short" else None):
            source.pixels(source.content(index))


def as_video_is_possible() -> bool:
    import importlib.util

    return importlib.util.find_spec("av") is not None


def test_a_picture_alone_and_an_absent_reader_are_refused(tmp_path, monkeypatch):
    moving(1)[0].save(tmp_path / "x.png")
    with pytest.raises(InputError, match=r"the picture x\.png alone"):
        len(Clips(str(tmp_path)))
    (tmp_path / "x.png").rename(tmp_path / "x.mp4")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"av is missing.*dit-scaling\[video\]"):
        len(Clips(str(tmp_path)))
