"""One way to read a recording of a manifest."""

import numpy as np
import soundfile
import torch
from torch import Tensor

from ..errors import UserError
from ..frames import SAMPLE_RATE
from ..manifest import Manifest


def read_audio(manifest: Manifest, index: int) -> Tensor:
    """Utterance `index`, float32 `(n_samples,)` within -1..1.

    Raises `UserError`, naming the manifest's line, for a missing or unreadable file, another rate
    than 16 kHz, several channels, or another length than the manifest's.
    """
    path, where = manifest.audio_path(index), manifest.where(index)
    try:
        wave, rate = soundfile.read(path, dtype="float32")
    except (soundfile.SoundFileError, OSError) as error:
        raise UserError(f"{where}: {path} cannot be read: {error}") from None
    if rate != SAMPLE_RATE or wave.ndim != 1:
        channels = 1 if wave.ndim == 1 else wave.shape[1]
        raise UserError(
            f"{where}: {path} has {rate} Hz and {channels} channels; expected {SAMPLE_RATE} Hz mono: "
            "make the manifest with make_manifest.py, which resamples"
        )
    if len(wave) != manifest.n_samples[index]:
        raise UserError(
            f"{where}: {path} has {len(wave)} samples, the manifest says {manifest.n_samples[index]}; "
            "make the manifest again"
        )
    return torch.from_numpy(np.ascontiguousarray(wave))


def compact(wave: Tensor) -> Tensor:
    """`wave` in 16 bits if it loses nothing, as the audio of 16-bit files; itself otherwise."""
    scaled = wave * 32768
    short = scaled.clamp(-32768, 32767).to(torch.int16)
    return short if torch.equal(short.float(), scaled) else wave


def expand(wave: Tensor) -> Tensor:
    """The float32 audio that was made `compact`."""
    return wave.float() / 32768 if wave.dtype == torch.int16 else wave
