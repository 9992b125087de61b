"""Frozen convolutions: the features of a clip are computed once, and kept in memory and on disk."""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .. import frames
from ..files import atomic_path

logger = logging.getLogger(__name__)


def frozen_features(compute: Callable, source: Tensor, n_samples: Tensor, cache: "ConvCache | None" = None) -> Tensor:
    """Features `(M, C)` of audio `(B, N)`, clip after clip, by convolutions that do not change.

    On a CPU every clip is computed alone: its features then are the same to the bit in every batch, and
    so with a cache and without one. Elsewhere the clips that are not in the cache go as one batch.

    Args:
        compute: audio `(B, N)` and `n_samples` `(B,)` -> features of the valid frames, `(M, C)`.
        cache: where features are looked up and kept; nothing is kept when left out.
    """
    lengths = n_samples.tolist()
    keys = [cache and cache.key(row[:n]) for row, n in zip(source, lengths, strict=True)]
    found = [key and cache.get(key) for key in keys]
    missing = [i for i, features in enumerate(found) if features is None]
    together = 1 if source.device.type == "cpu" else len(lengths)
    for part in (missing[i : i + together] for i in range(0, len(missing), together)):
        longest = max(lengths[i] for i in part)
        features = compute(source[part, :longest], n_samples[part]).split([frames.n_frames(lengths[i]) for i in part])
        for i, x in zip(part, features, strict=True):
            found[i] = x
            if keys[i]:
                cache.put(keys[i], x)
    return torch.cat([x.to(source.device) for x in found])


class ConvCache:
    """Features of clips, found by the clip's samples: of whatever split, fold or run, they are the same.

    512 channels at 50 frames a second are 102 kB per second of audio in float32, the type of the model's
    weights: 2.6 GB for IEMOCAP (1.25 million frames), half of it in bfloat16. Memory takes clips as they
    come until it is full, and keeps those: an epoch reads all clips in turn, so that the newest would
    be thrown away before they are read again.

    Args:
        max_bytes: of memory.
        folder: on disk as well, in a subfolder per convolutional encoder, one file per clip; for the
            runs to come and those at the same time. Nothing is ever removed.
        shorter_than: clips of this many samples or more are left out, as crops at random places, which
            do not come again.
    """

    def __init__(self, max_bytes: int, folder: str | None = None, shorter_than: int | None = None):
        self.room, self.folder, self.shorter_than = max_bytes, folder and Path(folder), shorter_than
        self.memory: dict[tuple[str, str], Tensor] = {}
        self.weights, self.encoder = None, ""

    def use(self, extractor: nn.Module, normalize: bool) -> None:
        """Look up and keep features of this encoder from now on."""
        weights = [(p.data_ptr(), p._version) for p in extractor.parameters()]
        if weights != self.weights:  # loaded or cast since
            self.weights, self.encoder = weights, fingerprint(extractor, normalize)

    def key(self, clip: Tensor) -> tuple[str, str] | None:
        """Name of the features of `clip`, `(N,)`; None if they are not to be kept."""
        if self.shorter_than is not None and len(clip) >= self.shorter_than:
            return None
        device = clip.device.type
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        return self.encoder, _digest(f"{clip.dtype} {autocast}", clip)

    def get(self, key: tuple[str, str]) -> Tensor | None:
        """Features `(T, C)`, in main memory; None if they are not kept."""
        features = self.memory.get(key)
        if features is None and self.folder:
            try:
                features = load_file(self._file(key))["features"]
            except (OSError, SafetensorError, KeyError):  # not there, or damaged: computed and written again
                return None
            self._remember(key, features)
        return features

    def put(self, key: tuple[str, str], features: Tensor) -> None:
        """Keep `features` `(T, C)`."""
        features = features.cpu().clone(memory_format=torch.contiguous_format)  # was a part of a batch
        self._remember(key, features)
        if self.folder:
            try:
                with atomic_path(self._file(key)) as temporary:
                    save_file({"features": features}, temporary)
            except (OSError, SafetensorError) as error:
                logger.warning(f"features of frozen convolutions are not kept in {self.folder} any more: {error}")
                self.folder = None

    def _remember(self, key: tuple[str, str], features: Tensor) -> None:
        if key not in self.memory and features.nbytes <= self.room:  # a batch may hold a clip twice
            self.room -= features.nbytes
            self.memory[key] = features

    def _file(self, key: tuple[str, str]) -> Path:
        encoder, clip = key
        return self.folder / encoder / clip[:2] / f"{clip[2:]}.safetensors"


def fingerprint(extractor: nn.Module, normalize: bool) -> str:
    """Hex digest of what the last bit of a clip's features depends on beside the clip, our ways included."""
    text = ["2", torch.__version__, torch.backends.cpu.get_cpu_capability(), f"normalize {normalize}"]
    tensors = sorted(extractor.state_dict().items())
    text += [f"{name} {x.dtype} {x.device.type} {tuple(x.shape)}" for name, x in tensors]
    return _digest("\n".join(text), *(x for _, x in tensors))


def _digest(text: str, *tensors: Tensor) -> str:
    digest = hashlib.sha256(text.encode())
    for x in tensors:
        digest.update(x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:32]
