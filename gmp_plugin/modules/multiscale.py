"""Prediction of frame labels at several scales (paper, section 3.2)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import at_least_float32


class CosineHead(nn.Module):
    """HuBERT's own head: a projection, then the cosine to an embedding per cluster over a temperature.

    Same numbers as fairseq's `compute_nce` without its `(K + 1, frames, dim)` expansion.
    """

    def __init__(self, input_dim: int, projection_dim: int, n_clusters: int, temperature: float = 0.1):
        super().__init__()
        self.projection = nn.Linear(input_dim, projection_dim)
        self.embedding = nn.Parameter(torch.rand(n_clusters, projection_dim))
        self.temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        x, embedding = at_least_float32(self.projection(x)), at_least_float32(self.embedding)
        with torch.autocast(x.device.type, enabled=False):
            return F.normalize(x, dim=-1) @ F.normalize(embedding, dim=-1).T / self.temperature


class MultiscalePrediction(nn.Module):
    """One prediction head per scale on the same frames.

    Args:
        input_dim: D, size of a frame.
        scales: cluster counts, as (64, 512, 4096).
        projection_dim: size between the two layers of a head.
        head: `linear` (two linear layers with a ReLU between, the paper's) or `cosine` (HuBERT's).
    """

    def __init__(self, input_dim: int, scales, projection_dim: int = 256, head: str = "linear"):
        super().__init__()
        self.scales = tuple(scales)

        def make(n_clusters: int) -> nn.Module:
            if head == "cosine":
                return CosineHead(input_dim, projection_dim, n_clusters)
            return nn.Sequential(nn.Linear(input_dim, projection_dim), nn.ReLU(), nn.Linear(projection_dim, n_clusters))

        self.heads = nn.ModuleDict({str(k): make(k) for k in self.scales})

    def forward(self, x: Tensor) -> list[Tensor]:
        """Frames `(N, D)` -> logits `(N, K)` for each scale, in the order of `scales`."""
        return [self.heads[str(k)](x) for k in self.scales]
