"""Fitting k-means at nested scales, in torch on CPU or GPU.

The coarsest scale is fitted with restarts on a part of the frames. Each finer one starts from the one before by
splitting every cluster in proportion to its inertia. Lloyd's algorithm then looks, for the frames of a coarse
cluster, only among the fine centroids near it, which costs a fraction of the whole product and loses next to nothing.
Where two scales are far apart, scales between them are fitted on the way: a cluster that is split into hundreds has
children that are not near its centroid.
"""

import math
import warnings
from contextlib import contextmanager

import torch
from torch import Tensor

CHUNK = 8192  # rows of a distance matrix at a time
RESTARTS = 6
RESTART_UP_TO = 256  # clusters; above, starting points cost more than they gain
RESTART_FRAMES = 256  # per cluster, for the choice among restarts
FIRST = 64  # clusters, where the coarsest scale asked for is above RESTART_UP_TO
SPLIT = 8  # times more clusters from one scale to the next, at most
CANDIDATES = 128  # fine centroids that the frames of a coarse cluster are compared with
NEAR_ROUNDS = 6  # of Lloyd's algorithm among near centroids
TOLERANCE = 1e-4  # relative fall of the inertia below which Lloyd's algorithm ends


@contextmanager
def deterministic():
    """For sums that a GPU forms in the order in which its threads come: the same seed would give other centroids.

    Only warns of the rest, quietly: products, whose order differs between streams, of which there is one here.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


@deterministic()
def fit_nested(x: Tensor, scales: list[int], seed: int) -> dict[int, Tensor]:
    """Centroids `(K, D)` of every scale, rising, for frames `(N, D)` float32."""
    generator = torch.Generator(x.device).manual_seed(seed)
    squares = squared_lengths(x)
    result: dict[int, Tensor] = {}
    coarse = labels = None
    for k in with_steps(scales):
        start = None if coarse is None else _split(x, squares, result[coarse], labels, k, generator)
        if start is None or (k in scales and k <= RESTART_UP_TO):
            start = _best_start(x, k, generator, start)
        if k > CANDIDATES and coarse is not None:
            result[k], labels = _lloyd_near(x, squares, start, result[coarse], labels)
        else:
            result[k], labels = lloyd(x, squares, start, max_iter=60)
        coarse = k
    return {k: result[k] for k in scales}


def with_steps(scales: list[int]) -> list[int]:
    """Rising `scales`, and steps between them so that none has more than `SPLIT` times the clusters of the last."""
    path = [] if scales[0] <= RESTART_UP_TO else [FIRST]
    for k in scales:
        last = path[-1] if path else k
        n = math.ceil(round(math.log(k / last, SPLIT), 6))
        path += [round(last * (k / last) ** (i / n)) for i in range(1, n)] + [k]
    return path


@contextmanager
def one_thread():
    """For many small steps: threads that meet after each of them wait longer than they work, on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def squared_lengths(x: Tensor) -> Tensor:
    """Of frames `(N, D)`, in memory for `CHUNK` of them: `(N,)`."""
    return torch.cat([rows.pow(2).sum(1) for rows in x.split(CHUNK)])


