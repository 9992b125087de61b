"""Other people's k-means on the same frames, one scale at a time: to compare with, not to be fast."""

import numpy as np
import torch
from torch import Tensor

from .errors import UserError


def fit_sklearn(x: Tensor, scales: list[int], seed: int) -> dict[int, Tensor]:
    """scikit-learn's `MiniBatchKMeans` with the settings of fairseq's simple_kmeans (twenty initialisations)."""
    from sklearn.cluster import MiniBatchKMeans

    def one(k: int) -> Tensor:
        model = MiniBatchKMeans(
            k, max_iter=100, batch_size=10_000, tol=0.0, max_no_improvement=100, n_init=20, reassignment_ratio=0.0,
            random_state=seed, compute_labels=False,
        )  # fmt: skip
        return torch.from_numpy(model.fit(x.cpu().numpy()).cluster_centers_).to(x)

    return {k: one(k) for k in scales}


def fit_faiss(x: Tensor, scales: list[int], seed: int) -> dict[int, Tensor]:
    """faiss's `Kmeans`: Lloyd's algorithm, 25 rounds from random frames, its own sampling switched off."""
    try:
        import faiss
    except ImportError:
        raise UserError("--backend faiss needs faiss: pip install faiss-cpu; or use --backend torch") from None

    frames = np.ascontiguousarray(x.cpu().numpy())

    def one(k: int) -> Tensor:
        model = faiss.Kmeans(
            x.size(1), k, niter=25, seed=seed, min_points_per_centroid=1, max_points_per_centroid=len(x)
        )
        model.train(frames)
        return torch.from_numpy(np.array(model.centroids)).to(x)

    return {k: one(k) for k in scales}
