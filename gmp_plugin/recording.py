"""Recordings of any format, sampling rate and number of channels, read block by block as 16 kHz mono."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from .corpora.audio import AGAIN, UNKNOWN_LENGTH, BadRecording, missing_bytes, trimmed_db
from .frames import RECEPTIVE_FIELD, SAMPLE_RATE
from .resampling import resample_blocks

RATES = (1_000, 768_000)  # Hz; a header with another one is damaged, or no speech
MAX_CHANNELS = 64
BLOCK_VALUES = 2**20  # read at once, all channels together

SILENCE_DBFS = -60.0
LARGE = 10.0  # floats a little above 1 are common
CLIPPED_SHARE = 1e-3
SHORT_SECONDS = 0.5


@dataclass
class Meter:
    """What is remarkable about audio that passes in blocks `(n, channels)`."""

    peak: float = 0.0
    mixed_peak: float = 0.0  # of the mean over the channels
    n_values: int = 0
    n_flat: int = 0  # values in runs of three or more equal ones near full scale
    _last: np.ndarray | None = field(default=None, repr=False)

    def add(self, block: np.ndarray) -> None:
        if not len(block):
            return
        self.peak = max(self.peak, float(np.abs(block).max()))
        self.mixed_peak = max(self.mixed_peak, float(np.abs(block.mean(axis=1)).max()))
        self.n_values += block.size
        if self.peak < 0.99 and self._last is None:
            return  # no run has begun
        x = block if self._last is None else np.concatenate([self._last, block])
        flat = (np.abs(x) >= 0.99) & (np.abs(x) <= 1.0)
        equal = flat[1:] & (x[1:] == x[:-1])
        self.n_flat += int((equal[1:] & equal[:-1]).sum())
        self._last = x[-2:]

    def warnings(self, seconds: float) -> tuple[str, ...]:
        """What a reader of the answer should know."""
        found = []
        if self.peak > LARGE:
            found.append(f"samples up to {self.peak:.3g}, where -1 to 1 is expected")
        level, mixed = (20 * np.log10(max(peak, 1e-9)) for peak in (self.peak, self.mixed_peak))
        if self.peak == 0:
            found.append("silence: every sample is zero")
        elif level < SILENCE_DBFS:
            found.append(f"nearly silent: the peak is {level:.0f} dBFS")
        elif mixed < SILENCE_DBFS:
            found.append("nearly silent when mixed: the channels cancel each other, give one of them")
        if self.n_flat > CLIPPED_SHARE * self.n_values:
            found.append(f"clipped: {self.n_flat / self.n_values:.1%} of the samples lie in flat tops at full scale")
        if seconds < SHORT_SECONDS:
            found.append(f"short: {seconds:.2f} s of audio")
        return tuple(found)


@dataclass
class Recording:
    """One recording, read once.

    `n_samples` counts samples per channel at `rate`, None where the header does not know. `read` gives blocks
    `(n, channels)`, float32 within -1..1. `trimmed` says that `make_manifest.py` cut its silence.
    """

    name: str
    rate: int
    channels: int
    n_samples: int | None
    read: Callable[[], Iterable[np.ndarray]]
    trimmed: bool = False

    @classmethod
    def open(cls, path, name: str | None = None) -> "Recording":
        """A file in any format that libsndfile reads (WAV, FLAC, OGG, MP3, AIFF, ...), by its header.

        Raises `BadRecording` for a file that is missing, no audio, empty, or cut off.
        """
        path = Path(path)
        name = str(path) if name is None else name
        _check_file(path, name)
        with _open(path, name) as stream:
            rate, channels, n_samples = stream.samplerate, stream.channels, stream.frames
            log = stream.extra_info
        missing = missing_bytes(log)
        if missing:
            raise BadRecording(f"{name} is cut off ({missing}); copy it again")
        if n_samples == 0:
            raise BadRecording(f"{name} is empty (0 samples)")
        known = n_samples if n_samples < UNKNOWN_LENGTH else None
        trimmed = trimmed_db(path) is not None
        recording = cls(name, rate, channels, known, lambda: _file_blocks(path, name, known), trimmed)
        recording.check()
        return recording

    @classmethod
    def of(cls, wave, rate: int, name: str = "the audio") -> "Recording":
        """Audio that is in memory.

        Args:
            wave: `(N,)` or `(N, channels)`, numpy or torch; floats within -1..1, or integers of full scale.
            rate: Hz.
        """
        wave = np.asarray(wave.detach().cpu() if hasattr(wave, "detach") else wave)
        if wave.ndim == 1:
            wave = wave[:, None]
        if wave.ndim != 2 or wave.dtype.kind not in "fiu" or (wave.shape[1] > MAX_CHANNELS and len(wave)):
            raise BadRecording(
                f"{name} is an array {wave.shape} of {wave.dtype}; expected samples (N,) or (N, channels) as floats or "
                "integers (torchaudio's (channels, N) must be transposed)"
            )
        if int(rate) != rate:
            raise BadRecording(f"{name} has a sampling rate of {rate} Hz; expected a whole number")
        n = max(1, BLOCK_VALUES // max(1, wave.shape[1]))
        blocks = (_to_float(wave[i : i + n]) for i in range(0, len(wave), n))
        recording = cls(name, int(rate), wave.shape[1], len(wave), lambda: blocks)
        recording.check()
        return recording

    def check(self) -> None:
        """`BadRecording` for what no speech recording is, and for less than one frame."""
        if not RATES[0] <= self.rate <= RATES[1] or not 1 <= self.channels <= MAX_CHANNELS:
            raise BadRecording(
                f"{self.name} has {self.rate} Hz and {self.channels} channels; expected {RATES[0]} to {RATES[1]} Hz "
                f"and 1 to {MAX_CHANNELS} channels: the header is damaged, or it is no recording of speech"
            )
        if self.n_samples is not None and self.n_samples * SAMPLE_RATE < RECEPTIVE_FIELD * self.rate:
            raise BadRecording(
                f"{self.name} has {self.n_samples} samples ({1000 * self.seconds:.0f} ms), fewer than one frame "
                f"({1000 * RECEPTIVE_FIELD // SAMPLE_RATE} ms)"
            )

    @property
    def seconds(self) -> float:
        """Length by the header; 0 where it does not say."""
        return (self.n_samples or 0) / self.rate

    def mono(self, meter: Meter) -> Iterator[np.ndarray]:
        """Blocks `(n,)` at 16 kHz, float32: the mean of the channels. `meter` sees every sample as it came.

        Raises `BadRecording` for samples that are not finite, and for a file that breaks off.
        """

        def mixed():
            for block in self.read():
                if not np.isfinite(block).all():
                    raise BadRecording(f"{self.name} holds samples that are not finite (NaN or infinity)")
                meter.add(block)
                yield block.mean(axis=1)

        yield from resample_blocks(mixed(), self.rate, self.name)


def _check_file(path: Path, name: str) -> None:
    try:
        if not path.exists():
            raise BadRecording(f"{name} does not exist")
        if not path.is_file():
            raise BadRecording(f"{name} is no file")
        if path.stat().st_size == 0:
            raise BadRecording(f"{name} is empty (0 bytes)")
    except OSError as error:  # a folder above it that is closed, or a name that is too long
        raise BadRecording(f"{name} cannot be read: {error.strerror}") from None
    if not os.access(path, os.R_OK):
        raise BadRecording(f"{name} cannot be read: permission denied")


def _open(path: Path, name: str) -> soundfile.SoundFile:
    try:
        return soundfile.SoundFile(os.fsencode(path))  # bytes: names need not be UTF-8
    # TypeError: soundfile wants more arguments for files that end in .raw.
    except (soundfile.SoundFileError, OSError, TypeError, ValueError) as error:
        reason = getattr(error, "error_string", error)
        raise BadRecording(
            f"{name} cannot be read as audio ({reason}); expected WAV, FLAC, OGG, MP3 or AIFF: convert it, as by "
            "ffmpeg -i INPUT output.wav"
        ) from None


def _file_blocks(path: Path, name: str, n_samples: int | None) -> Iterator[np.ndarray]:
    total = 0
    with _open(path, name) as stream:
        try:
            while len(block := stream.read(max(1, BLOCK_VALUES // stream.channels), dtype="float32", always_2d=True)):
                total += len(block)
                yield block
        except (soundfile.SoundFileError, OSError, RuntimeError, ValueError) as error:
            reason = getattr(error, "error_string", error)
            if n_samples is None and stream.format == "FLAC":  # where that ends, libsndfile cannot tell
                raise BadRecording(f"{name} does not say how long it is: {AGAIN}") from None
            raise BadRecording(f"{name} is damaged after {total / stream.samplerate:.1f} s ({reason})") from None
        if n_samples is not None and total < n_samples:
            raise BadRecording(
                f"{name} is cut off: {total / stream.samplerate:.1f} of {n_samples / stream.samplerate:.1f} s are there"
            )


def _to_float(wave: np.ndarray) -> np.ndarray:
    if wave.dtype.kind == "f":
        return wave.astype(np.float32)
    info = np.iinfo(wave.dtype)
    half = (int(info.max) - int(info.min) + 1) / 2
    return ((wave.astype(np.float64) - (half if wave.dtype.kind == "u" else 0)) / half).astype(np.float32)
