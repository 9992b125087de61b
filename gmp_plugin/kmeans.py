"""k-means at several scales on the same frames: fit, assign, save, load.

The coarsest scale is fitted with restarts; each finer one starts from the one before by splitting
every cluster in proportion to its inertia, and is refined by Lloyd's algorithm. scikit-learn's `MiniBatchKMeans`,
with the settings of fairseq's simple_kmeans, is there as a reference.
"""

import json
import logging
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .errors import UserError
from .files import atomic_path

logger = logging.getLogger(__name__)

FRAMES_PER_CENTROID = 256  # a sample of this many frames for each centroid is plenty (faiss's default too)
FEW_FRAMES_PER_CENTROID = 10
RESTARTS = 4  # besides the split of the coarser scale
RESTART_UP_TO = 256  # clusters; above, starting points cost more than they gain
CHUNK = 8192  # rows of a distance matrix at a time


@dataclass
class MultiscaleKMeans:
    """Centroids of every scale and how they came about.

    `centroids[K]` is float32 `(K, D)`, `counts[K]` the frames of each cluster `(K,)` and
    `inertia[K]` the mean squared distance, both on the frames of the fit.
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
        return {k: nearest(x, self.centroids[k].to(x.device))[0] for k in self.scales}

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
        tensors = {f"centroids.{k}": self.centroids[k].float().cpu().contiguous() for k in self.scales}
        tensors |= {f"counts.{k}": self.counts[k].cpu() for k in self.scales}
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


def check_scales(scales, n_frames: int) -> list[int]:
    """Scales in rising order; `UserError` for impossible ones, a warning for those with few frames."""
    scales = sorted(set(scales))
    if not scales or scales[0] < 2:
        raise UserError(f"scales {scales}: expected cluster counts of at least 2")
    if scales[-1] > n_frames:
        raise UserError(
            f"scale {scales[-1]} needs at least {scales[-1]} frames, the manifest has {n_frames}; give smaller --scales"
        )
    for k in scales:
        if n_frames < FEW_FRAMES_PER_CENTROID * k:
            logger.warning(
                f"scale {k} has {n_frames / k:.1f} frames per cluster; its labels will hardly generalise: "
                "give smaller --scales or more audio"
            )
    return scales


def fit(x: Tensor, scales, seed: int, backend: str = "torch") -> tuple[dict, dict, dict]:
    """Fit every scale on frames `x` `(N, D)`.

    Returns:
        Centroids `(K, D)`, counts `(K,)` and inertia per frame, each keyed by K.
    """
    scales = check_scales(scales, len(x))
    centroids = _fit_sklearn(x, scales, seed) if backend == "sklearn" else _fit_nested(x, scales, seed)
    counts, inertia = {}, {}
    for k in scales:
        labels, distances = nearest(x, centroids[k])
        counts[k] = torch.bincount(labels, minlength=k)
        inertia[k] = distances.double().mean().item()
        logger.info(f"scale {k}: inertia {inertia[k]:.4f} per frame, {int((counts[k] > 0).sum())} clusters in use")
    return centroids, counts, inertia


def nearest(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Number of the nearest centroid and squared distance to it, for frames `(N, D)`: both `(N,)`.

    |x - c|^2 = |x|^2 - 2 x.c + |c|^2, and |x|^2 does not change which is least. Ties go to the
    lowest number.
    """
    offsets = centroids.pow(2).sum(1)
    labels, distances = [], []
    for rows in x.split(CHUNK):
        least, label = torch.addmm(offsets, rows, centroids.T, alpha=-2).min(1)
        labels.append(label)
        distances.append((least + rows.pow(2).sum(1)).clamp_min_(0))
    return torch.cat(labels), torch.cat(distances)


def _fit_nested(x: Tensor, scales: list[int], seed: int) -> dict[int, Tensor]:
    generator = torch.Generator(x.device).manual_seed(seed)
    result: dict[int, Tensor] = {}
    for k in scales:
        starts = [_split(x, result[max(result)], k, generator)] if result else []
        if k <= RESTART_UP_TO:
            starts += [_plus_plus(x, k, generator) for _ in range(RESTARTS)]
        if len(starts) > 1:
            starts = [min((_lloyd(x, start, max_iter=10) for start in starts), key=lambda fitted: fitted[1])[0]]
        result[k] = _lloyd(x, starts[0], max_iter=60)[0]
    return result


