"""Sound files as log-mel spectrograms: HiFi-GAN's features, computed a second way; what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

soundfile = pytest.importorskip("soundfile", reason="the extra `audio` is not installed")
pytest.importorskip("transformers", reason="the extra `audio` is not installed")

from dit.data.images import UnreadableImage  # noqa: E402
from dit.data.sources.waveforms import Waveforms  # noqa: E402
from dit.domain import Domain  # noqa: E402
from dit.errors import InputError  # noqa: E402

RATE = 22_050


def written(folder: Path, name: str, sound: np.ndarray, rate: int = RATE, **options) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, sound, rate, **options)
    return path


def noise(seconds: float, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (round(seconds * RATE), channels))


def mel_bank(bins: int, bands: int, fmax: float) -> torch.Tensor:
    """Slaney's Auditory Toolbox (1998): linear to 1 kHz (200/3 Hz a mel), then 27 steps to a factor 6.4; area one."""
    top = 15 + np.log(fmax / 1000) * 27 / np.log(6.4)
    edges = [m * 200 / 3 if m < 15 else 1000 * 6.4 ** ((m - 15) / 27) for m in np.linspace(0, top, bands + 2)]
    centres = np.arange(bins) * RATE / 2 / (bins - 1)
    rows = []
    for low, peak, high in zip(edges, edges[1:], edges[2:], strict=False):
        shape = np.minimum((centres - low) / (peak - low), (high - centres) / (high - peak))
        rows.append(np.maximum(shape, 0) * 2 / (high - low))
    return torch.tensor(np.array(rows))


def test_features_are_those_of_hifi_gan(tmp_path):
    """By torch.stft (2010.05646 and its relatives: reflection of (n_fft - hop)/2, no centring, magnitudes)."""
    sound = noise(3.0)
    written(tmp_path, "a/x.wav", sound, subtype="DOUBLE")
    source = Waveforms(str(tmp_path))
    got = source.pixels(source.content(0))
    samples = torch.tensor(sound[: 256 * 256, 0])
    padded = torch.nn.functional.pad(samples[None], (384, 384), mode="reflect")[0]
    spectrum = torch.stft(padded, 1024, 256, window=torch.hann_window(1024, dtype=torch.float64), center=False,
                          return_complex=True)  # fmt: skip
    expected = torch.log((mel_bank(513, 80, 8000.0) @ spectrum.abs()).clamp(min=1e-5))
    assert got.shape == (1, 80, 256) == source.domain.shape
    assert source.domain == Domain(1, (80, 256))
    np.testing.assert_allclose(got[0], expected, atol=2e-6)


@pytest.mark.parametrize("name", ["x.flac", "x.ogg", "x.WAV"])
def test_containers_and_channels(tmp_path, name):
    """Channels are averaged; a lossless file gives the same as WAV to 16 bits, a lossy one nearly so."""
    both = noise(3.0, 2)
    written(tmp_path / "one", "x.wav", both.mean(1), subtype="DOUBLE")
    written(tmp_path / "other", name, both)
    one, other = (Waveforms(str(tmp_path / folder)) for folder in ("one", "other"))
    difference = np.abs(other.pixels(other.content(0)) - one.pixels(one.content(0)))
    assert difference.mean() < (0.5 if name.endswith("ogg") else 1e-3)


def test_silence_follows_a_short_file(tmp_path):
    written(tmp_path, "a/x.wav", noise(1.0), subtype="DOUBLE")
    source = Waveforms(str(tmp_path))
    found = source.pixels(source.content(0))[0]
    assert np.all(
        found[:, 90:] == np.float32(np.log(1e-5))
    )  # 1 s is 86 frames, and a window reaches 2 further
    assert np.all(found[:, :80] > -8)


def test_classes_are_folders_and_settings_are_the_datas(tmp_path):
    for name in ("dog/a.wav", "cat/b.flac", "cat/c.wav"):
        written(tmp_path, name, noise(0.1))
    (tmp_path / "cat" / "cover.png").write_bytes(b"no sound")
    source = Waveforms(str(tmp_path))
    assert (source.class_names, [source.label(i) for i in range(len(source))]) == (("cat", "dog"), [0, 0, 1])
    assert source.identity() != Waveforms(str(tmp_path), hop=128).identity()


@pytest.mark.parametrize(
    ("settings", "key"),
    [({"hop": 1025}, "hop"), ({"fmax": 12_000}, "fmax"), ({"fmin": 9000}, "fmax"), ({"frames": 0}, "frames")],
)
def test_impossible_settings_are_refused(tmp_path, settings, key):
    with pytest.raises(InputError, match=f"data.source.{key}"):
        Waveforms(str(tmp_path), **settings)


def test_the_least_settings_are_allowed(tmp_path):
    least = Waveforms(str(tmp_path), frames=1, sample_rate=1, n_mels=1, n_fft=4, hop=1, fmax=0.5)
    assert least.domain == Domain(1, (1, 1))


def test_what_is_no_sound_is_told(tmp_path):
    written(tmp_path, "a/slow.wav", noise(0.1), rate=8000)
    (tmp_path / "a" / "text.wav").write_text("RIFF, not really")
    (tmp_path / "a" / "empty.wav").write_bytes(b"")
    written(tmp_path, "a/never.wav", np.full(900, np.nan), subtype="FLOAT")
    source = Waveforms(str(tmp_path))
    told = []
    for index in range(len(source)):
        with pytest.raises(UnreadableImage) as error:
            source.pixels(source.content(index))
        told.append(f"{source.describe(index)}: {error.value}")
    assert len(told) == 4
    assert "8000 Hz, not data.source.sample_rate=22050" in "\n".join(told)
    with pytest.raises(InputError, match="a folder of sound files"):
        len(Waveforms(str(tmp_path / "none")))
