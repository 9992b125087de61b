"""Features of frames for whole manifests: what a source of them has to say, and the streaming of clips."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from tqdm import tqdm

from .data.audio import read_audio
from .frames import SAMPLE_RATE
from .manifest import Manifest


class FrameFeatures:
    """A source of features, one vector for each of HuBERT's frames; subclasses compute them in `__call__`.

    Labels that are made of them keep `source`, `layer` and `dtype`: the same three give the same features.

    Args:
        workers: threads; each computes a clip or batch.
        batch_seconds: audio per batch, padding included; 0 for one clip at a time.
        dtype: of the computation, `float32` or `bfloat16`.
    """

    source: str  # digest of the checkpoint, or the kind of the features
    layer: int  # 1-based; 0 without a model
    dim: int  # D
    name: str  # in progress bars
    device = torch.device("cpu")

    def __init__(self, workers: int = 1, batch_seconds: float = 0, dtype: str = "float32"):
        self.workers, self.dtype = workers, dtype
        self.max_batch_samples = int(batch_seconds * SAMPLE_RATE)

    def __call__(self, waves: list[Tensor]) -> list[Tensor]:
        """Clips `(N,)` at 16 kHz -> features `(T, D)` of each, float32."""
        raise NotImplementedError

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

        with tqdm(total=len(indices), unit="utt", desc=self.name, disable=not progress) as bar:
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
