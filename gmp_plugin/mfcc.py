"""MFCCs on HuBERT's frame grid: what the labels of a first HuBERT are made of (Hsu et al. 2021, section 3.1)."""

import torch
from torch import Tensor

from . import frames
from .errors import UserError
from .frame_features import FrameFeatures

HOP = 160  # Kaldi's 10 ms; its window of 25 ms is HuBERT's receptive field


class MfccFeatures(FrameFeatures):
    """13 Kaldi MFCCs with their first and second differences, `(T, 39)`, as fairseq's simple_kmeans computes them.

    fairseq keeps 100 frames a second. Kaldi's window j covers the samples 160 j to 160 j + 399, and HuBERT's
    frame t sees 320 t to 320 t + 399: so every second one, from the first, is of exactly the samples of a HuBERT
    frame, and there are as many as frames. The differences are those of the full rate, over 20 ms each way.
    """

    source = "mfcc"
    layer = 0
    dim = 39
    name = "mfcc"

    def __init__(self, workers: int = 1, batch_seconds: float = 0, dtype: str = "float32"):
        super().__init__(workers)  # always a clip at a time, in float32
        try:
            import torchaudio
        except (ImportError, OSError) as error:
            raise UserError(
                f"MFCCs need torchaudio, which does not load ({error}). The package index's torchaudio loads only "
                "beside a CUDA build of torch (which runs on a CPU too): install both from there, as make setup does"
            ) from None
        self.torchaudio = torchaudio

    @torch.inference_mode()
    def __call__(self, waves: list[Tensor]) -> list[Tensor]:
        return [self.full_rate(wave)[:: frames.HOP // HOP].contiguous() for wave in waves]

    def full_rate(self, wave: Tensor) -> Tensor:
        """Clip `(N,)` at 16 kHz -> `(frames of 10 ms, 39)`."""
        mfcc = self.torchaudio.compliance.kaldi.mfcc(
            wave.float()[None], sample_frequency=frames.SAMPLE_RATE, use_energy=False
        ).T
        deltas = self.torchaudio.functional.compute_deltas(mfcc)
        return torch.cat([mfcc, deltas, self.torchaudio.functional.compute_deltas(deltas)]).T
