"""Additive-margin softmax (Wang et al. 2018; GMP-ATL eq. 2 and 3)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import at_least_float32


class AMSoftmax(nn.Module):
    """Classifier whose logits are scaled cosines, trained with a margin on the true class.

    loss = -log( e^{s (cos_y - m)} / ( e^{s (cos_y - m)} + sum_{j != y} e^{s cos_j} ) )

    Args:
        input_dim: D, size of the embedding.
        n_classes: C.
        scale: s.
        margin: m; 0 gives the cosine cross-entropy.
    """

    def __init__(self, input_dim: int, n_classes: int, scale: float = 30.0, margin: float = 0.2):
        super().__init__()
        self.scale, self.margin = scale, margin
        self.weight = nn.Parameter(torch.empty(n_classes, input_dim))
        nn.init.xavier_normal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Logits without margin, `(B, D)` -> `(B, C)`, each within -s..s."""
        # Cosines in float32: bf16 resolves them to 0.004, a tenth of a logit at s = 30.
        x, weight = at_least_float32(x), at_least_float32(self.weight)
        with torch.autocast(x.device.type, enabled=False):
            return self.scale * F.normalize(x, dim=-1) @ F.normalize(weight, dim=-1).T

    def training_logits(self, logits: Tensor, target: Tensor) -> Tensor:
        """The logits `(B, C)` with s m taken off the true class `target` `(B,)`; feed these to cross-entropy."""
        return logits - self.scale * self.margin * F.one_hot(target, logits.size(-1)).to(logits.dtype)


class LinearClassifier(nn.Linear):
    """The cross-entropy counterpart of `AMSoftmax`, for the ablation (paper, Table 3)."""

    def training_logits(self, logits: Tensor, target: Tensor) -> Tensor:
        return logits