def nearest(x: Tensor, centroids: Tensor, squares: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Number of the nearest centroid and squared distance to it, for frames `(N, D)`: both `(N,)`.

    `squares` are the frames' squared lengths, if known. Ties go to the lowest number.
    """
    squares = squared_lengths(x) if squares is None else squares
    offsets = centroids.pow(2).sum(1)
    labels, distances = [], []
    for rows, square in zip(x.split(CHUNK), squares.split(CHUNK), strict=True):
        least, label = torch.addmm(offsets, rows, centroids.T, alpha=-2).min(1)
        labels.append(label)
        distances.append((least + square).clamp_min_(0))
    return torch.cat(labels), torch.cat(distances)


def lloyd(x: Tensor, squares: Tensor, centroids: Tensor, max_iter: int) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm until the inertia hardly falls: centroids, and the last labels."""
    previous = math.inf
    for _ in range(max_iter):
        labels, distances = nearest(x, centroids, squares)
        inertia = distances.mean(dtype=torch.float64).item()
        centroids = _means(x, labels, distances, centroids)
        if previous - inertia <= TOLERANCE * inertia:
            break
        previous = inertia
    return centroids, labels


def _lloyd_near(x: Tensor, squares: Tensor, centroids: Tensor, coarse: Tensor, owners: Tensor) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm where frames of coarse cluster `owners` `(N,)` see the centroids nearest to it only."""
    counts = torch.bincount(owners, minlength=len(coarse)).tolist()
    members = owners.argsort(stable=True).split(counts)
    n_near = max(CANDIDATES, len(centroids) // 32)
    labels, distances = torch.empty_like(owners), torch.empty_like(squares)
    previous = math.inf
    for _ in range(NEAR_ROUNDS):
        offsets = centroids.pow(2).sum(1)
        near = torch.addmm(offsets, coarse, centroids.T, alpha=-2).topk(n_near, largest=False).indices
        for rows, candidates in zip(members, near, strict=True):
            if len(rows):
                products = torch.addmm(offsets[candidates], x[rows], centroids[candidates].T, alpha=-2)
                least, label = products.min(1)
                labels[rows] = candidates[label]
                distances[rows] = least
        distances = distances.add_(squares).clamp_min_(0)
        inertia = distances.mean(dtype=torch.float64).item()
        centroids = _means(x, labels, distances, centroids)
        if previous - inertia <= TOLERANCE * inertia:
            break
        previous = inertia
    return centroids, labels


def _means(x: Tensor, labels: Tensor, distances: Tensor, centroids: Tensor) -> Tensor:
    """New centroids; one that lost all its frames moves to a frame far from its own centroid."""
    k = len(centroids)
    counts = torch.bincount(labels, minlength=k)
    sums = torch.zeros_like(centroids).index_add_(0, labels, x)
    means = sums / counts.clamp_min(1)[:, None]
    empty = (counts == 0).nonzero()[:, 0]
    if len(empty):
        means[empty] = x[distances.topk(len(empty)).indices]
    return means


@one_thread()
def _best_start(x: Tensor, k: int, generator: torch.Generator, split: Tensor | None) -> Tensor:
    """The best of `split` and some restarts after a few rounds, on a part of the frames."""
    part = x[torch.randperm(len(x), generator=generator, device=x.device)[: RESTART_FRAMES * k]]
    squares = part.pow(2).sum(1)
    starts = [_plus_plus(part, k, generator) for _ in range(RESTARTS)] + ([] if split is None else [split])
    starts = [lloyd(part, squares, start, max_iter=10)[0] for start in starts]
    return min(starts, key=lambda start: nearest(part, start, squares)[1].mean().item())


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
        to_candidates = torch.addmm(squares[candidates], x, x[candidates].T, alpha=-2).add_(squares[:, None])
        reduced = torch.minimum(distances[:, None], to_candidates.clamp_min_(0))
        best = reduced.sum(0).argmin()
        distances = reduced[:, best]
        chosen.append(candidates[best : best + 1])
    return x[torch.cat(chosen)]


@one_thread()
def _split(x: Tensor, squares: Tensor, centroids: Tensor, labels: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """`k` centroids from fewer: each cluster gets a share in proportion to its inertia, at least one."""
    counts = torch.bincount(labels, minlength=len(centroids))
    inertia = torch.zeros(len(centroids), dtype=torch.float64, device=x.device)
    for rows, owners in zip(x.split(CHUNK), labels.split(CHUNK), strict=True):
        inertia.index_add_(0, owners, (rows - centroids[owners]).pow(2).sum(1).double())
    shares = _allocate(inertia, counts, k)
    order = labels.argsort(stable=True)
    children = []
    for members, share in zip(order.split(counts.tolist()), shares.tolist(), strict=True):
        if share == 1:
            children.append(x[members].mean(0, keepdim=True))
        elif share > 1:
            own = x[members]
            children.append(lloyd(own, squares[members], _plus_plus(own, share, generator), max_iter=5)[0])
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