def _lloyd(x: Tensor, centroids: Tensor, max_iter: int, tolerance: float = 1e-4) -> tuple[Tensor, float]:
    """Lloyd's algorithm until the inertia falls by less than `tolerance` of itself; centroids and inertia."""
    previous = float("inf")
    for _ in range(max_iter):
        labels, distances = nearest(x, centroids)
        inertia = distances.double().mean().item()
        centroids = _means(x, labels, distances, centroids)
        if previous - inertia <= tolerance * inertia:
            break
        previous = inertia
    return centroids, inertia


def _means(x: Tensor, labels: Tensor, distances: Tensor, centroids: Tensor) -> Tensor:
    """New centroids; one that lost all its frames moves to a frame far from its own centroid."""
    k = len(centroids)
    counts = torch.bincount(labels, minlength=k)
    sums = torch.zeros(k, x.size(1), dtype=torch.float64, device=x.device).index_add_(0, labels, x.double())
    means = (sums / counts.clamp_min(1)[:, None]).to(x.dtype)
    empty = (counts == 0).nonzero()[:, 0]
    if len(empty):
        means[empty] = x[distances.topk(len(empty)).indices]
    return means


def _plus_plus(x: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Greedy k-means++ (Arthur and Vassilvitskii 2007): frames drawn by their squared distance, of a
    few draws the one that lowers the inertia most, as scikit-learn does."""
    trials = 2 + int(math.log(k))
    squares = x.pow(2).sum(1)
    index = torch.randint(len(x), (1,), generator=generator, device=x.device)
    distances = (x - x[index]).pow(2).sum(1)
    chosen = [index]
    for _ in range(k - 1):
        weights = distances.double().cumsum(0)
        draws = torch.rand(trials, generator=generator, device=x.device, dtype=torch.float64) * weights[-1]
        candidates = torch.searchsorted(weights, draws).clamp_max(len(x) - 1)
        to_candidates = squares[candidates] + squares[:, None] - 2 * x @ x[candidates].T
        reduced = torch.minimum(distances[:, None], to_candidates.clamp_min(0))
        best = reduced.sum(0).argmin()
        distances = reduced[:, best]
        chosen.append(candidates[best : best + 1])
    return x[torch.cat(chosen)]


def _split(x: Tensor, centroids: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """`k` centroids from fewer: each cluster gets a share in proportion to its inertia, at least one."""
    labels, distances = nearest(x, centroids)
    counts = torch.bincount(labels, minlength=len(centroids))
    inertia = torch.zeros(len(centroids), dtype=torch.float64, device=x.device).index_add_(
        0, labels, distances.double()
    )
    shares = _allocate(inertia, counts, k)
    order = labels.argsort(stable=True)
    children = []
    for members, share in zip(order.split(counts.tolist()), shares.tolist(), strict=True):
        if share == 1:
            children.append(x[members].mean(0, keepdim=True))
        elif share > 1:
            own = x[members]
            children.append(_lloyd(own, _plus_plus(own, share, generator), max_iter=5)[0])
    return torch.cat(children)


def _allocate(inertia: Tensor, counts: Tensor, k: int) -> Tensor:
    """Children per cluster, summing to `k`: 1 to `counts` each, otherwise in proportion to `inertia`."""
    shares = torch.minimum(counts, torch.ones_like(counts))
    for _ in range(k):
        spare = k - int(shares.sum())
        if spare == 0:
            break
        room = (counts > shares).double()
        wanted = inertia.clamp_min(1e-12) * room
        extra = (wanted / wanted.sum() * spare).floor().long()
        if int(extra.sum()) == 0:  # hand out the rest one by one, to those with most inertia per child
            extra[(wanted / (shares + 1)).topk(min(spare, int(room.sum()))).indices] = 1
        shares = torch.minimum(counts, shares + extra)
    return shares


def _fit_sklearn(x: Tensor, scales: list[int], seed: int) -> dict[int, Tensor]:
    from sklearn.cluster import MiniBatchKMeans

    def one(k: int) -> Tensor:
        model = MiniBatchKMeans(
            k, max_iter=100, batch_size=10_000, tol=0.0, max_no_improvement=100, n_init=20, reassignment_ratio=0.0,
            random_state=seed, compute_labels=False,
        )  # fmt: skip
        return torch.from_numpy(model.fit(x.cpu().numpy()).cluster_centers_).to(x)

    return {k: one(k) for k in scales}
