"""How frame labels are used, and what they know about emotion, gender and speaker: numbers only."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array

SHUFFLES = 3  # of the utterances' classes, for the chance level
SEED = 1


@dataclass(frozen=True)
class Usage:
    """Frames of each cluster, `counts` `(K,)`."""

    counts: np.ndarray

    @property
    def in_use(self) -> int:
        """Clusters with at least one frame."""
        return int(np.count_nonzero(self.counts))

    @property
    def shares(self) -> np.ndarray:
        """Share of the frames of each cluster, most used first, `(K,)`; sums to 1."""
        return np.sort(self.counts)[::-1] / max(1, self.counts.sum())

    @property
    def perplexity(self) -> float:
        """The exponential of the entropy: how many equally used clusters would be as varied. 1 to K."""
        shares = self.shares[self.shares > 0]
        return float(np.exp(-(shares * np.log(shares)).sum()))


def usage(labels: np.ndarray, n_clusters: int) -> Usage:
    """Usage of labels `(frames,)`, numbers below `n_clusters`."""
    return Usage(np.bincount(labels, minlength=n_clusters))


@dataclass(frozen=True)
class Agreement:
    """What labels tell about a class of the utterances, all from 0 to 1.

    `purity` is the share of frames whose class is the commonest of their cluster, `nmi` the normalised
    mutual information (arithmetic mean of the entropies). `chance_purity` and `chance_nmi` are the same
    with the classes dealt to other utterances: both measures rise with the number of clusters alone.
    """

    purity: float
    nmi: float
    chance_purity: float
    chance_nmi: float


def agreement(labels: np.ndarray, classes: np.ndarray, n_frames: np.ndarray) -> Agreement:
    """Agreement of labels `(frames,)` with utterances' class numbers `(N,)`, of `n_frames` `(N,)` frames each."""
    rng = np.random.default_rng(SEED)
    # Frames of each cluster in each utterance: whatever the classes are, they are counted once.
    owners = np.repeat(np.arange(len(classes)), n_frames)
    frames = coo_array((np.ones(len(labels)), (owners, labels.astype(np.int64)))).tocsr()
    found = _purity_nmi(frames, classes)
    # Whole utterances are shuffled: frames of one utterance resemble each other whatever its class is.
    chance = [_purity_nmi(frames, rng.permutation(classes)) for _ in range(SHUFFLES)]
    return Agreement(*found, *np.mean(chance, axis=0).tolist())


def _purity_nmi(frames, classes: np.ndarray) -> tuple[float, float]:
    """Of the frames of each utterance and cluster `(N, K)`, sparse, and the utterances' classes `(N,)`."""
    members = coo_array((np.ones(len(classes)), (classes, np.arange(len(classes))))).tocsr()
    counts = (members @ frames).toarray()  # (classes, K)
    shares = counts / counts.sum()
    by_class, by_cluster = _entropy(shares.sum(axis=1)), _entropy(shares.sum(axis=0))
    information = max(0.0, by_class + by_cluster - _entropy(shares))
    mean = (by_class + by_cluster) / 2
    return float(counts.max(axis=0).sum() / counts.sum()), information / mean if mean else 1.0


def _entropy(shares: np.ndarray) -> float:
    """In nats, of shares of any shape that sum to 1."""
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())


def majority(labels: np.ndarray, frame_classes: np.ndarray, n_clusters: int) -> np.ndarray:
    """The commonest class of each cluster, `(K,)`; -1 for a cluster without frames."""
    n_classes = int(frame_classes.max()) + 1
    flat = np.bincount(labels.astype(np.int64) * n_classes + frame_classes, minlength=n_clusters * n_classes)
    counts = flat.reshape(n_clusters, n_classes)
    return np.where(counts.any(axis=1), counts.argmax(axis=1), -1)


def plane(centroids: dict[int, np.ndarray]) -> tuple[dict[int, np.ndarray], str]:
    """Centroids `(K, D)` of every scale in one common plane, `(K, 2)` each, and what the plane is.

    UMAP where `umap-learn` is installed and there are centroids enough for its neighbourhoods, else the
    first two principal components of the largest scale. A single one is the origin.
    """
    scales = sorted(centroids)
    if len(centroids[scales[-1]]) == 1:
        return {k: np.zeros((len(points), 2)) for k, points in centroids.items()}, "a single point"
    together = np.concatenate([centroids[k] for k in scales])
    try:
        from umap import UMAP
    except ImportError:
        UMAP = None
    if UMAP is not None and len(together) > 30:
        points, name = UMAP(random_state=SEED, n_jobs=1).fit_transform(together), "UMAP"
    else:
        from sklearn.decomposition import PCA

        pca = PCA(2, random_state=SEED).fit(centroids[scales[-1]])
        points, name = pca.transform(together), f"PCA, {pca.explained_variance_ratio_.sum():.0%} of the variance"
    ends = np.cumsum([len(centroids[k]) for k in scales])
    return dict(zip(scales, np.split(points, ends[:-1]), strict=True)), name
