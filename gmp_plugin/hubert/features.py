"""Frame features of one transformer layer, for whole manifests."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from .. import frames
from ..data.audio import read_audio
from ..manifest import Manifest
from .backbone import HubertBackbone
from .checkpoint import load_hubert

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class LayerFeatures:
    """The features of one layer; the layers above it are not computed.

    By default every clip goes through the model alone, on one CPU thread: the last bits of its
    features, and with them its labels, then depend on nothing but the clip. Speed comes from
    `workers`, threads that share the weights and take a clip each.

    Args:
        backbone: model in evaluation mode, on its device.
        layer: 1-based; negative numbers count from the last. Out of range raises `UserError`.
        workers: threads; each computes a clip or batch.
        batch_seconds: audio per batch, padding included; 0 for one clip at a time. Batches are faster
            on a GPU; the features then differ in the last bits from those of a clip alone.
        dtype: `float32`, or `bfloat16` for the products (faster); norms and the sums over layers stay float32.
    """

    def __init__(
        self, backbone: HubertBackbone, layer: int, workers: int = 1, batch_seconds: float = 0, dtype: str = "float32"
    ):
        self.backbone = backbone.eval()
        for module in backbone.modules():
            if isinstance(module, nn.Linear | nn.Conv1d):
                module.to(DTYPES[dtype])
        self.layer = frames.resolve_layer(layer, backbone.n_layers)
        self.workers, self.dtype = workers, dtype
        self.max_batch_samples = int(batch_seconds * frames.SAMPLE_RATE)
        logger.info(f"features of layer {self.layer} of {backbone.n_layers}, {dtype}")

    @classmethod
    def load(cls, checkpoint, layer: int, device: str = "cpu", **kwargs) -> "LayerFeatures":
        return cls(load_hubert(checkpoint).build().to(device), layer, **kwargs)

    @torch.inference_mode()
    def __call__(self, waves: list[Tensor]) -> list[Tensor]:
        """Clips `(N,)` at 16 kHz -> features `(T, D)` of each, float32."""
        weight = next(self.backbone.parameters())
        n_samples = torch.tensor([len(wave) for wave in waves], device=weight.device)
        source = pad_sequence(waves, batch_first=True).to(weight.device)
        out = self.backbone(source, n_samples, output_layer=self.layer)
        return [x[:n].float() for x, n in zip(out["x"], out["n_frames"].tolist(), strict=True)]

    def stream(
        self, manifest: Manifest, indices: Iterable[int] | None = None, then: Callable | None = None, progress=True
    ) -> Iterator[tuple]:
        """`(index, features (T, D))` of the utterances `indices` (all when left out), in their order.

        Args:
            then: function of the features, computed by the workers; its result is yielded instead.
            progress: show a progress bar.
        """
        indices = range(len(manifest)) if indices is None else list(indices)

        def one(batch: list[int]) -> list[tuple]:
            features = self([read_audio(manifest, i) for i in batch])
            return [(i, then(x) if then else x) for i, x in zip(batch, features, strict=True)]

        with tqdm(total=len(indices), unit="utt", desc=f"layer {self.layer}", disable=not progress) as bar:
            for results in _ordered(one, self._batches(manifest, indices), self.workers):
                yield from results
                bar.update(len(results))

    def _batches(self, manifest: Manifest, indices: Iterable[int]) -> Iterator[list[int]]:
        batch, longest = [], 0
        for i in indices:
            longest = max(longest, manifest.n_samples[i])
            if batch and longest * (len(batch) + 1) > self.max_batch_samples:
                yield batch
                batch, longest = [], manifest.n_samples[i]
            batch.append(i)
        if batch:
            yield batch


def _ordered(function: Callable, arguments: Iterable, workers: int) -> Iterator:
    """`map` on `workers` threads of one CPU thread each; order kept, a few results ahead, so that memory stays flat."""
    pending: deque = deque()
    before = torch.get_num_threads()
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for argument in arguments:
                pending.append(pool.submit(function, argument))
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
            torch.set_num_threads(before)
