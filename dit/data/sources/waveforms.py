"""Sound files as log-mel spectrograms: one channel on the two axes mel band and time."""

import io
import math
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from dit.data.images import UnreadableImage
from dit.data.sources.base import check_installed
from dit.data.sources.folder import Folder
from dit.domain import Domain
from dit.errors import check_number

if TYPE_CHECKING:
    import numpy as np

EXTENSIONS = (".aif", ".aiff", ".flac", ".mp3", ".ogg", ".opus", ".wav")
FLOOR = 1e-5  # of a magnitude before its logarithm, as in HiFi-GAN


@dataclass(frozen=True)
class Waveforms(Folder):
    """Sound files in one folder per class; each gives one log-mel spectrogram (1, n_mels, frames) of its beginning.

    ``ln(max(M |STFT|, 1e-5))`` with Slaney's mel bank M of unit area, a periodic Hann window as long as the transform,
    and reflection at both ends: the features that HiFi-GAN and its relatives turn into sound again. A shorter file is
    followed by silence. Channels are averaged. Files of another sample rate are refused, never resampled.

    Args:
        path: the folder.
        frames: length of a spectrogram; ``frames * hop / sample_rate`` seconds.
        sample_rate: of all files, in Hz.
        n_mels: bands.
        n_fft: samples of one window.
        hop: samples from one frame to the next.
        fmin: lower end of the lowest band, in Hz.
        fmax: upper end of the highest band, in Hz.

    Source: HiFi-GAN 2010.05646, section 4 (22,050 Hz: 80 bands up to 8,000 Hz, 1,024 samples each 256).
    """

    frames: int = 256
    sample_rate: int = 22_050
    n_mels: int = 80
    n_fft: int = 1024
    hop: int = 256
    fmin: float = 0.0
    fmax: float = 8000.0

    items: ClassVar[str] = "sound files"
    extensions: ClassVar[tuple[str, ...]] = EXTENSIONS

    def __post_init__(self) -> None:
        super().__post_init__()
        check_installed("waveforms", "audio", "soundfile", "transformers")
        for name, low in (("frames", 1), ("sample_rate", 1), ("n_mels", 1), ("n_fft", 4)):
            check_number(f"data.source.{name}", getattr(self, name), low=low, integer=True)
        check_number("data.source.hop", self.hop, low=1, high=self.n_fft, integer=True)
        check_number("data.source.fmin", self.fmin, low=0)
        check_number("data.source.fmax", self.fmax, above=self.fmin, high=self.sample_rate / 2)

    @property
    def domain(self) -> Domain:
        """What one item is."""
        return Domain(1, (self.n_mels, self.frames))

    def identity(self) -> dict[str, Any]:
        settings = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "path"}
        return super().identity() | settings

    @cached_property
    def _mel_bank(self) -> "np.ndarray":
        """(n_fft/2 + 1, n_mels)."""
        from transformers.audio_utils import mel_filter_bank

        bins = self.n_fft // 2 + 1
        return mel_filter_bank(
            bins, self.n_mels, self.fmin, self.fmax, self.sample_rate, norm="slaney", mel_scale="slaney"
        )

    def pixels(self, content: bytes, image_size: int | None = None) -> "np.ndarray":
        """The spectrogram (1, n_mels, frames) float32.

        Raises:
            UnreadableImage: it is no sound, or has another sample rate.
        """
        import numpy as np

        sound = self._samples(content)
        before, rest = divmod(self.n_fft - self.hop, 2)
        padded = np.pad(sound, (before, before + rest), mode="reflect")
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.n_fft)[:: self.hop]  # (frames, n_fft)
        hann = 0.5 - 0.5 * np.cos(2 * math.pi * np.arange(self.n_fft) / self.n_fft)
        magnitudes = np.abs(np.fft.rfft(windows * hann, axis=1))  # (frames, n_fft/2 + 1)
        return np.log(np.maximum(magnitudes @ self._mel_bank, FLOOR)).T[None].astype(np.float32)

    def _samples(self, content: bytes) -> "np.ndarray":
        """The first ``frames * hop`` samples in [-1, 1], one channel, silence behind a shorter file."""
        import numpy as np
        import soundfile

        wanted = self.frames * self.hop
        try:
            with soundfile.SoundFile(io.BytesIO(content)) as file:
                if file.samplerate != self.sample_rate:
                    raise UnreadableImage(
                        f"{file.samplerate} Hz, not data.source.sample_rate={self.sample_rate}"
                    )
                sound = file.read(wanted, dtype="float64", always_2d=True).mean(1)
        except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
            raise UnreadableImage(" ".join(str(error).split())) from error
        if not len(sound) or not np.isfinite(sound).all():
            raise UnreadableImage("no samples, or some that are not finite")
        return np.pad(sound, (0, wanted - len(sound)))
