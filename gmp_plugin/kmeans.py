"""k-means at several scales on the same frames: fit, assign, save, load."""

import hashlib
import json
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .errors import UserError
from .files import atomic_path
from .kmeans_fit import fit_nested, nearest
from .kmeans_references import fit_faiss, fit_sklearn

logger = logging.getLogger(__name__)

FRAMES_PER_CENTROID = 256  # a sample of this many frames for each centroid is plenty (faiss's default too)
FEW_FRAMES_PER_CENTROID = 10
BACKENDS = {"torch": fit_nested, "sklearn": fit_sklearn, "faiss": fit_faiss}


@dataclass
class MultiscaleKMeans:
    """Centroids of every scale and how they came about.

    `centroids[K]` is float32 `(K, D)`, `counts[K]` the frames of each cluster `(K,)` and
    `inertia[K]` the mean squared distance, both on the frames of the fit. Those of MFCCs have layer 0 and the
    checkpoint `mfcc`.
    """

    centroids: dict[int, Tensor]
    counts: dict[int, Tensor]
    inertia: dict[int, float]
    layer: int
    checkpoint_sha256: str
    n_frames: int
    seed: int
    provenance: list = field(default_factory=list)

    @property
    def scales(self) -> list[int]:
        return sorted(self.centroids)

    def select(self, scales) -> "MultiscaleKMeans":
        """The same with some of its scales; `UserError` for one that was not fitted."""
        missing = sorted(set(scales) - set(self.scales))
        if missing:
            raise UserError(f"scales {missing} are not in the k-means file, which holds {self.scales}")
        parts = {name: {k: getattr(self, name)[k] for k in scales} for name in ("centroids", "counts", "inertia")}
        return replace(self, **parts)

    def assign(self, x: Tensor) -> dict[int, Tensor]:
        """Frames `(T, D)` -> number of the nearest centroid, int64 `(T,)`, for each scale."""
        return Assigner(self.centroids, x.device)(x)

    def save(self, path) -> None:
        """Write a safetensors file: `centroids.K`, `counts.K`, and a JSON header."""
        header = {
            "scales": self.scales,
            "inertia": {str(k): self.inertia[k] for k in self.scales},
            "layer": self.layer,
            "checkpoint_sha256": self.checkpoint_sha256,
            "n_frames": self.n_frames,
            "seed": self.seed,
            "provenance": self.provenance,
        }
        tensors = {f"centroids.{k}": self.centroids[k].contiguous() for k in self.scales}
        tensors |= {f"counts.{k}": self.counts[k] for k in self.scales}
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata={"kmeans": json.dumps(header)})

    @classmethod
    def load(cls, path) -> "MultiscaleKMeans":
        if not Path(path).is_file():
            raise UserError(f"{path} does not exist; make it with manifest_tools/learn_kmeans.py")
        try:
            with safe_open(path, framework="pt") as stream:
                header = json.loads((stream.metadata() or {})["kmeans"])
                scales = header["scales"]
                return cls(
                    centroids={k: stream.get_tensor(f"centroids.{k}") for k in scales},
                    counts={k: stream.get_tensor(f"counts.{k}") for k in scales},
                    inertia={k: header["inertia"][str(k)] for k in scales},
                    **{name: header[name] for name in ("layer", "checkpoint_sha256", "n_frames", "seed", "provenance")},
                )
        except (SafetensorError, KeyError, json.JSONDecodeError, OSError) as error:
            raise UserError(f"{path} is no k-means file of learn_kmeans.py: {error!r}") from None


def identity(centroids: dict[int, Tensor], checkpoint_sha256: str, layer: int) -> str:
    """Hex digest that tells fits apart: their centroids, and the features that they are of."""
    digest = hashlib.sha256(json.dumps([checkpoint_sha256, layer, sorted(centroids)]).encode())
    for k in sorted(centroids):
        digest.update(centroids[k].contiguous().numpy().tobytes())
    return digest.hexdigest()


def check_scales(scales, n_frames: int) -> list[int]:
    """Scales in rising order; `UserError` for impossible ones."""
    scales = sorted(set(scales))
    if not scales or scales[0] < 2:
        raise UserError(f"scales {scales}: expected cluster counts of at least 2")
    if scales[-1] > n_frames:
        raise UserError(
            f"scale {scales[-1]} needs at least {scales[-1]} frames, there are {n_frames}; give smaller --scales"
        )
    return scales


def warn_of_few_frames(scales, n_frames: int) -> None:
    for k in scales:
        if n_frames < FEW_FRAMES_PER_CENTROID * k:
            logger.warning(
                f"scale {k} has {n_frames / k:.1f} frames per cluster; its labels will hardly generalise: "
                "give smaller --scales or more audio"
            )


def fit(x: Tensor, scales, seed: int, backend: str = "torch") -> tuple[dict, dict, dict]:
    """Fit every scale on frames `x` `(N, D)` by one of `BACKENDS`.

    Returns:
        Centroids `(K, D)`, counts `(K,)`, both on the CPU, and inertia per frame, each keyed by K.
    """
    scales = check_scales(scales, len(x))
    fitted = BACKENDS[backend](x, scales, seed)
    centroids, counts, inertia = {}, {}, {}
    for k in scales:
        labels, distances = nearest(x, fitted[k])
        centroids[k], counts[k] = fitted[k].float().cpu(), torch.bincount(labels, minlength=k).cpu()
        inertia[k] = distances.double().mean().item()
        logger.info(f"scale {k}: inertia {inertia[k]:.4f} per frame, {int((counts[k] > 0).sum())} clusters in use")
    return centroids, counts, inertia


class Assigner:
    """Nearest centroids of all scales from one matrix product.

    |x - c|^2 = |x|^2 - 2 x.c + |c|^2, and |x|^2 does not change which is least; ties go to the lowest
    number. Rows are multiplied in blocks of one fixed shape, counted from the first frame of the
    call: BLAS picks other kernels, which round otherwise, for other shapes.

    Args:
        centroids: `(K, D)` float32 for each K.
        device: where the frames will be.
    """

    ROWS = 128  # about a short clip; the centroids then stream through the cache often enough to be no bottleneck

    def __init__(self, centroids: dict[int, Tensor], device="cpu"):
        self.scales = sorted(centroids)
        self.matrix = torch.cat([centroids[k].float() for k in self.scales]).to(device)
        self.offsets = self.matrix.pow(2).sum(1)

    def __call__(self, x: Tensor) -> dict[int, Tensor]:
        """Frames `(T, D)` float32 -> int64 `(T,)` for each scale."""
        labels = {k: torch.empty(len(x), dtype=torch.int64, device=x.device) for k in self.scales}
        block = x.new_zeros(self.ROWS, x.size(1))
        distances = x.new_empty(self.ROWS, len(self.matrix))
        for start in range(0, len(x), self.ROWS):
            rows = x[start : start + self.ROWS]
            block[: len(rows)] = rows
            torch.addmm(self.offsets, block, self.matrix.T, alpha=-2, out=distances)
            for k, part in zip(self.scales, distances[: len(rows)].split(self.scales, dim=1), strict=True):
                labels[k][start : start + len(rows)] = part.argmin(1)
        return labels
