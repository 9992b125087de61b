"""From any sampling rate to 16 kHz, whole or block by block."""

import math
from collections.abc import Iterable, Iterator

import numpy as np

from .errors import UserError
from .frames import SAMPLE_RATE

# torchaudio's filter bank has a row for each of the SAMPLE_RATE / gcd phases: 160 at 44.1 kHz, but 16000
# rows of 22051 and more taps at 22051 Hz, which take gigabytes.
MAX_FILTER_VALUES = 4_000_000
MARGIN = 32  # samples of the lower rate; both filters reach less far


def resample(samples: np.ndarray, rate: int, source="the audio") -> np.ndarray:
    """`(N,)` float32 at `rate` to `(ceil(16000 N / rate),)` at 16 kHz.

    By torchaudio's windowed sinc; by scipy's `resample_poly` at odd rates, where that needs gigabytes. Raises
    `UserError`, naming `source`, if torchaudio does not load.
    """
    if rate == SAMPLE_RATE:
        return samples
    up, down = _ratio(rate)
    if up * down > MAX_FILTER_VALUES:
        from scipy.signal import resample_poly

        return resample_poly(samples, up, down).astype(np.float32)
    try:
        import torch
        from torchaudio.functional import resample as torchaudio_resample
    except (ImportError, OSError) as error:
        # The package index's torchaudio is built against CUDA and needs its libraries to load.
        raise UserError(
            f"{source} has {rate} Hz and must be resampled to {SAMPLE_RATE} Hz, but torchaudio does not load "
            f"({error}). The package index's torchaudio loads only beside a CUDA build of torch (which runs on a CPU "
            "too): install both from there, as make setup does; or convert the recordings to 16 kHz mono yourself"
        ) from None
    return torchaudio_resample(torch.from_numpy(samples), rate, SAMPLE_RATE).numpy()


def resample_blocks(blocks: Iterable[np.ndarray], rate: int, source="the audio") -> Iterator[np.ndarray]:
    """Blocks `(n,)` at `rate`, of any lengths, to blocks at 16 kHz: together what `resample` makes of them together.

    A second at a time, with `MARGIN` samples of what is around it, so equal to rounding.
    """
    if rate == SAMPLE_RATE:
        yield from blocks
        return
    up, down = _ratio(rate)
    # Whole periods of the two rates, so that every piece begins where an output sample lies.
    margin = down * math.ceil(MARGIN * max(1, rate / SAMPLE_RATE) / down)
    step = down * math.ceil(max(rate, margin) / down)
    held, done = np.zeros(0, dtype=np.float32), 0  # the first `done` samples are only context
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) >= done + step + margin:
            piece = resample(held[: done + step + margin], rate, source)
            yield piece[done // down * up : (done + step) // down * up]
            held, done = held[done + step - margin :], margin
    if len(held) > done:
        yield resample(held, rate, source)[done // down * up :]


def _ratio(rate: int) -> tuple[int, int]:
    common = math.gcd(rate, SAMPLE_RATE)
    return SAMPLE_RATE // common, rate // common
