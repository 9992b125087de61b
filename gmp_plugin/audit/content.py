"""Which recordings are one and the same, whatever their names: found by their sound.

Identical are recordings with the same decoded samples between digital silence at both ends: a WAV, FLAC, 16, 24 or
32 bit, padded or trimmed copy of each other.

Copies that were changed are found by two steps: candidates have nearly the same average spectrum, and only those count
whose waves coincide at some shift. That finds all copies with another gain, polarity or offset, in fewer bits or padded
with faint noise, as long as the change is faint beside the recording, and most that went through MP3, Vorbis or another
sampling rate. It does not find copies at another speed, filtered or mixed ones, nor a part of a recording.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

BANDS = 128
# Among 2 million pairs of EMO-DB, RAVDESS and LibriSpeech, spectra of different recordings came to 0.982, and waves of
# the twelve pairs with the nearest spectra of each to 0.29; of copies at a tenth of the gain to 0.998 and 0.97.
SIMILAR_SPECTRUM = 0.985
SAME_WAVE = 0.9
_BLOCK = 1024


@dataclass(frozen=True)
class Content:
    """What a recording sounds like.

    Args:
        digest: of the samples without digital silence at both ends; empty if that is all there is.
        spectrum: amplitudes of equally wide bands of the differentiated wave, `(BANDS,)` float32 of norm 1; they
            are the same at any shift, gain and polarity. Differentiated, so that an offset or the mains' hum is
            not what two silences have in common.
    """

    digest: str
    spectrum: np.ndarray


@dataclass(frozen=True)
class Twin:
    """Two recordings, by number, that are the same; `correlation` of the waves is 1 for identical samples."""

    first: int
    second: int
    identical: bool
    correlation: float


def describe(wave: np.ndarray) -> Content:
    """The content of float32 samples `(N,)`."""
    loud = np.flatnonzero(wave)
    if not len(loud):
        return Content("", np.zeros(BANDS, np.float32))
    wave = wave[loud[0] : loud[-1] + 1] + np.float32(0)  # -0.0 becomes 0.0
    digest = hashlib.sha256(np.ascontiguousarray(wave, dtype="<f4")).hexdigest()
    x = np.diff(wave, prepend=np.float32(0), append=np.float32(0))
    power = np.abs(np.fft.rfft(x, _power_of_two(max(len(x), 2 * BANDS)))) ** 2
    spectrum = np.sqrt(power[1:].reshape(BANDS, -1).sum(1))
    return Content(digest, (spectrum / np.linalg.norm(spectrum)).astype(np.float32))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Largest correlation of two differentiated waves over all shifts, 0 to 1, without regard to polarity."""
    a, b = np.diff(a.astype(np.float64)), np.diff(b.astype(np.float64))
    energy = (a @ a) * (b @ b)
    if energy == 0:
        return 0.0
    n = _power_of_two(len(a) + len(b))
    product = np.fft.irfft(np.fft.rfft(a, n) * np.fft.rfft(b, n).conj(), n)
    return float(np.abs(product).max() / np.sqrt(energy))


def twins(contents: Sequence[Content], read: Callable[[int], np.ndarray], n: int | None = None) -> list[Twin]:
    """All pairs of recordings that are the same, in order.

    Args:
        contents: of the recordings.
        read: the samples of one recording, by number; needed for the few candidates.
        n: leave out pairs without one of the first `n`.
    """
    n = len(contents) if n is None else n
    by_digest = defaultdict(list)
    for i, content in enumerate(contents):
        if content.digest:
            by_digest[content.digest].append(i)
    found = {
        (i, j): Twin(i, j, True, 1.0)
        for group in by_digest.values()
        for i in group
        for j in group
        if i < j and i < n
    }  # fmt: skip
    read = lru_cache(maxsize=16)(read)
    spectra = np.stack([content.spectrum for content in contents]) if contents else np.zeros((0, BANDS), np.float32)
    for start in range(0, n, _BLOCK):
        rows, columns = np.nonzero(spectra[start : min(start + _BLOCK, n)] @ spectra.T >= SIMILAR_SPECTRUM)
        for i, j in zip((rows + start).tolist(), columns.tolist(), strict=True):
            if i < j and (i, j) not in found and (r := correlation(read(i), read(j))) >= SAME_WAVE:
                found[i, j] = Twin(i, j, False, r)
    return [found[pair] for pair in sorted(found)]


def _power_of_two(n: int) -> int:
    """The smallest one that is at least `n`."""
    return 1 << (n - 1).bit_length()
