"""Frame features of one transformer layer, for whole manifests."""

import logging
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from .. import frames
from ..data.audio import read_audio
from ..manifest import Manifest
from .backbone import HubertBackbone
from .checkpoint import load_hubert

logger = logging.getLogger(__name__)


class LayerFeatures:
    """The features of one layer; the layers above it are not computed.

    Args:
        backbone: model in evaluation mode, on its device.
        layer: 1-based; negative numbers count from the last. Out of range raises `UserError`.
        batch_seconds: audio per batch, padding included.
    """

    def __init__(self, backbone: HubertBackbone, layer: int, batch_seconds: float = 60.0):
        self.backbone = backbone.eval()
        self.layer = frames.resolve_layer(layer, backbone.n_layers)
        self.max_batch_samples = int(batch_seconds * frames.SAMPLE_RATE)
        logger.info(f"features of layer {self.layer} of {backbone.n_layers}")

    @classmethod
    def load(cls, checkpoint, layer: int, device: str = "cpu", **kwargs) -> "LayerFeatures":
        return cls(load_hubert(checkpoint).build().to(device), layer, **kwargs)

    @torch.inference_mode()
    def __call__(self, waves: list[Tensor]) -> list[Tensor]:
        """Clips `(N,)` at 16 kHz -> features `(T, D)` of each, float32."""
        device = next(self.backbone.parameters()).device
        n_samples = torch.tensor([len(wave) for wave in waves], device=device)
        out = self.backbone(pad_sequence(waves, batch_first=True).to(device), n_samples, output_layer=self.layer)
        return [x[:n].float() for x, n in zip(out["x"], out["n_frames"].tolist(), strict=True)]

    def stream(self, manifest: Manifest, indices: Iterable[int] | None = None) -> Iterator[tuple[int, Tensor]]:
        """`(index, features (T, D))` of the utterances `indices` (all when left out), longest first."""
        indices = range(len(manifest)) if indices is None else indices
        indices = sorted(indices, key=lambda i: -manifest.n_samples[i])
        with tqdm(total=len(indices), unit="utt", desc=f"layer {self.layer}") as progress:
            for batch in self._batches(manifest, indices):
                yield from zip(batch, self([read_audio(manifest, i) for i in batch]), strict=True)
                progress.update(len(batch))

    def _batches(self, manifest: Manifest, indices: list[int]) -> Iterator[list[int]]:
        batch = []
        for i in indices:
            longest = manifest.n_samples[batch[0]] if batch else 0
            if batch and longest * (len(batch) + 1) > self.max_batch_samples:
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch
